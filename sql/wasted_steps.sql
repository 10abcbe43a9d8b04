-- How many steps come after the first passing check, other than submitting?
-- A passing check is a test command with exit code 0 and no failure in what it printed.
WITH checked AS (
  SELECT trajectory_id, min(step) AS passed_at
  FROM steps
  WHERE exit_code = 0
    AND regexp_matches(command, '^check\b|(^|[;&|]\s*)(python[0-9.]* -m )?(pytest|unittest|tox)\b')
    AND NOT regexp_matches(coalesce(observation, ''), '(?m)^FAIL|[1-9][0-9]* failed')
  GROUP BY trajectory_id
),
after AS (
  SELECT c.trajectory_id, c.passed_at, count(s.step) AS wasted
  FROM checked c
  LEFT JOIN steps s ON s.trajectory_id = c.trajectory_id AND s.step > c.passed_at
    AND NOT regexp_matches(coalesce(s.command, ''), '^submit\b|SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT')
  GROUP BY c.trajectory_id, c.passed_at
)
SELECT
  t.model,
  count(*) AS trajectories_with_passing_check,
  sum(a.wasted)::BIGINT AS wasted_steps,
  sum(t.n_steps)::BIGINT AS steps,
  round(sum(a.wasted) / sum(t.n_steps), 4) AS share,
  max(a.wasted) AS most
FROM after a JOIN trajectories t USING (trajectory_id)
GROUP BY t.model
ORDER BY t.model NULLS LAST;
