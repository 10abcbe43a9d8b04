-- Which tasks are hardest, and what goes wrong in them most often?
-- Tasks tried at least twice; the category is the one that most attempts show as a mistake in any critic's eyes, ties by name.
WITH found AS (
  SELECT DISTINCT t.task_id, v.trajectory_id, unnest(v.categories) AS category
  FROM verdicts v JOIN trajectories t USING (trajectory_id)
  WHERE v.label = 'mistake'
),
counted AS (SELECT task_id, category, count(*) AS n FROM found WHERE category IS NOT NULL GROUP BY task_id, category),
top AS (
  SELECT task_id, category, n FROM counted
  QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY n DESC, category) = 1
)
SELECT t.task_id, any_value(t.repo) AS repo, count(*) AS attempts, count(*) FILTER (t.resolved) AS resolved,
  share(count(*) FILTER (t.resolved), count(t.resolved)) AS rate,
  round(avg(t.n_steps), 2) AS mean_steps, any_value(top.category) AS most_often, any_value(top.n) AS in_attempts
FROM trajectories t LEFT JOIN top USING (task_id)
WHERE t.task_id IS NOT NULL
GROUP BY t.task_id
HAVING count(*) > 1
ORDER BY rate NULLS LAST, attempts DESC, t.task_id;
