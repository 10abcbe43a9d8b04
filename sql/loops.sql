-- Which trajectories run the same command three times in a row or more?
SELECT t.model, r.trajectory_id, r.first_step, r.times, r.command, t.resolved
FROM loops(3) r JOIN trajectories t USING (trajectory_id)
ORDER BY r.times DESC, r.trajectory_id, r.first_step;
