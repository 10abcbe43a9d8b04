-- In which repositories, or task families, do agents fail, and with which kinds of mistake?
-- A trajectory counts once per category that any critic gives a step labelled a mistake; `(none)` counts those without.
WITH found AS (
  SELECT DISTINCT trajectory_id, unnest(categories) AS category FROM verdicts WHERE label = 'mistake'
),
told AS (
  SELECT t.repo, t.resolved, t.trajectory_id, coalesce(f.category, '(none)') AS category
  FROM trajectories t LEFT JOIN found f USING (trajectory_id)
),
sizes AS (SELECT repo, count(*) AS n FROM trajectories GROUP BY repo)
SELECT w.repo, w.category, count(*) AS trajectories, any_value(s.n) AS of_trajectories, share(count(*), any_value(s.n)) AS share,
  count(*) FILTER (w.resolved) AS resolved, share(count(*) FILTER (w.resolved), count(w.resolved)) AS rate
FROM told w JOIN sizes s ON s.repo IS NOT DISTINCT FROM w.repo
GROUP BY w.repo, w.category
ORDER BY w.repo NULLS LAST, trajectories DESC, w.category;
