-- What does each arm of a steered run come to: results, length, feedback by mode, and what the critic costs?
-- Runs that were given arms, other than revisions; feedback counts only where a critic had something to say. A critic's calls
-- count where feedback stands, shown or not: those of a critic that judged afterwards steered nothing.
WITH armed AS (
  SELECT s.run_id, s.arm, s.trajectory_id, t.resolved, t.submitted, t.n_steps
  FROM starts s JOIN trajectories t USING (trajectory_id)
  WHERE s.arm IS NOT NULL AND s.trajectory_id NOT IN (SELECT trajectory_id FROM attempts)
),
told AS (
  SELECT trajectory_id, count(*) FILTER (mode = 'delivered') AS delivered, count(*) FILTER (mode = 'shadow') AS shadow,
    count(*) FILTER (mode = 'placebo') AS placebo, count(*) FILTER (mode = 'suppressed') AS suppressed
  FROM feedbacks GROUP BY trajectory_id
),
spent AS (
  SELECT trajectory_id, sum(tokens_in + tokens_out)::BIGINT AS tokens, sum(cost_usd) AS cost_usd
  FROM calls SEMI JOIN feedbacks USING (trajectory_id, step, policy) WHERE kind = 'verdict' GROUP BY trajectory_id
)
SELECT a.run_id, a.arm, count(*) AS trajectories, rate_of(a.resolved).rate AS rate, rate_of(a.resolved).low AS low,
  rate_of(a.resolved).high AS high, share(count(*) FILTER (a.submitted), count(*)) AS submitted, round(avg(a.n_steps), 2) AS mean_steps,
  coalesce(sum(f.delivered), 0)::BIGINT AS delivered, coalesce(sum(f.shadow), 0)::BIGINT AS shadow,
  coalesce(sum(f.placebo), 0)::BIGINT AS placebo, coalesce(sum(f.suppressed), 0)::BIGINT AS suppressed,
  sum(c.tokens)::BIGINT AS critic_tokens, round(sum(c.cost_usd), 6) AS critic_cost_usd
FROM armed a LEFT JOIN told f USING (trajectory_id) LEFT JOIN spent c USING (trajectory_id)
GROUP BY a.run_id, a.arm
ORDER BY a.run_id, a.arm;
