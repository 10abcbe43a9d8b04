-- Which tools does each model use, how often do they fail, and do trajectories that use them succeed?
-- A tool is the first program of a command; failed is an exit code other than 0, of the steps where one is known.
SELECT t.model, coalesce(tool(s.command), '(nothing)') AS tool, count(*) AS steps,
  share(count(*), sum(count(*)) OVER (PARTITION BY t.model)) AS share,
  count(DISTINCT s.trajectory_id) AS trajectories,
  share(count(*) FILTER (s.exit_code <> 0), count(s.exit_code)) AS failed,
  share(count(DISTINCT s.trajectory_id) FILTER (t.resolved), count(DISTINCT s.trajectory_id) FILTER (t.resolved IS NOT NULL)) AS resolve_rate
FROM steps s JOIN trajectories t USING (trajectory_id)
GROUP BY t.model, tool
ORDER BY t.model NULLS LAST, steps DESC, tool;
