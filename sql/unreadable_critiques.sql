-- How much of what each critic says can be read, and what does saying it cost?
SELECT v.policy AS critic, v.prompt_id, count(*) AS verdicts,
  count(*) FILTER (v.parse_status = 'ok') AS ok,
  count(*) FILTER (v.parse_status = 'repaired') AS repaired,
  count(*) FILTER (v.parse_status = 'unparseable') AS unparseable,
  share(count(*) FILTER (v.parse_status = 'unparseable'), count(v.parse_status)) AS share,
  count(c.event_id) AS model_calls, sum(c.tokens_in)::BIGINT AS tokens_in, sum(c.tokens_out)::BIGINT AS tokens_out,
  round(sum(c.cost_usd), 6) AS cost_usd
FROM verdicts v LEFT JOIN calls c ON c.event_id = v.event_id AND c.kind = 'verdict'
GROUP BY v.policy, v.prompt_id
ORDER BY critic, v.prompt_id NULLS FIRST;
