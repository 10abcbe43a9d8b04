-- How many steps come after the first passing check, other than submitting?
-- A passing check is a test command with exit code 0 and no failure in what it printed.
SELECT
  t.model,
  count(*) AS trajectories_with_passing_check,
  sum(a.wasted)::BIGINT AS wasted_steps,
  sum(t.n_steps)::BIGINT AS steps,
  round(sum(a.wasted) / sum(t.n_steps), 4) AS share,
  max(a.wasted) AS most
FROM wasted_steps() a JOIN trajectories t USING (trajectory_id)
GROUP BY t.model
ORDER BY t.model NULLS LAST;
