-- How long do steps take: the model's call and the command's execution?
-- Only what is recorded counts; quantiles are in seconds.
WITH called AS (
  SELECT trajectory_id, step, sum(latency_s) AS latency_s FROM calls WHERE kind = 'action' GROUP BY trajectory_id, step
)
SELECT t.model, count(*) AS steps, count(c.latency_s) AS with_latency, count(s.duration_s) AS with_duration,
  round(quantile_cont(c.latency_s, 0.5), 3) AS call_median, round(quantile_cont(c.latency_s, 0.95), 3) AS call_p95,
  round(quantile_cont(s.duration_s, 0.5), 3) AS command_median, round(quantile_cont(s.duration_s, 0.95), 3) AS command_p95,
  round(sum(c.latency_s), 1) AS call_total, round(sum(s.duration_s), 1) AS command_total
FROM steps s JOIN trajectories t USING (trajectory_id) LEFT JOIN called c ON c.trajectory_id = s.trajectory_id AND c.step = s.step
GROUP BY t.model
ORDER BY t.model NULLS LAST;
