"""The payload of every event kind, column by column (fields from the four methods; METHODS.md section 7)."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import Column, struct

S, I32, I64, F64, BOOL = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()


def strings() -> pa.DataType:
    """A list of strings."""
    return pa.list_(S)


USAGE = (
    Column("call_id", S, "Identity of the model call, as the source names it."),
    Column("tokens_in", I64, "Prompt tokens, cached ones included."),
    Column("tokens_out", I64, "Completion tokens, reasoning included."),
    Column("cache_read", I64, "Prompt tokens read from the provider's cache."),
    Column("cache_write", I64, "Prompt tokens written to the provider's cache."),
    Column("reasoning", I64, "Completion tokens spent on reasoning."),
    Column("cost_usd", F64, "Cost of the call in US dollars as the source states it; null where it does not."),
    Column("latency_s", F64, "Wall time of the call in seconds."),
    Column("price_policy", S, "Price list the cost was computed with; `source` when the harness computed it."),
    Column("finish", S, "Why generation stopped."),
    Column("prompt_hash", S, "sha256 of the rendered prompt."),
    Column("sampling", S, "Sampling parameters as a JSON string."),
)

TASK = (
    Column("task_id", S, "Identity of the task."),
    Column("suite", S, "Task set it belongs to."),
    Column("split", S, "Split of the task set (train, eval, test...)."),
    Column("repo", S, "Repository, or task family for embedded tasks."),
    Column("base_commit", S, "Commit the task starts from."),
    Column("statement", S, "What is asked, verbatim."),
    Column("statement_hash", S, "sha256 of the statement."),
    Column("tests_hash", S, "sha256 of the hidden tests; the tests themselves never enter the log."),
    Column("solution_hash", S, "sha256 of the reference solution; the solution itself never enters the log."),
    Column("source_url", S, "Where the task was published."),
    Column("created_at", S, "When the task was created, as the source writes it."),
    Column("time_limit_s", F64, "Time limit of one attempt in seconds."),
)
START = (
    Column("task_id", S, "Task being attempted."),
    Column("attempt", I32, "0-based number of the attempt at the task within its run."),
    Column("agent", S, "Agent (harness) name and version."),
    Column("model", S, "Model the agent calls, as the source names it."),
    Column("scaffold", S, "Scaffold and its version."),
    Column("environment", S, "Environment or image the agent works in."),
    Column("run_id", S, "Run, experiment or batch this trajectory belongs to."),
    Column("arm", S, "Experimental arm."),
    Column("iteration", I32, "Policy iteration (DAgger)."),
    Column("seed", I64, "Seed of the rollout."),
    Column("step_limit", I32, "Most steps allowed."),
    Column("cost_limit_usd", F64, "Most cost allowed in US dollars."),
    Column("context_limit", I64, "Most prompt tokens allowed."),
    Column("parent_trajectory", S, "Trajectory this one continues or replays a prefix of."),
    Column("fork_step", I32, "Step of the parent it forks from."),
    Column("config", S, "Configuration of the run as a JSON string."),
)
INSTRUCTION = (
    Column("position", I32, "0-based place among the messages before the first action."),
    Column("role", S, "Chat role: system or user."),
    Column("content", S, "The message, verbatim."),
    Column("is_demo", BOOL, "Whether it is part of a demonstration rather than of this task."),
    Column("tools", S, "Tool schemas offered to the model as a JSON string."),
)
NOTICE = (
    Column("target", S, "Who was notified: agent or critic."),
    Column("text", S, "The notice as shown."),
    Column("template_id", S, "Template it was rendered from."),
    Column("current_step", I32, "Step counter at that moment."),
    Column("limit", I32, "The limit it refers to."),
)
TURN = (
    Column("rule", S, "How the actor was chosen: bernoulli, switch, fixed, or replay of another trajectory."),
    Column("beta", F64, "Probability that the teacher acts."),
    Column("draw", F64, "The uniform draw compared with beta."),
    Column("rng_key", S, "Key that reproduces the draw."),
    Column("chosen", S, "Who acts: agent or teacher."),
    Column("state_hash", S, "Hash of the environment state before the turn."),
)
ACTION = (
    Column("text", S, "What the policy said, verbatim: thought and command together."),
    Column("thought", S, "The thought, where the source tells it apart."),
    Column("command", S, "What is executed; null when nothing could be parsed."),
    Column("reasoning", S, "Provider reasoning kept apart from the reply."),
    Column("tool_calls", S, "Tool calls as a JSON string, arguments as JSON strings."),
    Column("parse_error", S, "Why nothing is executed (format error), else null."),
    Column("state_hash", S, "Hash of the environment state the action was taken in."),
)
OBSERVATION = (
    Column("position", I32, "0-based place among the observations of the step."),
    Column("raw", S, "Environment output as it came."),
    Column("rendered", S, "The message the agent was shown."),
    Column("role", S, "Chat role of the rendered message: user or tool."),
    Column("tool_call_id", S, "Tool call it answers."),
    Column("exit_code", I32, "Exit code of the command; null where the source has none."),
    Column("timed_out", BOOL, "Whether the command ran into its time limit."),
    Column("elided_chars", I64, "Characters of raw output not shown to the agent."),
    Column("state_hash", S, "Hash of the environment state after the command."),
    Column("files_changed", strings(), "Files the command changed."),
    Column("duration_s", F64, "Execution time in seconds."),
)
LABEL = (
    Column("state_hash", S, "Hash of the state the label is for; equals the state before the turn."),
    Column("text", S, "The teacher's full reply."),
    Column("command", S, "The teacher's command."),
    Column("source", S, "executed (the teacher acted) or queried."),
    Column("timing", S, "inline or posthoc."),
    Column("resample", I32, "0-based number of the resample."),
)
DETECTION = (
    Column("category", S, "Category id in the taxonomy."),
    Column("evidence", S, "What in the trajectory shows it."),
    Column("recovery", S, "What the critic would have the agent do."),
)
VERDICT = (
    Column("scope", S, "step, window, trajectory, attempt, or pair (the attempt shown first beside another)."),
    Column("window_from", I32, "First step judged (window scope)."),
    Column("window_to", I32, "Last step judged (window scope)."),
    Column("label", S, "good, unnecessary, mistake or recover; null when not labelled or unparseable."),
    Column("severity", I32, "0 on track, 1 needs correction, 2 critical."),
    Column("detections", pa.list_(struct(DETECTION)), "Error categories found, with evidence and recovery action."),
    Column("guidance", S, "Overall guidance for the agent."),
    Column("judgment", BOOL, "Whether the solution is judged correct; of a pair, whether it is the better one."),
    Column("confidence", F64, "Confidence or probability in [0, 1]."),
    Column("parse_status", S, "ok, repaired or unparseable."),
    Column("raw", S, "The critic's output verbatim; null for rules."),
    Column("prompt_id", S, "Prompt template and its hash."),
    Column("taxonomy_id", S, "Taxonomy and its version."),
    Column("candidate", I32, "0-based number among several candidates."),
)
FEEDBACK = (
    Column("verdict_id", S, "Event id of the verdict it renders."),
    Column("mode", S, "delivered, shadow, placebo or suppressed."),
    Column("reason", S, "Why it was suppressed or replaced."),
    Column("text", S, "The message as rendered to the agent."),
    Column("role", S, "Chat role it was delivered in."),
    Column("active_from", I32, "First step at which it is in the prompt, until other feedback takes its place."),
    Column("active_to", I32, "Last step at which it is in the prompt."),
    Column("similarity", F64, "Similarity to the last delivered feedback."),
)
MASK = (
    Column("mask_rule", S, "Rule that decided, with its version."),
    Column("weight", F64, "Loss weight of the step's action: 0 or 1."),
    Column("reason", S, "critic_label, resolved, student_turn, human_override, ..."),
    Column("evidence", strings(), "Event ids the decision rests on; never empty."),
)
TEST = (
    Column("name", S, "Test identity."),
    Column("group", S, "FAIL_TO_PASS, PASS_TO_PASS, visible or hidden."),
    Column("passed", BOOL, "Whether it passed."),
    Column("duration_s", F64, "Wall time in seconds."),
)
ATTEMPT = (
    Column("attempt_id", S, "Identity of the attempt."),
    Column("parent_attempt", S, "Attempt it revises."),
    Column("critique_id", S, "Verdict event it answers."),
    Column("round", I32, "0 for the initial solution."),
    Column("code", S, "The solution."),
    Column("code_hash", S, "sha256 of the solution."),
    Column("ast_hash", S, "sha256 of the normalised syntax tree."),
)
HINT = (
    Column("attempt_id", S, "Attempt that was executed."),
    Column("hint_kind", S, "pass, exception, timeout, wrong or fresh_start."),
    Column("text", S, "The hint."),
    Column("test_name", S, "Test the hint shows."),
    Column("rng_key", S, "Key that reproduces the choice."),
)
END = (
    Column("exit_status", S, "How the run ended, verbatim; never success."),
    Column("submission", S, "The submitted patch or answer."),
    Column("n_calls", I64, "Model calls, as the source totals them."),
    Column("tokens_in", I64, "Prompt tokens, as the source totals them."),
    Column("tokens_out", I64, "Completion tokens, as the source totals them."),
    Column("cost_usd", F64, "Cost of this trajectory in US dollars, as the source totals it."),
    Column("duration_s", F64, "Wall time in seconds."),
)
OUTCOME = (
    Column("subject", S, "trajectory, or the attempt id."),
    Column("grader", S, "Who graded, with version."),
    Column("rule", S, "How tests become a result: all, mean, or reported when only the result is known."),
    Column("resolved", BOOL, "Whether the task is resolved; null when the grader could not say."),
    Column("score", F64, "Score in [0, 1] where the grader gives one."),
    Column("tests", pa.list_(struct(TEST)), "Test results where known."),
    Column("rerun", I32, "0-based number of the rerun."),
)
REWARD = (
    Column("group_id", S, "Group the reward is compared within."),
    Column("attempt_id", S, "Attempt the reward is for."),
    Column("critique_id", S, "Verdict event the reward is for."),
    Column("reward", F64, "The reward."),
    Column("format_ok", BOOL, "Whether the critique passed the format gate."),
    Column("rule", S, "How the reward was computed."),
)
RETRACTION = (
    Column("target_event", S, "Event id retracted; null for a whole trajectory."),
    Column("action", S, "supersede, redact or takedown."),
    Column("reason", S, "Why."),
    Column("replacement", S, "Event id that replaces it."),
)
