-- Where do two critics label the same step differently, and how often?
-- The label a critic gave a step last, of several in one commit the graver; each pair once, the one first in the alphabet on the left.
WITH given AS (
  SELECT policy, hash(trajectory_id, step) AS place, -- numbers are grouped and joined sooner than names
    CASE WHEN scope = 'step' -- as a filter it would have every text of a verdict read, replies too
    THEN 8 * epoch_us(recorded_at) + list_position(labels(), coalesce(label, CASE WHEN parse_status = 'unparseable' THEN parse_status END))
    END AS told
  FROM verdicts
  WHERE policy IS NOT NULL
),
last AS (
  SELECT hash(policy) AS critic, place, (max(told) % 8)::UTINYINT AS label
  FROM given
  WHERE told IS NOT NULL
  GROUP BY critic, place
),
critics AS (
  SELECT policy, hash(policy) AS critic FROM (SELECT DISTINCT policy FROM given)
),
paired AS (
  SELECT a.critic AS critic_a, b.critic AS critic_b, a.label AS label_a, b.label AS label_b, count(*) AS steps
  FROM last a JOIN last b USING (place)
  WHERE a.critic < b.critic
  GROUP BY ALL
),
named AS (
  SELECT least(a.policy, b.policy) AS critic_a, greatest(a.policy, b.policy) AS critic_b,
    labels()[if(a.policy < b.policy, label_a, label_b)] AS label_a,
    labels()[if(a.policy < b.policy, label_b, label_a)] AS label_b, steps
  FROM paired JOIN critics a ON a.critic = critic_a JOIN critics b ON b.critic = critic_b
)
SELECT *, share(steps, sum(steps) OVER (PARTITION BY critic_a, critic_b)) AS share
FROM named
ORDER BY critic_a, critic_b, steps DESC, label_a, label_b;
