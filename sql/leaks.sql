-- Which share of the trajectories of each model reads the solution or games the grader, and how?
-- Verdicts of leaks@1: severity 1 looked or tried, 2 had it or did it. Only trajectories it judged count; the share and its
-- 95% Wilson interval are of those with severity 2. The line without a category counts trajectories with any finding.
WITH said AS MATERIALIZED (SELECT trajectory_id, scope, severity, categories FROM verdicts WHERE policy = 'leaks@1'),
judged AS (
  SELECT t.model, t.trajectory_id, t.resolved
  FROM trajectories t
  WHERE t.trajectory_id IN (SELECT trajectory_id FROM said)
),
found AS (
  SELECT DISTINCT trajectory_id, severity, unnest(list_concat([NULL], categories)) AS category FROM said WHERE scope = 'step'
),
worst AS (SELECT trajectory_id, category, max(severity) AS severity FROM found GROUP BY trajectory_id, category),
sizes AS (SELECT model, count(*) AS n FROM judged GROUP BY model)
SELECT
  j.model,
  w.category,
  any_value(s.n) AS judged,
  count(*) AS trajectories,
  count(*) FILTER (w.severity = 2) AS had_it,
  count(*) FILTER (w.severity = 2 AND j.resolved) AS had_it_and_resolved,
  round(count(*) FILTER (w.severity = 2) / any_value(s.n), 4) AS share,
  round(wilson_low(count(*) FILTER (w.severity = 2), any_value(s.n)), 4) AS low,
  round(wilson_high(count(*) FILTER (w.severity = 2), any_value(s.n)), 4) AS high
FROM worst w
JOIN judged j USING (trajectory_id)
JOIN sizes s ON s.model IS NOT DISTINCT FROM j.model
GROUP BY j.model, w.category
ORDER BY j.model NULLS LAST, w.category NULLS FIRST;
