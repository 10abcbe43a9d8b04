-- What does each mask rule keep of the trajectories, their steps and their text, by outcome?
-- Of the corpora a rule was run on. Text is counted in characters of what the agent said; a trajectory without masks could
-- not be decided.
WITH rules AS (SELECT DISTINCT mask_rule, corpus FROM masks),
said AS (SELECT trajectory_id, step, length(action) AS characters FROM steps), -- here, so that no text is held for a join
per_trajectory AS (
  SELECT r.mask_rule, t.trajectory_id, t.resolved, count(m.weight) AS decided,
    count(*) FILTER (m.weight > 0) AS kept_steps,
    sum(s.characters) FILTER (m.weight IS NOT NULL) AS characters,
    sum(s.characters) FILTER (m.weight > 0) AS kept_characters
  FROM rules r JOIN trajectories t USING (corpus)
  LEFT JOIN said s USING (trajectory_id)
  LEFT JOIN masks m ON m.mask_rule = r.mask_rule AND m.trajectory_id = s.trajectory_id AND m.step = s.step
  GROUP BY r.mask_rule, t.trajectory_id, t.resolved
)
SELECT
  mask_rule,
  resolved,
  count(*) AS trajectories,
  count(*) FILTER (decided = 0) AS undecided,
  count(*) FILTER (decided > 0 AND kept_steps = 0) AS fully_masked,
  count(*) FILTER (kept_steps > 0) AS kept,
  round(count(*) FILTER (kept_steps > 0) / count(*), 4) AS kept_share,
  round(wilson_low(count(*) FILTER (kept_steps > 0), count(*)), 4) AS low,
  round(wilson_high(count(*) FILTER (kept_steps > 0), count(*)), 4) AS high,
  sum(decided)::BIGINT AS steps,
  sum(kept_steps)::BIGINT AS kept_steps,
  round(sum(kept_steps) / nullif(sum(decided), 0), 4) AS kept_steps_share,
  round(coalesce(sum(kept_characters), 0) / nullif(sum(characters), 0), 4) AS kept_text_share
FROM per_trajectory
GROUP BY mask_rule, resolved
ORDER BY mask_rule, resolved NULLS LAST;
