-- Where in a trajectory does each kind of mistake happen?
-- Thirds of the trajectory's own length; the share is of the steps that critic judged in that third.
WITH judged AS (
  SELECT v.policy, third_number(v.step, t.n_steps) AS part,
    hash(v.trajectory_id, v.step) AS place, -- numbers are grouped sooner than names
    v.label, v.categories
  FROM verdicts v JOIN trajectories t USING (trajectory_id)
  WHERE v.scope = 'step' AND v.step IS NOT NULL
),
sizes AS (SELECT hash(policy) AS critic, part, count(DISTINCT place) AS n FROM judged GROUP BY ALL),
found AS (
  SELECT DISTINCT hash(policy) AS critic, part, place, coalesce(unnest(coalesce(nullif(categories, []), [NULL])), '(not said)') AS category
  FROM judged
  WHERE label = 'mistake'
),
counted AS (
  SELECT critic, category, part, count(*) AS steps, any_value(n) AS judged_steps
  FROM found JOIN sizes USING (critic, part)
  GROUP BY ALL
)
SELECT c.policy AS critic, category, third(part, 3) AS part, steps, judged_steps, share(steps, judged_steps) AS share
FROM counted JOIN (SELECT DISTINCT policy FROM judged) c ON hash(c.policy) = counted.critic
ORDER BY c.policy, category, part;
