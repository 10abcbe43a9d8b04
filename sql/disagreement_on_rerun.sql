-- How often do reruns of one grading, or samples of one critique, contradict each other?
-- Only what was run at least twice counts. Pairwise is the chance that two runs of the same thing differ; what cannot be
-- read is an answer of its own.
WITH answers AS (
  SELECT 'outcome' AS what, coalesce(grader, policy) AS who, (trajectory_id, subject)::VARCHAR AS thing, resolved::VARCHAR AS answer
  FROM outcomes
  WHERE resolved IS NOT NULL
  UNION ALL
  SELECT kind, policy, (trajectory_id, scope, step, window_from, window_to, caused_by)::VARCHAR,
    CASE WHEN parse_status = 'unparseable' THEN parse_status ELSE answer END
  FROM (
    SELECT 'label' AS kind, label AS answer, * EXCLUDE (label) FROM verdicts
    UNION ALL SELECT 'severity', severity::VARCHAR, * EXCLUDE (label) FROM verdicts
    UNION ALL SELECT 'judgment', judgment::VARCHAR, * EXCLUDE (label) FROM verdicts
  )
),
counted AS (SELECT what, who, thing, answer, count(*) AS n FROM answers GROUP BY ALL),
things AS (
  SELECT what, who, thing, sum(n) AS runs, count(*) AS answers, bool_or(answer IS NOT NULL AND answer <> 'unparseable') AS asked,
    1 - sum(n * (n - 1)) / nullif(sum(n) * (sum(n) - 1), 0) AS pairwise
  FROM counted
  GROUP BY what, who, thing
)
SELECT
  what,
  who,
  count(*) AS things,
  sum(runs)::BIGINT AS runs,
  count(*) FILTER (answers > 1) AS disagreeing,
  round(count(*) FILTER (answers > 1) / count(*), 4) AS share,
  round(wilson_low(count(*) FILTER (answers > 1), count(*)), 4) AS low,
  round(wilson_high(count(*) FILTER (answers > 1), count(*)), 4) AS high,
  round(avg(pairwise), 4) AS pairwise
FROM things
WHERE runs > 1 AND asked
GROUP BY what, who
ORDER BY what, who;
