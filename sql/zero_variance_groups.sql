-- In which share of reward groups does everyone get the same reward, so that there is nothing to learn?
-- Groups of one are counted apart; retracted rewards do not count.
WITH live AS (
  SELECT e.corpus, e.reward.rule AS rule, e.reward.group_id AS group_id, e.reward.reward AS reward, e.reward.format_ok AS format_ok
  FROM events e
  WHERE e.kind = 'reward' AND e.reward.group_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM events r
    WHERE r.kind = 'retraction' AND r.trajectory_id = e.trajectory_id
      AND (r.retraction.target_event IS NULL OR r.retraction.target_event = e.event_id)
  )
),
groups AS (
  SELECT corpus, rule, group_id, count(*) AS size, min(reward) = max(reward) AS flat, avg(reward) AS mean_reward,
    count(*) FILTER (format_ok) AS well_formed
  FROM live
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
