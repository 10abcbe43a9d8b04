-- Which share of steps does each mask rule, and each dataset, leave out of the loss?
SELECT 'rule' AS made_by, mask_rule AS name, corpus, count(DISTINCT trajectory_id) AS trajectories, count(*) AS steps,
  count(*) FILTER (weight = 0) AS masked, round(count(*) FILTER (weight = 0) / count(*), 4) AS share
FROM masks
GROUP BY mask_rule, corpus
UNION ALL
SELECT 'dataset', recipe, corpus, count(DISTINCT trajectory_id), sum(len(steps))::BIGINT,
  sum(n_masked_steps)::BIGINT, round(sum(n_masked_steps) / nullif(sum(len(steps)), 0), 4)
FROM datasets
GROUP BY recipe, corpus
ORDER BY made_by DESC, name, corpus;
