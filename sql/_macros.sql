-- Macros the questions share. wilson_low(k, n) and wilson_high(k, n): the 95% Wilson interval of k successes in n trials; null when n is 0.
CREATE MACRO wilson_low(k, n) AS
  CASE WHEN n > 0 THEN greatest(0.0, (k + 1.9207294 - 1.959964 * sqrt(k * (n - k) / n + 0.9603647)) / (n + 3.8414588)) END;
CREATE MACRO wilson_high(k, n) AS
  CASE WHEN n > 0 THEN least(1.0, (k + 1.9207294 + 1.959964 * sqrt(k * (n - k) / n + 0.9603647)) / (n + 3.8414588)) END;
-- share(k, n): k of n, to four places; null when n is 0.
CREATE MACRO share(k, n) AS round(k / nullif(n, 0), 4);
-- third_number(step, n_steps): in which third of a trajectory a step stands, as 0, 1 or 2.
CREATE MACRO third_number(step, n_steps) AS coalesce(least(3 * step // nullif(n_steps, 0), 2), 2)::UTINYINT;
-- third(step, n_steps): the same by name.
CREATE MACRO third(step, n_steps) AS ['1 first third', '2 middle', '3 last third'][third_number(step, n_steps) + 1];
-- tool(command): what a command runs first: its first word without assignments, a leading cd and folders.
CREATE MACRO tool(command) AS CASE
  WHEN regexp_extract(command, '^[\w.+\[-]+(?: |$)') NOT IN ('', 'cd ', 'sudo ', 'time ', 'env ') -- nothing to take off
  THEN rtrim(regexp_extract(command, '^[\w.+\[-]+(?: |$)'))
  ELSE nullif(regexp_extract(
    regexp_replace(command, '^\s*(cd\s+[^;&|]*(&&|;)\s*)?((\w+=\S*|sudo|time|env)\s+)*', ''), '^(?:\S*/)?([\w.+\[-]+)', 1), '') END;
-- submits(command): whether a command hands the work in.
CREATE MACRO submits(command) AS
  regexp_matches(coalesce(command, ''), '^submit\b|SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT');
-- runs_tests(command): whether a command runs tests.
CREATE MACRO runs_tests(command) AS
  regexp_matches(coalesce(command, ''), '^check\b|(^|[;&|]\s*)(python[0-9.]* -m )?(pytest|unittest|tox)\b');
-- rate_of(flag): an aggregate, how many flags are known (n) and true (k), their share, and its interval, as a struct; write rate_of(resolved).
CREATE MACRO rate_of(flag) AS struct_pack(
  n := count(flag), k := count(*) FILTER (flag), rate := share(count(*) FILTER (flag), count(flag)),
  low := round(wilson_low(count(*) FILTER (flag), count(flag)), 4),
  high := round(wilson_high(count(*) FILTER (flag), count(flag)), 4));
-- category_counts(critic): steps in which a critic finds each category.
CREATE MACRO category_counts(critic) AS TABLE
  SELECT category, count(DISTINCT (trajectory_id, step)) AS steps, count(DISTINCT trajectory_id) AS trajectories
  FROM (SELECT trajectory_id, step, unnest(categories) AS category FROM verdicts WHERE policy = critic)
  WHERE category IS NOT NULL GROUP BY category ORDER BY steps DESC, category;
-- labels(): what a critic may say of a step, the gravest last; 'unparseable' when its reply could not be read.
CREATE MACRO labels() AS ['good', 'recover', 'unnecessary', 'mistake', 'unparseable'];
-- first_errors(critic): the first step of each trajectory that a critic labels a mistake, null for none.
CREATE MACRO first_errors(critic) AS TABLE
  SELECT trajectory_id, min(step) FILTER (label = 'mistake') AS first_step
  FROM verdicts WHERE policy = critic AND scope = 'step' GROUP BY trajectory_id ORDER BY trajectory_id;
-- masked_reasons(rule): why a mask rule takes steps out of the loss, and how many.
CREATE MACRO masked_reasons(rule) AS TABLE
  SELECT reason, count(*) AS steps FROM masks WHERE mask_rule = rule AND weight = 0 GROUP BY reason ORDER BY steps DESC, reason;
-- ends(of_evaluations): how the attempts of a list of evaluations ended, resolved or not.
CREATE MACRO ends(of_evaluations) AS TABLE
  SELECT coalesce(exit_status, 'unknown') || CASE WHEN resolved THEN ', resolved' ELSE ', not resolved' END AS how, count(*) AS attempts
  FROM evaluations WHERE list_contains(of_evaluations, evaluation_id) GROUP BY how ORDER BY attempts DESC, how;
-- loops(least): runs of the same command at least so many times in a row.
CREATE MACRO loops(least_times) AS TABLE
  WITH numbered AS (
    SELECT trajectory_id, step, command,
      row_number() OVER (PARTITION BY trajectory_id ORDER BY step)
        - row_number() OVER (PARTITION BY trajectory_id, command ORDER BY step) AS island
    FROM steps
  ),
  runs AS (
    SELECT trajectory_id, min(step) AS first_step, count(*) AS times, command
    FROM numbered WHERE command IS NOT NULL GROUP BY trajectory_id, command, island
  )
  SELECT trajectory_id, first_step, times, command
  FROM runs WHERE times >= least_times ORDER BY times DESC, trajectory_id, first_step;
-- wasted_steps(): per trajectory with a passing check, its step and how many steps other than submitting come after it.
CREATE MACRO wasted_steps() AS TABLE
  WITH checked AS (
    SELECT trajectory_id, min(step) AS passed_at
    FROM steps
    WHERE exit_code = 0 AND runs_tests(command)
      AND NOT regexp_matches(coalesce(observation, ''), '(?m)^FAIL|[1-9][0-9]* failed')
    GROUP BY trajectory_id
  )
  SELECT c.trajectory_id, c.passed_at, count(s.step) AS wasted
  FROM checked c
  LEFT JOIN steps s ON s.trajectory_id = c.trajectory_id AND s.step > c.passed_at AND NOT submits(s.command)
  GROUP BY c.trajectory_id, c.passed_at ORDER BY c.trajectory_id;
-- costs(): what the model calls of each trajectory cost, by who made them (agent, teacher, critic).
CREATE MACRO costs() AS TABLE
  SELECT trajectory_id, actor, count(*) AS calls, sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
    sum(cost_usd) AS cost_usd
  FROM calls GROUP BY trajectory_id, actor ORDER BY trajectory_id, actor;
