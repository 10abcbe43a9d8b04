-- How faithfully was each format read: records taken, and values that have a column or only a place in `extra`?
-- Values as counted at import; a value of the source may give several columns, so columns can exceed values.
WITH told AS (SELECT *, fidelity::JSON AS f FROM sources),
counted AS (
  SELECT format, corpus, n_bytes, n_trajectories, n_steps, n_rejected, fidelity, coalesce(n_records, 0) AS records,
    list_sum(json_extract(f, '$.source.*')::BIGINT[]) AS source_values,
    list_sum(json_extract(f, '$.columns.*')::BIGINT[]) AS in_columns,
    list_sum(json_extract(f, '$.extra.*')::BIGINT[]) AS in_extra
  FROM told
)
SELECT format, corpus, count(*) AS files, sum(n_bytes)::BIGINT AS bytes, sum(records)::BIGINT AS records,
  sum(n_trajectories)::BIGINT AS trajectories, sum(n_steps)::BIGINT AS steps, sum(n_rejected)::BIGINT AS rejected,
  count(fidelity) AS files_counted, sum(source_values)::BIGINT AS source_values, sum(in_columns)::BIGINT AS in_columns,
  sum(in_extra)::BIGINT AS in_extra
FROM counted
GROUP BY format, corpus
ORDER BY format, corpus;
