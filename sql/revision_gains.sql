-- What does each round of revision gain and lose, by arm?
-- An attempt against the one it revises: up is wrong to right, down is right to wrong. Of several graders the one with the
-- highest rerun counts, by its first grading.
WITH numbered AS (
  SELECT trajectory_id, subject, resolved, coalesce(rerun, 0) AS run, recorded_at, event_id, coalesce(grader, '') AS who
  FROM outcomes WHERE subject <> 'trajectory'
),
stands AS (
  SELECT trajectory_id, subject, arg_max(who, (run, recorded_at, event_id)) AS who FROM numbered GROUP BY ALL
),
graded AS (
  SELECT DISTINCT ON (trajectory_id, subject) trajectory_id, subject, resolved
  FROM numbered SEMI JOIN stands USING (trajectory_id, subject, who)
  ORDER BY trajectory_id, subject, run, recorded_at DESC, event_id DESC
),
tried AS (
  SELECT a.trajectory_id, a.attempt_id, a.parent_attempt, a.round, coalesce(g.resolved, false) AS resolved
  FROM attempts a LEFT JOIN graded g ON g.trajectory_id = a.trajectory_id AND g.subject = a.attempt_id
)
SELECT s.arm, s.model AS generator, n.round, count(*) AS revisions,
  count(*) FILTER (NOT o.resolved AND n.resolved) AS up, count(*) FILTER (o.resolved AND NOT n.resolved) AS down,
  share(count(*) FILTER (NOT o.resolved AND n.resolved), count(*) FILTER (NOT o.resolved)) AS up_of_wrong,
  share(count(*) FILTER (o.resolved AND NOT n.resolved), count(*) FILTER (o.resolved)) AS down_of_right,
  share(count(*) FILTER (n.resolved), count(*)) AS right_after,
  round(wilson_low(count(*) FILTER (n.resolved), count(*)), 4) AS low,
  round(wilson_high(count(*) FILTER (n.resolved), count(*)), 4) AS high
FROM tried n
JOIN tried o ON o.trajectory_id = n.trajectory_id AND o.attempt_id = n.parent_attempt
JOIN starts s ON s.trajectory_id = n.trajectory_id
GROUP BY s.arm, s.model, n.round
ORDER BY s.arm NULLS LAST, generator NULLS LAST, n.round;
