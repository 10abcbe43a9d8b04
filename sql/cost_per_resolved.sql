-- What does a resolved task cost with each model?
-- Only trajectories whose cost is known count; price policies are listed, as a comparison across several means nothing.
WITH priced AS (
  SELECT trajectory_id, list(DISTINCT price_policy ORDER BY price_policy) AS policies
  FROM calls
  WHERE kind = 'action' AND price_policy IS NOT NULL
  GROUP BY trajectory_id
)
SELECT
  t.model,
  count(*) AS trajectories,
  count(t.cost_usd) AS with_cost,
  count(*) FILTER (t.resolved AND t.cost_usd IS NOT NULL) AS resolved,
  round(sum(t.cost_usd), 6) AS cost_usd,
  round(sum(t.cost_usd) / nullif(count(*) FILTER (t.resolved AND t.cost_usd IS NOT NULL), 0), 6) AS cost_per_resolved,
  list_sort(list_distinct(flatten(list(coalesce(p.policies, []))))) AS price_policies
FROM trajectories t LEFT JOIN priced p USING (trajectory_id)
GROUP BY t.model
ORDER BY t.model NULLS LAST;
