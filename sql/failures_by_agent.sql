-- Which kinds of mistake does each agent make with each model, as each critic sees them?
-- A step counts once per category; the share is of the steps the critic judged, with its 95% Wilson interval.
WITH agents AS (SELECT trajectory_id, agent, model, hash(agent, model) AS who FROM trajectories), -- numbers are grouped sooner than names
judged AS (
  SELECT a.who, v.policy, hash(v.trajectory_id, v.step) AS place, v.label, v.categories
  FROM verdicts v JOIN agents a USING (trajectory_id)
  WHERE v.scope = 'step'
),
sizes AS (SELECT who, hash(policy) AS critic, count(DISTINCT place) AS n FROM judged GROUP BY ALL),
found AS (
  SELECT DISTINCT who, hash(policy) AS critic, place, coalesce(unnest(coalesce(nullif(categories, []), [NULL])), '(not said)') AS category
  FROM judged
  WHERE label = 'mistake'
),
counted AS (
  SELECT who, critic, category, count(*) AS steps, any_value(n) AS judged_steps
  FROM found JOIN sizes USING (who, critic)
  GROUP BY ALL
)
SELECT a.agent, a.model, c.policy AS critic, category, steps, judged_steps, share(steps, judged_steps) AS share,
  round(wilson_low(steps, judged_steps), 4) AS low, round(wilson_high(steps, judged_steps), 4) AS high
FROM counted JOIN (SELECT DISTINCT who, agent, model FROM agents) a USING (who)
JOIN (SELECT DISTINCT policy FROM judged) c ON hash(c.policy) = counted.critic
ORDER BY a.agent NULLS LAST, a.model NULLS LAST, c.policy, steps DESC, category;
