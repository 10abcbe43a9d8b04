-- Which trajectories run the same command three times in a row or more?
WITH numbered AS (
  SELECT trajectory_id, step, command,
    row_number() OVER (PARTITION BY trajectory_id ORDER BY step)
      - row_number() OVER (PARTITION BY trajectory_id, command ORDER BY step) AS island
  FROM steps
),
runs AS (
  SELECT trajectory_id, command, min(step) AS first_step, count(*) AS times
  FROM numbered
  WHERE command IS NOT NULL
  GROUP BY trajectory_id, command, island
  HAVING count(*) >= 3
)
SELECT t.model, r.trajectory_id, r.first_step, r.times, r.command, t.resolved
FROM runs r JOIN trajectories t USING (trajectory_id)
ORDER BY r.times DESC, r.trajectory_id, r.first_step;
