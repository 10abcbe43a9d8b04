-- Who spends the tokens and the money: agents, teachers or critics?
-- Cost as the source or the price list states it, where it is stated; cached is the share of prompt tokens read from a cache.
SELECT corpus, actor, policy, count(*) AS calls, count(DISTINCT trajectory_id) AS trajectories,
  sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
  share(sum(cache_read), sum(tokens_in) FILTER (cache_read IS NOT NULL)) AS cached,
  count(cost_usd) AS with_cost, round(sum(cost_usd), 6) AS cost_usd
FROM calls
GROUP BY corpus, actor, policy
ORDER BY corpus, actor, policy NULLS LAST;
