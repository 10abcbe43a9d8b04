-- Which error categories does each critic find in resolved and in unresolved trajectories?
-- A step counts once per category; the share is of the steps this critic judged under that outcome.
WITH judged AS (
  SELECT v.policy AS critic, t.resolved, v.trajectory_id, v.step, v.categories
  FROM verdicts v JOIN trajectories t USING (trajectory_id)
  WHERE v.scope = 'step'
),
judged_steps AS (SELECT critic, resolved, count(DISTINCT (trajectory_id, step)) AS n FROM judged GROUP BY ALL),
found AS (SELECT DISTINCT critic, resolved, trajectory_id, step, unnest(categories) AS category FROM judged)
SELECT f.critic, f.resolved, f.category, count(*) AS steps, any_value(s.n) AS judged_steps, round(count(*) / any_value(s.n), 4) AS share
FROM found f JOIN judged_steps s ON s.critic = f.critic AND s.resolved IS NOT DISTINCT FROM f.resolved
WHERE f.category IS NOT NULL
GROUP BY f.critic, f.resolved, f.category
ORDER BY f.critic, f.resolved NULLS LAST, steps DESC, f.category;
