-- Where do two critics label the same step differently, and how often?
-- The label a critic gave a step last; each pair of critics once, the one first in the alphabet on the left.
WITH last AS (
  SELECT policy AS critic, trajectory_id, step,
    arg_min(coalesce(label, CASE WHEN parse_status = 'unparseable' THEN parse_status END), (-epoch_us(recorded_at), event_id)) AS label
  FROM verdicts
  WHERE scope = 'step'
  GROUP BY policy, trajectory_id, step
  HAVING label IS NOT NULL
),
per_trajectory AS (
  SELECT a.critic AS critic_a, b.critic AS critic_b, a.label AS label_a, b.label AS label_b, a.trajectory_id, count(*) AS steps
  FROM last a JOIN last b USING (trajectory_id, step)
  WHERE a.critic < b.critic
  GROUP BY ALL
)
SELECT critic_a, critic_b, label_a, label_b, sum(steps)::BIGINT AS steps,
  share(sum(steps), sum(sum(steps)) OVER (PARTITION BY critic_a, critic_b)) AS share, count(*) AS trajectories
FROM per_trajectory
GROUP BY critic_a, critic_b, label_a, label_b
ORDER BY critic_a, critic_b, steps DESC, label_a, label_b;
