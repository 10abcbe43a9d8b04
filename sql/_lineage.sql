-- What was made from what, one step at a time; a dataset is written TABLE@VERSION, its rows TABLE@VERSION#ROW_ID.
CREATE VIEW lineage_edges AS
WITH trained AS (
  SELECT *, CASE WHEN starts_with(dataset, 'datasets/') THEN dataset ELSE 'datasets/' || dataset END AS source FROM models
),
names AS (
  SELECT model_id, unnest(list_distinct([model_id, name, path])) AS name, recorded_at FROM models
),
known AS (SELECT name, arg_max(model_id, recorded_at) AS model_id FROM names GROUP BY name),
acted AS (
  SELECT DISTINCT trajectory_id, policy FROM events
  WHERE kind IN ('action', 'attempt', 'label', 'verdict', 'feedback') AND policy IS NOT NULL
),
parents AS (SELECT trajectory_id, start.parent_trajectory AS parent FROM events WHERE kind = 'start'),
tasks_of AS (SELECT DISTINCT task.task_id AS task_id, task.repo AS repo FROM events WHERE kind = 'task')
SELECT 'model' AS kind, model_id AS id, 'trained on' AS relation, 'dataset' AS from_kind, source || '@' || dataset_version AS from_id
FROM trained WHERE dataset IS NOT NULL AND dataset_version IS NOT NULL
UNION ALL
SELECT 'model', m.model_id, 'started from', CASE WHEN k.model_id IS NULL THEN 'base_model' ELSE 'model' END,
  coalesce(k.model_id, m.base_model)
FROM models m LEFT JOIN known k ON k.name = m.base_model AND k.model_id <> m.model_id
UNION ALL
SELECT 'dataset', dataset, 'holds', 'row', dataset || '#' || row_id FROM _dataset_rows
UNION ALL
SELECT 'row', dataset || '#' || row_id, 'drawn from', 'trajectory', trajectory_id FROM _dataset_rows
UNION ALL
SELECT 'row', dataset || '#' || row_id, 'learns', 'event', unnest(event_ids) FROM _dataset_rows
UNION ALL
SELECT 'row', dataset || '#' || row_id, 'weighted by', 'event', unnest(mask_event_ids) FROM _dataset_rows
UNION ALL
SELECT 'event', event_id, 'part of', 'trajectory', trajectory_id FROM events
UNION ALL
SELECT 'event', event_id, 'answers', 'event', caused_by FROM events WHERE caused_by IS NOT NULL
UNION ALL
SELECT 'event', e.event_id, 'rests on', 'event', unnest(e.mask.evidence) FROM events e WHERE e.kind = 'mask'
UNION ALL
SELECT 'trajectory', unnest(trajectory_ids), 'imported from', 'source', path FROM sources
UNION ALL
SELECT 'trajectory', a.trajectory_id, 'spoken by', 'model', k.model_id FROM acted a JOIN known k ON k.name = a.policy
UNION ALL
SELECT 'trajectory', trajectory_id, 'continues', 'trajectory', parent FROM parents WHERE parent IS NOT NULL
UNION ALL
SELECT 'trajectory', trajectory_id, 'attempts', 'task', task_id FROM trajectories WHERE task_id IS NOT NULL
UNION ALL
SELECT 'task', task_id, 'from', 'repo', repo FROM tasks_of WHERE task_id IS NOT NULL AND repo IS NOT NULL
UNION ALL
SELECT DISTINCT 'evaluation', evaluation_id, 'evaluates', 'model', model_id FROM evaluations
UNION ALL
SELECT DISTINCT 'evaluation', evaluation_id, 'counts', 'trajectory', trajectory_id FROM evaluations
UNION ALL
SELECT 'comparison', comparison_id, 'compares', 'evaluation',
  unnest(list_distinct(list_concat([evaluation_a, evaluation_b], evaluations_a, evaluations_b))) FROM comparisons;

CREATE VIEW lineage_nodes AS
SELECT kind, id FROM lineage_edges UNION SELECT from_kind, from_id FROM lineage_edges;
