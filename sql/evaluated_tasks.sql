-- Which evaluated tasks were also learnt from, by the model itself or through its repository?
-- Of the datasets as they stand, also those that models it began from were trained on; a task or repository in both is to
-- be looked at, the gate of `contamination` decides.
WITH RECURSIVE names AS (
  SELECT model_id, unnest(list_distinct([model_id, name, path])) AS name, recorded_at FROM models
),
known AS (SELECT name, arg_max(model_id, recorded_at) AS model_id FROM names GROUP BY name),
line AS (
  SELECT DISTINCT model_id, model_id AS stage FROM evaluations
  UNION
  SELECT l.model_id, k.model_id FROM line l JOIN models m ON m.model_id = l.stage JOIN known k ON k.name = m.base_model
),
trained AS (
  SELECT DISTINCT l.model_id, CASE WHEN starts_with(m.dataset, 'datasets/') THEN substr(m.dataset, 10) ELSE m.dataset END AS recipe
  FROM line l JOIN models m ON m.model_id = l.stage
),
learnt AS (
  SELECT DISTINCT r.model_id, d.task_id, t.repo
  FROM trained r JOIN datasets d USING (recipe) LEFT JOIN trajectories t USING (trajectory_id)
),
asked AS (
  SELECT DISTINCT e.suite, e.model_id, m.dataset, e.task_id, t.repo, e.resolved
  FROM evaluations e LEFT JOIN models m USING (model_id) LEFT JOIN trajectories t USING (trajectory_id)
)
SELECT a.suite, a.model_id, a.dataset, count(DISTINCT a.task_id) AS tasks,
  count(DISTINCT a.task_id) FILTER (a.resolved) AS resolved,
  count(DISTINCT a.task_id) FILTER (EXISTS (SELECT 1 FROM learnt l WHERE l.model_id = a.model_id AND l.task_id = a.task_id)) AS same_task,
  count(DISTINCT a.task_id) FILTER (EXISTS (SELECT 1 FROM learnt l WHERE l.model_id = a.model_id AND l.repo = a.repo)) AS same_repository
FROM asked a
GROUP BY a.suite, a.model_id, a.dataset
ORDER BY a.suite, a.model_id, a.dataset NULLS FIRST;
