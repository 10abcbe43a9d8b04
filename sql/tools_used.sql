-- Which tools does each model use, how often do they fail, and do trajectories that use them succeed?
-- A tool is the first program of a command; failed is an exit code other than 0, of the steps where one is known.
WITH used AS (
  SELECT trajectory_id, coalesce(tool(command), '(nothing)') AS tool, count(*) AS steps,
    count(*) FILTER (exit_code <> 0) AS failed, count(exit_code) AS ended
  FROM steps
  GROUP BY trajectory_id, tool
)
SELECT t.model, u.tool, sum(u.steps)::BIGINT AS steps,
  share(sum(u.steps), sum(sum(u.steps)) OVER (PARTITION BY t.model)) AS share, count(*) AS trajectories,
  share(sum(u.failed), sum(u.ended)) AS failed, share(count(*) FILTER (t.resolved), count(t.resolved)) AS resolve_rate
FROM used u JOIN trajectories t USING (trajectory_id)
GROUP BY t.model, u.tool
ORDER BY t.model NULLS LAST, steps DESC, u.tool;
