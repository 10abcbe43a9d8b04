"""Inspect AI logs: `.json` (one document) and `.eval` (a zip of a header and samples), versions 2 and 3.

Kept where: a sample is a trajectory, its `epoch` the attempt. Every model call outside a scorer is one step, with usage, cost
and time of its event; a log without events has its assistant messages as steps. Messages of prompts are instructions before
the first step and observations after it; `dialogue` says how prompts are kept. Totals are those of `model_usage` without the
calls of scorers. Results are observations of the step that made
the call, the text as shown (of a call that failed the message of its error) and, where it differs, as it came. A score is an
outcome of that scorer (C, I, P, N, numbers and booleans as Inspect reads them; of several scorers the first that says resolved
or not stands, as the highest `rerun`); the status of a log is none. Attachments and pooled messages are put back in place.

Never logged: the target and solutions or tests in metadata, only their hashes. Not kept: raw requests repeat the prompt in
the provider's form; of them the other fields are. In `extra`: all else of samples and calls; events of the harness and of
scorers are in `extra.records` of the end. The header is `config` of the start; results and statistics are in the end of the
first sample. Not in the format: token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.inspect_sample import SampleReader, outcomes, whole
from stepwell.importers.messages import Obj, obj, take_float, take_int, take_obj, take_text
from stepwell.importers.parse import DEEPEST, parse
from stepwell.importers.sealed import SOLUTIONS, TESTS, Seal

_SAMPLE = re.compile(r"samples/(.+_epoch_\d+)(?:\.json|/sample\.json)")
_CHUNK = re.compile(r"/(messages|events|calls|attachments)/(\d{1,12})\.json")


class InspectLog:
    """Reads Inspect logs written as JSON; a file has as many trajectories as samples."""

    name = "inspect-log"
    unit: Unit = "document"
    versions: tuple[str, ...] = ("", "1", "2", "3")
    capabilities: Mapping[str, str] = {
        "outcome": "yes",
        "step cost": "where the provider said",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "yes",
        "tool schemas": "yes",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A log -> a trajectory a sample; what is no sample is rejected."""
        header = obj(data)
        samples = header.pop("samples", None)
        yield from _log(header, iter(samples if isinstance(samples, list) else []), source)


class InspectEval(InspectLog):
    """Reads Inspect logs written as a zip archive; a log that broke off has only a journal beside its samples."""

    name = "inspect-eval"
    unit: Unit = "archive"

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """An archive -> a trajectory a sample; a member that cannot be read is rejected, the others are not."""
        names = list(data)
        first = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
        try:
            header = obj(_member(data, first)) if first else {}
            header |= {"reductions": _member(data, "reductions.json")} if "reductions.json" in names else {}
        except BadInput as error:
            yield Rejected(error.reason, error.detail)
            return
        yield from _log(header, _samples(data, names), source)


def _member(data: Mapping[str, bytes], name: str) -> Any:
    return parse(data[name])


def _samples(data: Mapping[str, bytes], names: list[str]) -> Iterator[Any]:
    """Samples of an archive in the order of its members: one member each, or a shell and chunks of sequences."""
    for name in names:
        found = _SAMPLE.fullmatch(name)
        if not found:
            continue
        try:
            sample = _member(data, name)
            yield _assembled(data, names, f"samples/{found[1]}", sample) if name.endswith("/sample.json") else sample
        except BadInput as error:
            yield Rejected(error.reason, f"member {name[:80]!r}: {error.detail}")


def _assembled(data: Mapping[str, bytes], names: list[str], prefix: str, shell: Any) -> Obj:
    """A chunked sample as one object: its sequences joined, attachments named by their place."""
    parts: dict[str, list[tuple[int, str]]] = {"messages": [], "events": [], "calls": [], "attachments": []}
    for name in names:
        found = _CHUNK.fullmatch(name.removeprefix(prefix)) if name.startswith(f"{prefix}/") else None
        if found:
            parts[found[1]].append((int(found[2]), name))
    joined = {kind: [i for _, n in sorted(held) for i in _items(_member(data, n))] for kind, held in parts.items()}
    metadata = f"{prefix}/metadata.json"
    return {
        **obj(shell),
        **({"metadata": _member(data, metadata)} if metadata in names else {}),
        "events": joined["events"],
        "events_data": {"messages": joined["messages"], "calls": joined["calls"]},
        "attachments": {str(i): text for i, text in enumerate(joined["attachments"])},
    }


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _log(header: Obj, samples: Iterator[Any], source: SourceFile) -> Iterator[Imported | Rejected]:
    if not isinstance(header.get("eval"), dict):
        yield Rejected("malformed", "`eval` is no object; a log names its task and model there.")
        return
    n = 0
    for place, sample in enumerate(samples):
        n += 1
        if isinstance(sample, Rejected):
            yield sample
        elif isinstance(sample, dict) and "id" in sample:
            try:
                yield _sample(dict(header), whole(sample), source, first=place == 0)
            except BadInput as error:
                yield Rejected(error.reason, f"sample {place}: {error.detail}")
            except (RecursionError, orjson.JSONEncodeError) as error:
                yield Rejected("too_deep", f"sample {place}: {error}; samples are nested at most {DEEPEST} deep.")
        else:
            yield Rejected("malformed", f"sample {place} is no object with an `id`.")
    if not n:
        yield Rejected("malformed", f"the log has no samples; its status is {str(header.get('status'))[:40]!r}.")


