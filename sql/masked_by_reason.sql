-- Why are steps in the loss or out of it: by mask rule, outcome, reason and the label it rests on, and is what is masked recovered from?
-- The label is that of the verdict the mask answers; recovered means the same critic labels one of the next three steps so.
WITH recovering AS (
  SELECT DISTINCT policy, trajectory_id, step - unnest([1, 2, 3]) AS step FROM verdicts WHERE scope = 'step' AND label = 'recover'
),
said AS (SELECT trajectory_id, step, length(action) AS characters FROM steps), -- here, so that no text is held for a join
per_trajectory AS (
  SELECT m.mask_rule, m.trajectory_id, m.reason, v.label, m.weight, count(*) AS steps, sum(s.characters) AS characters,
    count(g.step) AS recovered
  FROM masks m
  LEFT JOIN verdicts v ON v.event_id = m.caused_by
  LEFT JOIN said s ON s.trajectory_id = m.trajectory_id AND s.step = m.step
  LEFT JOIN recovering g ON g.policy = v.policy AND g.trajectory_id = m.trajectory_id AND g.step = m.step
  GROUP BY m.mask_rule, m.trajectory_id, m.reason, v.label, m.weight
)
SELECT
  p.mask_rule,
  t.resolved,
  p.weight,
  p.reason,
  p.label,
  count(*) AS trajectories,
  sum(p.steps)::BIGINT AS steps,
  round(sum(p.steps) / sum(sum(p.steps)) OVER (PARTITION BY p.mask_rule), 4) AS share_of_steps,
  sum(p.characters)::BIGINT AS characters,
  CASE WHEN p.weight = 0 THEN sum(p.recovered)::BIGINT ELSE 0 END AS recovered_after_mask,
  CASE WHEN p.weight = 0 THEN round(wilson_low(sum(p.recovered), sum(p.steps)), 4) END AS recovered_low,
  CASE WHEN p.weight = 0 THEN round(wilson_high(sum(p.recovered), sum(p.steps)), 4) END AS recovered_high
FROM per_trajectory p JOIN trajectories t USING (trajectory_id)
GROUP BY p.mask_rule, t.resolved, p.weight, p.reason, p.label
ORDER BY p.mask_rule, t.resolved NULLS LAST, p.weight, p.reason, p.label NULLS LAST;
