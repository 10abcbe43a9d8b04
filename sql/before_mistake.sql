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
counted AS (
  SELECT l.critic, coalesce(b.ran, '(first step)') AS before, b.ended, count(*) AS steps, count(*) FILTER (l.mistake) AS mistakes
  FROM labels l LEFT JOIN before b ON b.trajectory_id = l.trajectory_id AND b.step = l.step
  GROUP BY l.critic, b.ran, b.ended
)
SELECT *, share(mistakes, steps) AS rate, round(wilson_low(mistakes, steps), 4) AS low, round(wilson_high(mistakes, steps), 4) AS high,
  round(mistakes / steps / nullif(sum(mistakes) OVER of_critic / sum(steps) OVER of_critic, 0), 3) AS lift
FROM counted
WINDOW of_critic AS (PARTITION BY critic)
ORDER BY critic, steps DESC, before, ended NULLS FIRST;
