-- After a mistake, how many steps pass until the same critic sees a recovery, and does recovering help?
-- By the distance of the first recovery after the trajectory's first mistake; null where there is none.
WITH firsts AS (
  SELECT policy AS critic, trajectory_id, min(step) AS mistake
  FROM verdicts WHERE scope = 'step' AND label = 'mistake' GROUP BY policy, trajectory_id
),
after AS (
  SELECT f.critic, f.trajectory_id, min(v.step) - f.mistake AS distance
  FROM firsts f LEFT JOIN verdicts v ON v.policy = f.critic AND v.trajectory_id = f.trajectory_id
    AND v.scope = 'step' AND v.label = 'recover' AND v.step > f.mistake
  GROUP BY f.critic, f.trajectory_id, f.mistake
)
SELECT a.critic, a.distance, count(*) AS trajectories, rate_of(t.resolved).k AS resolved, rate_of(t.resolved).rate AS rate,
  rate_of(t.resolved).low AS low, rate_of(t.resolved).high AS high
FROM after a JOIN trajectories t USING (trajectory_id)
GROUP BY a.critic, a.distance
ORDER BY a.critic, a.distance NULLS LAST;
