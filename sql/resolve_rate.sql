-- How often does each model resolve its tasks in each corpus, and how sure is that?
-- Trajectories that were never graded are counted apart; the interval is Wilson's at 95%.
SELECT
  model,
  corpus,
  count(*) AS trajectories,
  count(resolved) AS graded,
  count(*) FILTER (resolved) AS resolved,
  round(count(*) FILTER (resolved) / nullif(count(resolved), 0), 4) AS rate,
  round(wilson_low(count(*) FILTER (resolved), count(resolved)), 4) AS low,
  round(wilson_high(count(*) FILTER (resolved), count(resolved)), 4) AS high
FROM trajectories
GROUP BY model, corpus
ORDER BY model NULLS LAST, corpus;
