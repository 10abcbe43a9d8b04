-- Why does each dataset leave trajectories out, and how many steps go with them?
SELECT
  recipe,
  coalesce(dropped, 'kept') AS outcome,
  count(*) AS trajectories,
  sum(n_steps)::BIGINT AS steps,
  round(count(*) / sum(count(*)) OVER (PARTITION BY recipe), 4) AS share
FROM choices
GROUP BY recipe, outcome
ORDER BY recipe, trajectories DESC, outcome;
