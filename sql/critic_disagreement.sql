-- Where do two critics label the same step differently, and how often?
-- The label a critic gave a step last, of several in one commit the graver; each pair once, the one first in the alphabet on the left.
WITH labelled AS (
  SELECT policy AS critic, hash(trajectory_id) AS trajectory, step, recorded_at, -- a hash is joined and grouped sooner than a name
    coalesce(label, CASE WHEN parse_status = 'unparseable' THEN parse_status END) AS label
  FROM verdicts
  WHERE scope = 'step'
),
last AS (
  SELECT critic, trajectory, step,
    arg_max(label, 8 * epoch_us(recorded_at) + list_position(['good', 'recover', 'unnecessary', 'mistake', 'unparseable'], label)) AS label
  FROM labelled
  GROUP BY critic, trajectory, step
  HAVING label IS NOT NULL
),
per_trajectory AS (
  SELECT a.critic AS critic_a, b.critic AS critic_b, a.label AS label_a, b.label AS label_b, trajectory, count(*) AS steps
  FROM last a JOIN last b USING (trajectory, step)
  WHERE a.critic < b.critic
  GROUP BY ALL
)
SELECT critic_a, critic_b, label_a, label_b, sum(steps)::BIGINT AS steps,
  share(sum(steps), sum(sum(steps)) OVER (PARTITION BY critic_a, critic_b)) AS share, count(*) AS trajectories
FROM per_trajectory
GROUP BY critic_a, critic_b, label_a, label_b
ORDER BY critic_a, critic_b, steps DESC, label_a, label_b;
