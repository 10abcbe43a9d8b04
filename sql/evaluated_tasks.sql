-- Which evaluated tasks were also learnt from, by the model itself or through its repository?
-- Of the datasets as they stand; a task or repository in both is to be looked at, the gate of `contamination` decides.
WITH learnt AS (
  SELECT DISTINCT 'datasets/' || d.recipe AS dataset, d.task_id, t.repo FROM datasets d LEFT JOIN trajectories t USING (trajectory_id)
),
asked AS (
  SELECT DISTINCT e.suite, e.model_id, m.dataset, e.task_id, t.repo, e.resolved
  FROM evaluations e LEFT JOIN models m USING (model_id) LEFT JOIN trajectories t USING (trajectory_id)
)
SELECT a.suite, a.model_id, a.dataset, count(DISTINCT a.task_id) AS tasks,
  count(DISTINCT a.task_id) FILTER (a.resolved) AS resolved,
  count(DISTINCT a.task_id) FILTER (EXISTS (SELECT 1 FROM learnt l WHERE l.dataset = a.dataset AND l.task_id = a.task_id)) AS same_task,
  count(DISTINCT a.task_id) FILTER (EXISTS (SELECT 1 FROM learnt l WHERE l.dataset = a.dataset AND l.repo = a.repo)) AS same_repository
FROM asked a
GROUP BY a.suite, a.model_id, a.dataset
ORDER BY a.suite, a.model_id, a.dataset NULLS FIRST;
