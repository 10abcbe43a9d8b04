-- Which share of steps does each mask rule, and each dataset, leave out of the loss?
WITH decided AS (
  SELECT mask_rule, corpus, trajectory_id, count(*) AS steps, count(*) FILTER (weight = 0) AS masked
  FROM masks
  GROUP BY mask_rule, corpus, trajectory_id
)
SELECT 'rule' AS made_by, mask_rule AS name, corpus, count(*) AS trajectories, sum(steps)::BIGINT AS steps,
  sum(masked)::BIGINT AS masked, round(sum(masked) / sum(steps), 4) AS share
FROM decided
GROUP BY mask_rule, corpus
UNION ALL
SELECT 'dataset', recipe, corpus, count(DISTINCT trajectory_id), sum(len(steps))::BIGINT,
  sum(n_masked_steps)::BIGINT, round(sum(n_masked_steps) / nullif(sum(len(steps)), 0), 4)
FROM datasets
GROUP BY recipe, corpus
ORDER BY made_by DESC, name, corpus;
