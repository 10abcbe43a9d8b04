"""R2E-Gym's own rollouts: `trajectory_steps` with thought, action, observation, tokens and times a step, and `reward`.

Kept where: each item of `trajectory_steps` is one step; `llm_exec_time` is the latency of the call, `env_exec_time` the
duration of the command, `token_usage_prompt` and `token_usage_completion` its tokens. `problem_statement` is the statement,
`output_patch` the submission, `exit_reason` the exit status. The statement is, since the prompt around it is not in the
source, the one instruction. `reward` is the outcome's score: 1 is resolved, 0 is not, anything between says neither;
`test_output` stays with the outcome.

In `extra`: everything else. Not in the format: cost, timestamps, token ids, the prompts themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.chatting import written_command
from stepwell.importers.messages import Obj, obj, objects, take_float, take_int, take_obj, take_text
from stepwell.importers.sealed import Seal

_TESTS = (
    "test_patch",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "expected_output_json",
    "parsed_commit_content",
    "execution_result_content",
)


class R2eGym:
    """Reads one record as one trajectory."""

    name = "r2e-gym"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "reward",
        "step cost": "no",
        "step tokens": "yes",
        "timestamps": "no",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def tells(self, record: Obj) -> str:
        """Steps under the name R2E-Gym gives them."""
        return "`trajectory_steps`" if isinstance(record.get("trajectory_steps"), list) else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One record -> one trajectory, or one reject when its steps are no steps."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = R2eGym()


def _read(rest: Obj, source: SourceFile) -> Imported:
    steps = objects(rest.pop("trajectory_steps", None), "trajectory_steps")
    seal = Seal(_TESTS, ("gold_patch", "patch"))
    rest = seal.strip(rest)
    args = take_obj(rest, "agent_args")
    model = take_text(args, "llm_name") or take_text(rest, "llm_name")
    image = take_text(rest, "docker_image")
    instance = take_text(rest, "instance_id") or image
    builder = Builder.of(source, R2eGym.name, instance, "R2E-Gym")
    statement = take_text(rest, "problem_statement")
    builder.task(
        instance,
        statement,
        tests_hash=seal.tests_hash,
        solution_hash=seal.solution_hash,
        compared=seal.compared,
    )
    builder.start(
        {"task_id": instance, "model": model, "environment": image, "run_id": take_text(rest, "exp_name")},
        {"agent_args": args} if args else None,
    )
    if statement is not None:
        builder.instruction(0, "user", statement, False, {"not_in_source": "the prompt around the statement"})
    for step in steps:
        _step(builder, dict(step), model)
    reward = take_float(rest, "reward")
    output = None if reward is None else take_text(rest, "test_output")
    builder.end({"exit_status": take_text(rest, "exit_reason"), "submission": take_text(rest, "output_patch")}, rest)
    if reward is not None:
        resolved = True if reward == 1 else False if reward == 0 else None
        payload = {
            "subject": "trajectory",
            "grader": "r2e-gym",
            "rule": "reported",
            "resolved": resolved,
            "rerun": 0,
            "score": reward if 0 <= reward <= 1 else None,
        }
        extra = {"reward": reward, **({} if output is None else {"test_output": output})}
        builder.add("outcome", "grader", payload, policy="r2e-gym", caused_by=builder.events[-1].event_id, extra=extra)
    return builder.imported(instance)


def _step(builder: Builder, left: Obj, model: str | None) -> None:
    thought, action, observation = (take_text(left, k) for k in ("thought", "action", "observation"))
    command = written_command(action) or (action if action and action.strip() else None)
    usage = {
        "tokens_in": take_int(left, "token_usage_prompt"),
        "tokens_out": take_int(left, "token_usage_completion"),
        "latency_s": take_float(left, "llm_exec_time"),
    }
    duration = take_float(left, "env_exec_time")
    payload = {
        "text": "\n\n".join(t for t in (thought, action) if t) or None,
        "thought": thought,
        "command": command,
    }
    event = builder.action(payload, usage=usage, policy=model, extra={k: v for k, v in left.items() if v is not None})
    if observation is not None or duration is not None:
        builder.observation(event, {"position": 0, "raw": observation, "rendered": observation, "duration_s": duration})
