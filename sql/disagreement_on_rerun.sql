-- How often do reruns of one grading, or samples of one critique, contradict each other?
-- Only what was run at least twice counts. Pairwise is the chance that two runs of the same thing differ; what cannot be
-- read is an answer of its own.
WITH repeated AS ( -- few things are sampled twice: by a hash they are found without looking at all in full
  SELECT hash(policy, trajectory_id, scope, step, window_from, window_to, caused_by) AS h FROM verdicts GROUP BY h HAVING count(*) > 1
),
samples AS (
  SELECT policy, (trajectory_id, scope, step, window_from, window_to, caused_by)::VARCHAR AS thing,
    parse_status = 'unparseable' AS unread, label, severity, judgment
  FROM verdicts
  WHERE hash(policy, trajectory_id, scope, step, window_from, window_to, caused_by) IN (FROM repeated)
),
runs AS ( -- what is recorded later under the number of a run corrects it
  SELECT coalesce(grader, policy) AS who, (trajectory_id, subject)::VARCHAR AS thing,
    arg_max_null(resolved, (recorded_at, event_id)) AS resolved
  FROM outcomes
  GROUP BY who, thing, coalesce(rerun, 0)
),
graded AS (SELECT * FROM runs WHERE resolved IS NOT NULL),
answers AS (
  SELECT 'outcome' AS what, who, thing, resolved::VARCHAR AS answer FROM graded
  UNION ALL
  SELECT unnest(['label', 'severity', 'judgment']), policy, thing,
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
