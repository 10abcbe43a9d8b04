-- How often can nothing be executed from what a model says?
SELECT
  t.model,
  count(DISTINCT s.trajectory_id) AS trajectories,
  count(*) AS steps,
  count(s.parse_error) AS format_errors,
  round(count(s.parse_error) / count(*), 4) AS rate,
  round(wilson_low(count(s.parse_error), count(*)), 4) AS low,
  round(wilson_high(count(s.parse_error), count(*)), 4) AS high,
  count(DISTINCT s.trajectory_id) FILTER (s.parse_error IS NOT NULL) AS trajectories_with_one
FROM steps s JOIN trajectories t USING (trajectory_id)
GROUP BY t.model
ORDER BY t.model NULLS LAST;
