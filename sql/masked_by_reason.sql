-- Why are steps in the loss or out of it: by mask rule, outcome, reason and the label it rests on, and is what is masked recovered from?
-- The label is that of the verdict the mask answers; recovered means the same critic labels one of the next three steps so.
WITH decided AS (
  SELECT m.mask_rule, t.resolved, m.reason, v.label, m.weight, m.trajectory_id, m.step, length(s.action) AS characters,
    EXISTS (
      SELECT 1 FROM verdicts r
      WHERE r.policy = v.policy AND r.scope = 'step' AND r.label = 'recover' AND r.trajectory_id = m.trajectory_id
        AND r.step > m.step AND r.step <= m.step + 3
    ) AS recovered
  FROM masks m JOIN trajectories t USING (trajectory_id)
  LEFT JOIN verdicts v ON v.event_id = m.caused_by
  LEFT JOIN steps s ON s.trajectory_id = m.trajectory_id AND s.step = m.step
)
SELECT
  mask_rule,
  resolved,
  weight,
  reason,
  label,
  count(DISTINCT trajectory_id) AS trajectories,
  count(*) AS steps,
  round(count(*) / sum(count(*)) OVER (PARTITION BY mask_rule), 4) AS share_of_steps,
  sum(characters)::BIGINT AS characters,
  count(*) FILTER (weight = 0 AND recovered) AS recovered_after_mask,
  CASE WHEN weight = 0 THEN round(wilson_low(count(*) FILTER (recovered), count(*)), 4) END AS recovered_low,
  CASE WHEN weight = 0 THEN round(wilson_high(count(*) FILTER (recovered), count(*)), 4) END AS recovered_high
FROM decided
GROUP BY mask_rule, resolved, weight, reason, label
ORDER BY mask_rule, resolved NULLS LAST, weight, reason, label NULLS LAST;
