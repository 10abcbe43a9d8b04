-- Where do two critics label the same step differently, and how often?
-- The label a critic gave a step last; each pair of critics once, the one first in the alphabet on the left.
WITH last AS (
  SELECT policy AS critic, trajectory_id, step,
    arg_min(coalesce(label, CASE WHEN parse_status = 'unparseable' THEN parse_status END), (-epoch_us(recorded_at), event_id)) AS label
  FROM verdicts
  WHERE scope = 'step'
  GROUP BY policy, trajectory_id, step
  HAVING label IS NOT NULL
)
SELECT a.critic AS critic_a, b.critic AS critic_b, a.label AS label_a, b.label AS label_b, count(*) AS steps,
  share(count(*), sum(count(*)) OVER (PARTITION BY a.critic, b.critic)) AS share,
  count(DISTINCT a.trajectory_id) AS trajectories
FROM last a JOIN last b USING (trajectory_id, step)
WHERE a.critic < b.critic
GROUP BY a.critic, b.critic, a.label, b.label
ORDER BY critic_a, critic_b, steps DESC, label_a, label_b;
