-- In which situations does the student do something else than the teacher would?
-- Turns of the student that have a label, by what the teacher would run and what the student ran.
WITH labelled AS (
  SELECT trajectory_id, step, policy AS teacher, arg_min(command, (coalesce(resample, 0), event_id)) AS command
  FROM labels GROUP BY trajectory_id, step, policy
)
SELECT l.teacher, s.policy AS student, coalesce(tool(l.command), '(nothing)') AS teacher_runs,
  coalesce(tool(s.command), '(nothing)') AS student_runs, count(*) AS turns,
  count(*) FILTER (s.command IS NOT DISTINCT FROM l.command) AS same_command,
  share(count(*), sum(count(*)) OVER (PARTITION BY l.teacher, s.policy)) AS share
FROM labelled l JOIN steps s USING (trajectory_id, step)
WHERE s.actor = 'agent'
GROUP BY l.teacher, s.policy, teacher_runs, student_runs
ORDER BY l.teacher, student NULLS LAST, turns DESC, teacher_runs, student_runs;
