-- What input could not be taken, and why?
SELECT reason, format, count(*) AS rejects, count(DISTINCT path) AS files, sum(octet_length(raw))::BIGINT AS bytes_kept,
  min(detail) AS for_example
FROM rejects
GROUP BY reason, format
ORDER BY rejects DESC, reason, format NULLS FIRST;
