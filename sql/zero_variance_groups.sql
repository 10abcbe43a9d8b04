-- In which share of reward groups does everyone get the same reward, so that there is nothing to learn?
-- Groups of one are counted apart; retracted rewards do not count.
WITH groups AS (
  SELECT corpus, rule, group_id, count(*) AS size, min(reward) = max(reward) AS flat, avg(reward) AS mean_reward,
    count(*) FILTER (format_ok) AS well_formed
  FROM rewards
  WHERE group_id IS NOT NULL
  GROUP BY corpus, rule, group_id
)
SELECT
  corpus,
  rule,
  count(*) FILTER (size > 1) AS groups,
  count(*) FILTER (size = 1) AS groups_of_one,
  sum(size)::BIGINT AS rewards,
  count(*) FILTER (size > 1 AND flat) AS zero_variance,
  round(count(*) FILTER (size > 1 AND flat) / nullif(count(*) FILTER (size > 1), 0), 4) AS share,
  round(wilson_low(count(*) FILTER (size > 1 AND flat), count(*) FILTER (size > 1)), 4) AS low,
  round(wilson_high(count(*) FILTER (size > 1 AND flat), count(*) FILTER (size > 1)), 4) AS high,
  round(sum(size * mean_reward) / sum(size), 4) AS mean_reward,
  round(sum(well_formed) / sum(size), 4) AS well_formed
FROM groups
GROUP BY corpus, rule
ORDER BY corpus, rule;
