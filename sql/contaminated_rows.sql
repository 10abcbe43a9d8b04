-- Which rows of which datasets look like tasks of an evaluation suite, and by which detector?
-- Of the last gate run on each dataset version; the line of `looked_at` says how many tasks of the suite were compared.
WITH last AS (
  SELECT * FROM contamination
  QUALIFY recorded_at = max(recorded_at) OVER (PARTITION BY dataset, dataset_version, suite)
)
SELECT dataset, dataset_version, suite, detector, count(*) FILTER (detector <> 'looked_at') AS pairs,
  count(DISTINCT row_id) FILTER (detector <> 'looked_at') AS rows,
  count(DISTINCT task_id) FILTER (detector <> 'looked_at') AS tasks,
  count(waived) AS waived, round(max(score), 4) AS highest
FROM last
GROUP BY dataset, dataset_version, suite, detector
ORDER BY dataset, dataset_version, suite, detector;
