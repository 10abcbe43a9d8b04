-- How do runs end, and how many of those that end so are resolved?
SELECT model, exit_status, count(*) AS trajectories, share(count(*), sum(count(*)) OVER (PARTITION BY model)) AS share,
  count(*) FILTER (submitted) AS submitted, rate_of(resolved).rate AS resolve_rate, rate_of(resolved).low AS low,
  rate_of(resolved).high AS high, median(n_steps) AS median_steps, round(avg(n_format_errors), 3) AS mean_format_errors
FROM trajectories
GROUP BY model, exit_status
ORDER BY model NULLS LAST, trajectories DESC, exit_status NULLS LAST;
