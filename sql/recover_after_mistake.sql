-- How often is a mistake followed by a recovery within the next three steps?
WITH labels AS (SELECT DISTINCT policy, trajectory_id, step, label FROM verdicts WHERE scope = 'step' AND label IS NOT NULL),
after AS (
  SELECT m.policy, m.trajectory_id, m.step, bool_or(r.step IS NOT NULL) AS recovered
  FROM labels m
  LEFT JOIN labels r ON r.policy = m.policy AND r.trajectory_id = m.trajectory_id AND r.label = 'recover'
    AND r.step > m.step AND r.step <= m.step + 3
  WHERE m.label = 'mistake'
  GROUP BY m.policy, m.trajectory_id, m.step
)
SELECT
  a.policy AS critic,
  t.resolved,
  count(*) AS mistakes,
  count(*) FILTER (recovered) AS recovered,
  round(count(*) FILTER (recovered) / count(*), 4) AS rate,
  round(wilson_low(count(*) FILTER (recovered), count(*)), 4) AS low,
  round(wilson_high(count(*) FILTER (recovered), count(*)), 4) AS high
FROM after a JOIN trajectories t USING (trajectory_id)
GROUP BY a.policy, t.resolved
ORDER BY a.policy, t.resolved NULLS LAST;
