-- What comes right before a mistake, compared with what comes before any other step?
-- By what the step before ran and whether it failed; lift is the rate of mistakes after it over the critic's rate at all.
WITH labels AS (
  SELECT policy AS critic, trajectory_id, step, bool_or(label = 'mistake') AS mistake
  FROM verdicts
  WHERE scope = 'step' AND label IS NOT NULL
  GROUP BY policy, trajectory_id, step
),
before AS (
  SELECT trajectory_id, step + 1 AS step,
    CASE WHEN command IS NULL THEN '(nothing run)' ELSE coalesce(tool(command), '(other)') END AS ran,
    CASE WHEN exit_code IS NULL THEN 'not known' WHEN exit_code = 0 THEN 'ok' ELSE 'failed' END AS ended
  FROM steps
),
rates AS (SELECT critic, avg(mistake::INT) AS rate FROM labels GROUP BY critic)
SELECT l.critic, coalesce(b.ran, '(first step)') AS before, b.ended, count(*) AS steps, count(*) FILTER (l.mistake) AS mistakes,
  share(count(*) FILTER (l.mistake), count(*)) AS rate,
  round(wilson_low(count(*) FILTER (l.mistake), count(*)), 4) AS low,
  round(wilson_high(count(*) FILTER (l.mistake), count(*)), 4) AS high,
  round(avg(l.mistake::INT) / nullif(any_value(r.rate), 0), 3) AS lift
FROM labels l JOIN rates r ON r.critic IS NOT DISTINCT FROM l.critic
LEFT JOIN before b ON b.trajectory_id = l.trajectory_id AND b.step = l.step
GROUP BY l.critic, b.ran, b.ended
ORDER BY l.critic, steps DESC, before, b.ended NULLS FIRST;
