-- Which kinds of mistake does each agent make with each model, as each critic sees them?
-- A step counts once per category; the share is of the steps the critic judged, with its 95% Wilson interval.
WITH judged AS (
  SELECT t.agent, t.model, v.policy AS critic, hash(v.trajectory_id, v.step) AS place, -- tells steps apart sooner than their names
    v.label, v.categories
  FROM verdicts v JOIN trajectories t USING (trajectory_id)
  WHERE v.scope = 'step'
),
sizes AS (SELECT agent, model, critic, count(DISTINCT place) AS n FROM judged GROUP BY ALL),
found AS (
  SELECT DISTINCT agent, model, critic, place, unnest(coalesce(nullif(categories, []), ['(not said)'])) AS category
  FROM judged
  WHERE label = 'mistake'
)
SELECT f.agent, f.model, f.critic, f.category, count(*) AS steps, any_value(s.n) AS judged_steps,
  share(count(*), any_value(s.n)) AS share,
  round(wilson_low(count(*), any_value(s.n)), 4) AS low,
  round(wilson_high(count(*), any_value(s.n)), 4) AS high
FROM found f
JOIN sizes s ON s.agent IS NOT DISTINCT FROM f.agent AND s.model IS NOT DISTINCT FROM f.model
  AND s.critic IS NOT DISTINCT FROM f.critic
GROUP BY f.agent, f.model, f.critic, f.category
ORDER BY f.agent NULLS LAST, f.model NULLS LAST, f.critic, steps DESC, f.category;
