-- At which step does the first mistake come, and how far into the trajectory is that?
-- Steps are counted from 0; position is the step over the number of steps. Trajectories without a mistake are counted.
WITH firsts AS (
  SELECT policy AS critic, trajectory_id, min(step) FILTER (label = 'mistake') AS first_step
  FROM verdicts
  WHERE scope = 'step'
  GROUP BY policy, trajectory_id
)
SELECT
  f.critic,
  t.resolved,
  count(*) AS trajectories,
  count(f.first_step) AS with_mistake,
  median(f.first_step) AS median_first_step,
  round(avg(f.first_step / nullif(t.n_steps, 0)), 4) AS mean_position
FROM firsts f JOIN trajectories t USING (trajectory_id)
GROUP BY f.critic, t.resolved
ORDER BY f.critic, t.resolved NULLS LAST;
