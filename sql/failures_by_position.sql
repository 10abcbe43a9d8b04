-- Where in a trajectory does each kind of mistake happen?
-- Thirds of the trajectory's own length; the share is of the steps that critic judged in that third.
WITH judged AS (
  SELECT v.policy AS critic, third(v.step, t.n_steps) AS part,
    hash(v.trajectory_id, v.step) AS place, -- tells steps apart sooner than their names
    v.label, v.categories
  FROM verdicts v JOIN trajectories t USING (trajectory_id)
  WHERE v.scope = 'step' AND v.step IS NOT NULL
),
sizes AS (SELECT critic, part, count(DISTINCT place) AS n FROM judged GROUP BY critic, part),
found AS (
  SELECT DISTINCT critic, part, place, unnest(coalesce(nullif(categories, []), ['(not said)'])) AS category
  FROM judged
  WHERE label = 'mistake'
)
SELECT f.critic, f.category, f.part, count(*) AS steps, any_value(s.n) AS judged_steps, share(count(*), any_value(s.n)) AS share
FROM found f JOIN sizes s ON s.critic IS NOT DISTINCT FROM f.critic AND s.part = f.part
GROUP BY f.critic, f.category, f.part
ORDER BY f.critic, f.category, f.part;