def _sample(header: Obj, sample: Obj, source: SourceFile, first: bool) -> Imported:
    about = take_obj(header, "eval")
    name = str(about.get("task", ""))
    instance = f"{name}/{sample.get('id')}"
    epoch = take_int(sample, "epoch", 32)
    packages = obj(about.get("packages"))
    agent = f"inspect_ai {packages.get('inspect_ai', '')}".strip()
    builder = Builder.of(source, InspectLog.name, f"{instance}#{epoch}", agent)
    seal = Seal(TESTS, ("target", *SOLUTIONS))
    scores, kept = take_obj(sample, "scores"), {}
    for key in list(sample):
        if key not in ("input", "output") and not (key in ("messages", "events") and isinstance(sample[key], list)):
            kept[key] = sample.pop(key)
    kept = seal.strip(kept)
    asked = sample.pop("input", None)
    statement = asked if isinstance(asked, str) else _asked(asked)
    builder.task(
        instance,
        statement,
        {
            "id": kept.pop("id"),
            **({k: kept.pop(k) for k in ("target", "choices", "metadata") if kept.get(k)}),
            **({"input": asked} if asked and not isinstance(asked, str) else {}),
        },
        suite=name or None,
        tests_hash=seal.tests_hash,
        solution_hash=seal.solution_hash,
        compared=seal.compared,
    )
    whole_log = {k: header.pop(k) for k in ("results", "stats", "reductions") if k in header}
    steps = [s.get("solver") for s in _items(obj(header.get("plan")).get("steps")) if isinstance(s, dict)]
    sandbox = obj(kept.get("sandbox")) or obj(about.get("sandbox"))
    builder.start(
        {
            "task_id": instance,
            "attempt": None if epoch is None else max(0, epoch - 1),
            "model": take_text(dict(about), "model"),
            "scaffold": " > ".join(s for s in steps if isinstance(s, str)) or take_text(dict(about), "solver"),
            "environment": take_text(sandbox, "type"),
            "run_id": take_text(dict(about), "run_id"),
            "config": orjson.dumps({"eval": about, **header}).decode(),
        }
    )
    reader = SampleReader(builder)
    reader.read(sample)
    kept |= seal.strip(reader.records)
    kept |= {"log": whole_log} if first and whole_log else {}
    output = sample.get("output")
    kept |= {"output": output} if output and not isinstance(output, dict) else {}
    _end(builder, kept, obj(output), reader)
    outcomes(builder, scores, seal)
    return builder.imported(instance)


def _asked(messages: Any) -> str | None:
    """The text of an input given as messages: the users' own."""
    texts = []
    for message in _items(messages):
        content = message.get("content") if isinstance(message, dict) and message.get("role") == "user" else None
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)]
    return "\n".join(texts) if texts else None


def _end(builder: Builder, kept: Obj, output: Obj, reader: SampleReader) -> None:
    used = [
        _acting(obj(u), [g for m, g in reader.graders if m == model])
        for model, u in obj(kept.get("model_usage")).items()
    ]
    used = [u for u in used if u.get("total_tokens") != 0]
    out = [c for u in used if (c := take_int(dict(u), "output_tokens")) is not None]
    total = [c for u in used if (c := take_int(dict(u), "total_tokens")) is not None]
    costs = [p for u in used if (p := take_float(dict(u), "total_cost")) is not None]
    limit = take_text(dict(obj(kept.get("limit"))), "type")
    choices = _items(output.get("choices"))
    content = obj(obj(choices[0] if choices else None).get("message")).get("content")
    texts = content if isinstance(content, list) else [{"text": content}]
    submission = "".join(p["text"] for p in texts if isinstance(p, dict) and isinstance(p.get("text"), str))
    builder.end(
        {
            "exit_status": "error" if kept.get("error") else f"limit: {limit}" if limit else None,
            "submission": submission or take_text(dict(output), "completion"),
            "n_calls": reader.n_calls or None,
            "tokens_in": sum(total) - sum(out) if out and len(total) == len(out) == len(used) else None,
            "tokens_out": sum(out) if out and len(out) == len(used) else None,
            "cost_usd": sum(costs) if costs and len(costs) == len(used) else None,
            "duration_s": take_float(kept, "total_time"),
        },
        {k: v for k, v in {**kept, **_rest_of(output)}.items() if v not in (None, [], {})},
    )


def _acting(usage: Obj, graders: list[Obj]) -> Obj:
    """What a model used in all without what graders used of it; nothing is known of the rest where a grader's part is not."""
    left = {k: v for k, v in usage.items() if type(v) in (int, float)}
    for call in graders:
        shares = {k: call.get(k) for k in left}
        left = {k: left[k] - n for k, n in shares.items() if type(n) in (int, float) and n <= left[k]}
    return left


def _rest_of(output: Obj) -> Obj:
    """What the final output says beyond its first message, which the conversation has."""
    left = {k: v for k, v in output.items() if k != "completion" and v is not None}
    choices = left.get("choices")
    if isinstance(choices, list) and choices and isinstance(obj(choices[0]).get("message"), dict):
        left["choices"] = [{k: v for k, v in choices[0].items() if k != "message"}, *choices[1:]]
    return {"output": left} if left else {}


IMPORTERS = (InspectLog(), InspectEval())
