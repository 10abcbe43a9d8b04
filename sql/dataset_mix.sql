-- What is each dataset made of: which corpora and models, how much of it is resolved, and how many tokens are trained?
SELECT d.recipe, d.method, d.split, d.corpus, t.model, count(*) AS rows, count(DISTINCT d.trajectory_id) AS trajectories,
  share(count(*) FILTER (t.resolved), count(t.resolved)) AS resolved_share,
  sum(d.n_tokens)::BIGINT AS tokens, sum(d.n_trained_tokens)::BIGINT AS trained_tokens,
  share(sum(d.n_trained_tokens), sum(d.n_tokens)) AS trained_share,
  share(sum(count(*)) OVER (PARTITION BY d.recipe, d.corpus, t.model), sum(count(*)) OVER (PARTITION BY d.recipe)) AS share_of_rows
FROM datasets d LEFT JOIN trajectories t USING (trajectory_id)
GROUP BY d.recipe, d.method, d.split, d.corpus, t.model
ORDER BY d.recipe, d.split DESC, d.corpus, t.model NULLS LAST;
