-- Where do two critics label the same step differently, and how often?
-- The label a critic gave a step last; each pair of critics once, the one first in the alphabet on the left.
WITH last AS (
  SELECT policy AS critic, trajectory_id, step, coalesce(label, 'unparseable') AS label
  FROM verdicts
  WHERE scope = 'step' AND (label IS NOT NULL OR parse_status = 'unparseable')
  QUALIFY row_number() OVER (PARTITION BY policy, trajectory_id, step ORDER BY recorded_at DESC, event_id) = 1
)
SELECT a.critic AS critic_a, b.critic AS critic_b, a.label AS label_a, b.label AS label_b, count(*) AS steps,
  share(count(*), sum(count(*)) OVER (PARTITION BY a.critic, b.critic)) AS share,
  count(DISTINCT a.trajectory_id) AS trajectories
FROM last a JOIN last b USING (trajectory_id, step)
WHERE a.critic < b.critic
GROUP BY a.critic, b.critic, a.label, b.label
ORDER BY critic_a, critic_b, steps DESC, label_a, label_b;
