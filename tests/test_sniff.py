"""Sniffing: the format is told from the content, in a fixed order, and named even where nothing reads it."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trajectory_files import SAMPLES, instance_report, mini_1, mini_bare, write

from stepwell.errors import BadInput
from stepwell.importers.base import CAPABILITIES
from stepwell.importers.containers import sniff
from stepwell.importers.formats_page import page
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.sniff import UNREAD

KNOWN: list[tuple[str, Any]] = [
    ("atif", {"schema_version": "ATIF-v1.7", "steps": []}),
    ("otlp-genai", {"resourceSpans": []}),
    ("inspect-log", {"version": 2, "status": "success", "eval": {}}),
    ("verifiers", {"task": 1, "nodes": [], "calls": [], "rewards": {}}),
    ("openhands-output", {"history": [], "git_patch": ""}),
    ("openhands-sdk-events", {"kind": "MessageEvent", "id": "1", "source": "user", "timestamp": "t"}),
    ("nemo-gym-rollouts", {"responses_create_params": {}, "response": {}}),
    ("nebius-swe-agent", {"trajectory": [], "target": True, "instance_id": "a"}),
    ("nebius-openhands", {"trajectory": [], "resolved": 1, "trajectory_id": "t"}),
    ("adp-std", {"content": [{"class_": "text_observation"}]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "hi"}]}),
    ("intercode", {"0": {"turn_history": {"actions": []}}}),
    ("tau-bench", [{"traj": [], "reward": 1.0, "task_id": 3}]),
    ("agent-lightning", {"rollout_id": "r", "attempt_id": "a", "event_type": "x"}),
    ("codex-session", {"type": "session_meta", "payload": {}}),
    ("pi-session", {"type": "session", "cwd": "/w"}),
    ("claude-code-session", {"type": "user", "sessionId": "s", "message": {}}),
    ("chat", {"messages": "[]"}),
    ("instance-report", instance_report(True)),
    ("instance-report", {"acme__anvil-1": instance_report(False)}),
    ("results", {"resolved_ids": ["a"], "unresolved_ids": []}),
    ("results", {"resolved": 1, "ids_resolved": ["a"], "ids_unresolved": []}),
    ("predictions", {"a": {"model_patch": "", "instance_id": "a"}}),
    ("validation-report", {"FAIL_TO_PASS": ["t"], "PASS_TO_PASS": []}),
    ("nemo-gym-rollouts", {"responses_create_params": {}, "response": {}, "model_patch": "", "instance_id": "a"}),
    ("nemo-gym-rollouts", {"responses_create_params": {}, "response": {}, "resolved": True, "patch_exists": True}),
    ("unknown", {"a": 1}),
    ("unknown", []),
    ("unknown", {"items": [None]}),
    ("unknown", {"history": [{"role": "user"}]}),
    ("unknown", 3),
]


@pytest.mark.parametrize(("name", "document"), KNOWN)
def test_formats_are_named(name: str, document: Any) -> None:
    assert sniff(orjson.dumps(document)).format == name


def test_every_format_named_is_recognised() -> None:
    named = {name for name, _ in KNOWN} | {"inspect-eval"}
    assert set(UNREAD) <= named
    assert not set(UNREAD) & set(IMPORTERS)


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_are_what_they_are(sample: str, tmp_path: Path) -> None:
    name, document, _ = SAMPLES[sample]
    told = sniff(write(tmp_path / "x" / name, document))
    assert told.format in IMPORTERS
    assert told.version in IMPORTERS[told.format].versions
    assert told.version.startswith(sample.rsplit("-", 1)[1][:1]) or sample in ("mini-bare", "mini-responses")


def test_a_mini_swe_agent_file_is_not_a_chat_row() -> None:
    told = sniff(orjson.dumps(mini_1()))
    assert (told.format, told.version) == ("mini-swe-agent", "1")


def test_a_bare_list_needs_the_manner_of_mini_swe_agent() -> None:
    assert "manner" in sniff(orjson.dumps(mini_bare())).why
    plain = [m if m["role"] != "system" else {**m, "content": "Be kind."} for m in mini_bare()]
    plain[1] = {"role": "user", "content": "How do I list files?"}
    assert sniff(orjson.dumps(plain)).format == "chat"
    silent = [{**m, "content": "I will."} if m["role"] == "assistant" else m for m in mini_bare()]
    assert sniff(orjson.dumps(silent)).format == "chat"


def test_what_is_inside_decides() -> None:
    assert sniff(gzip.compress(orjson.dumps(mini_1()))).format == "mini-swe-agent"
    assert (
        sniff(gzip.compress(orjson.dumps({"messages": []}) + b"\n" + orjson.dumps({"messages": []}))).format == "chat"
    )
    file = io.BytesIO()
    pq.write_table(pa.table({"messages": ["[]"], "instance_id": ["a"]}), file)
    told = sniff(file.getvalue())
    assert told.format == "chat"
    assert "Parquet" in told.why


@pytest.mark.parametrize(
    "wrapped", [[{"messages": []}], {"a": {"messages": []}}, {"items": [None, {"messages": []}], "next": 3}]
)
def test_records_are_told_by_the_first_of_them(wrapped: Any) -> None:
    assert sniff(orjson.dumps(wrapped)).format == "chat"


def test_json_lines_may_open_with_a_summary() -> None:
    lines = b'{"type": "summary", "leafUuid": "x"}\n{"type": "user", "sessionId": "s"}\n'
    assert sniff(lines).format == "claude-code-session"


def test_json_lines_survive_an_unparsable_first_line() -> None:
    lines = b'{"type": \n' + b'{"type": "user", "sessionId": "s"}\n' * 3
    told = sniff(lines)
    assert told.format == "claude-code-session"
    assert "1 unparsable" in told.why


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs_pointer"),
        (b'{"messages": [', "not_json"),
        (b"\xff\xfe{}", "not_json"),
        (b"[" * 100_000, "too_deep"),
        (b"PAR1....PAR1", "bad_archive"),
        (b"PK\x03\x04....header.json...", "bad_archive"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "bad_archive"),
        (gzip.compress(b"{}" * 400, mtime=0)[:20], "bad_archive"),
    ],
)
def test_what_is_no_document(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput) as raised:
        sniff(data)
    assert raised.value.reason == reason


def test_a_byte_order_mark_is_passed_over() -> None:
    assert sniff(b"\xef\xbb\xbf" + orjson.dumps(mini_1())).format == "mini-swe-agent"


def test_the_page_of_formats_is_what_the_importers_say() -> None:
    committed = Path(__file__).parent.parent / "docs" / "formats.md"
    assert committed.read_text() == page(), "run `python -m stepwell.importers.formats_page > docs/formats.md`"


def test_every_importer_says_where_everything_goes() -> None:
    for name, importer in IMPORTERS.items():
        assert "Kept where" in (sys.modules[type(importer).__module__].__doc__ or ""), name
        assert all(importer.capabilities[c] for c in CAPABILITIES)
