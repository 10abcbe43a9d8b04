-- How does what student and teacher do together change from one DAgger iteration to the next?
-- Turns by who acted; differs is the share of the student's turns whose label is another command than the one it ran.
WITH mixed AS (
  SELECT s.corpus, s.iteration, s.trajectory_id, t.resolved, t.n_steps
  FROM starts s JOIN trajectories t USING (trajectory_id)
  WHERE s.iteration IS NOT NULL
),
labelled AS (
  SELECT trajectory_id, step, arg_min(command, (coalesce(resample, 0), event_id)) AS command, count(*) AS labels
  FROM labels GROUP BY trajectory_id, step
),
turned AS (
  SELECT m.corpus, m.iteration, m.trajectory_id, u.step, u.chosen, u.beta, l.labels IS NOT NULL AS labelled,
    a.command IS DISTINCT FROM l.command AS differs
  FROM mixed m JOIN turns u USING (trajectory_id)
  LEFT JOIN steps a ON a.trajectory_id = u.trajectory_id AND a.step = u.step
  LEFT JOIN labelled l ON l.trajectory_id = u.trajectory_id AND l.step = u.step
),
sizes AS (SELECT corpus, iteration, count(*) AS trajectories, rate_of(resolved) AS r, avg(n_steps) AS steps FROM mixed GROUP BY ALL)
SELECT u.corpus, u.iteration, any_value(s.trajectories) AS trajectories, any_value(s.r.rate) AS resolve_rate,
  any_value(s.r.low) AS low, any_value(s.r.high) AS high, round(any_value(s.steps), 2) AS mean_steps, count(*) AS turns,
  max(u.beta) AS beta, share(count(*) FILTER (u.chosen = 'teacher'), count(*)) AS taught,
  share(count(*) FILTER (u.labelled), count(*)) AS labelled,
  count(*) FILTER (u.chosen = 'agent' AND u.labelled) AS student_turns,
  share(count(*) FILTER (u.chosen = 'agent' AND u.labelled AND u.differs),
    count(*) FILTER (u.chosen = 'agent' AND u.labelled)) AS differs
FROM turned u JOIN sizes s ON s.corpus = u.corpus AND s.iteration = u.iteration
GROUP BY u.corpus, u.iteration
ORDER BY u.corpus, u.iteration;
