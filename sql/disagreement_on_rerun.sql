-- How often do reruns of one grading, or samples of one critique, contradict each other?
-- Only what was run at least twice counts. Pairwise is the chance that two runs of the same thing differ; what cannot be
-- read is an answer of its own.
WITH sampled AS (
  SELECT row_number() OVER () AS thing, policy, trajectory_id, scope, step, window_from, window_to, caused_by
  FROM verdicts GROUP BY ALL HAVING count(*) > 1
),
samples AS (
  SELECT s.thing, v.policy, v.parse_status = 'unparseable' AS unread, v.label, v.severity, v.judgment
  FROM verdicts v JOIN sampled s ON v.policy IS NOT DISTINCT FROM s.policy AND v.trajectory_id = s.trajectory_id
    AND v.scope IS NOT DISTINCT FROM s.scope AND v.step IS NOT DISTINCT FROM s.step
    AND v.window_from IS NOT DISTINCT FROM s.window_from AND v.window_to IS NOT DISTINCT FROM s.window_to
    AND v.caused_by IS NOT DISTINCT FROM s.caused_by
),
graded AS (
  SELECT coalesce(grader, policy) AS who, (trajectory_id, subject)::VARCHAR AS thing, resolved FROM outcomes WHERE resolved IS NOT NULL
),
answers AS (
  SELECT 'outcome' AS what, who, thing, resolved::VARCHAR AS answer FROM graded
  UNION ALL
  SELECT unnest(['label', 'severity', 'judgment']), policy, thing::VARCHAR,
    CASE WHEN unread THEN 'unparseable' ELSE unnest([label, severity::VARCHAR, judgment::VARCHAR]) END
  FROM samples
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
