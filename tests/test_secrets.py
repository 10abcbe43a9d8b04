"""Secrets at import: found, taken out before anything is written, counted; what only looks like one is left."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow.parquet as pq
import pytest
from format_examples import EXAMPLES
from test_import_contract import write_example

from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.importers.run import import_paths
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.proxy.address import Address
from stepwell.proxy.recorder import Recorder
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target
from stepwell.secrets.detect import detected
from stepwell.secrets.redact import Redactor, salt_of
from stepwell.secrets.values import checked, forms, of_environment, of_file

_RANDOM = random.Random(5)
_ALL = string.ascii_letters + string.digits


def some(n: int, letters: str = _ALL) -> str:
    return "".join(_RANDOM.choice(letters) for _ in range(n))


PEM = "-----BEGIN RSA PRIVATE {0}-----\n{1}\n-----END RSA PRIVATE {0}-----".format(
    "KEY", "\n".join(some(64, _ALL + "+/") for _ in range(8))
)
JWT = ".".join(
    base64.urlsafe_b64encode(orjson.dumps(p)).decode().rstrip("=")
    for p in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "iat": 1516239022})
)
TOKEN = "ghp_" + some(36)
PLANTED = {  # text around, the secret in it
    "openai": ("{}", "sk-proj-" + some(74) + "T3BlbkFJ" + some(74)),
    "anthropic": ("key {} here", "sk-ant-" + "api03-" + some(93) + "AA"),
    "openrouter": ("{}", "sk-or-v1-" + some(64, "0123456789abcdef")),
    "github": ("https://x-access-token:{}@github.com/a/b", TOKEN),
    "github fine-grained": ("{}", "github_pat_" + some(22) + "_" + some(59)),
    "gitlab": ("{}", "glpat-" + some(20)),
    "aws id": ("aws_access_key_id={}", "AKIA" + some(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
    "aws secret": ('export AWS_SECRET_ACCESS_KEY="{}"', some(40, _ALL + "+/")),
    "google": ("{}", "AIza" + some(35)),
    "slack": ("{}", "xoxb-" + some(12, string.digits) + "-" + some(13, string.digits) + "-" + some(24)),
    "stripe": ("{}", "sk_live_" + some(24)),
    "hugging face": ("HF_TOKEN={}", "hf_" + some(34, string.ascii_letters)),
    "npm": ("{}", "npm_" + some(36)),
    "pypi": ("{}", "pypi-AgEIcHlwaS5vcmc" + some(140)),
    "private key": ("$ cat id\n{}\n$", PEM),
    "jwt": ("token {}", f"{JWT}.{some(43)}"),
    "database": ("postgres://admin:{}@db.internal:5432/prod", some(16)),
    "bearer": ("Authorization: Bearer {}", some(40)),
    "basic": ("authorization: Basic {}", base64.b64encode(b"user:" + some(14).encode()).decode()),
    "variable": ("API_KEY={}", some(32)),
    "json field": ('{{"db_password": "{}"}}', some(18)),
    "azure": ("AccountKey={};", some(86, _ALL + "+/") + "=="),
    "weights and biases": ("WANDB_API_KEY={}", some(40, "0123456789abcdef")),
    "telegram": ("{}", some(9, string.digits) + ":AA" + some(33)),
}


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(b"s" * 32)


@pytest.mark.parametrize("name", PLANTED)
def test_found_in_text_in_json_and_in_json_in_json(name: str, redactor: Redactor) -> None:
    around, secret = PLANTED[name]
    text = "before\n" + around.format(secret) + "\nafter"
    for value in (text, {"content": [text]}, {"arguments": json.dumps({"cmd": f"echo '{text}'\necho"})}):
        clean = redactor.redact(value)
        said = orjson.dumps(clean).decode()
        assert "[REDACTED:" in said
        assert not any(form in said for form in forms(secret))
        assert "before" in said
        assert "after" in said
        assert redactor.redact(clean) == clean


def test_a_field_named_as_a_secret(redactor: Redactor) -> None:
    value = {"env": {"DEPLOY_TOKEN": some(24)}, "note": "fine"}
    assert redactor.redact(value)["env"]["DEPLOY_TOKEN"].startswith("[REDACTED:assigned-secret:")
    assert redactor.redact({"note": "fine"}) == {"note": "fine"}
    kept: dict[str, Any] = {"a": ["x"]}
    assert redactor.redact(kept) is kept


@pytest.mark.parametrize(
    "text",
    [
        'password = os.environ["DB_PASSWORD"]', "api_key=get_api_key2()", "access_token: str = None", "max_tokens=12345",
        'api_key = "your_api_key_here12"', "secret_key: django-insecure-tests", "next_token = tokens[i12+34]",
        "API_KEY=${API_KEY_2b4}", "password: Optional[Str2ng3] = None", "auth_token=request.headers.get1(x12)",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b", "sha256:" + "ab12" * 16, "https://example.com/a/b?c=d",
        "diff --git a/x b/x\nindex 83db48f..bf269f4 100644", "self.assertEqual(token, 'abc123def456')", "sk-learn==1.2.3",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg",
        "uuid 123e4567-e89b-12d3-a456-426614174000", "password_hash = hashlib.sha256(password).hexdigest()",
    ],
)  # fmt: skip
def test_code_and_hashes_are_left(text: str) -> None:
    assert detected(text) == []


def test_a_short_password_goes_where_it_is_one_only(redactor: Redactor) -> None:
    said = redactor.redact("tiger: see postgres://scott:tiger@db.corp.net/orcl, a tiger")
    assert said.count("tiger") == 2
    assert "scott:[REDACTED:" in said


def test_values_in_every_form() -> None:
    value = 'our "own"/phrase\n+1'
    redactor = Redactor(b"k" * 32, [value])
    shown = [
        value,
        json.dumps(value),
        json.dumps(json.dumps(value)),
        quote(value),
        quote(value, safe=""),
        value.encode().hex(),
    ]
    shown += [base64.b64encode(b"x" * n + value.encode() + b"tail").decode() for n in range(4)]
    shown += [base64.urlsafe_b64encode(b"x" * n + value.encode()).decode() for n in range(4)]
    for text in shown:
        clean = redactor.redact(f"a {text} b")
        assert "[REDACTED:value:" in clean, text
        assert not any(form in clean for form in forms(value))
    assert redactor.counts == {"value": len(shown)}
    assert len({redactor.redact(text) for text in (value, value.encode().hex())}) == 1
    assert Redactor(b"l" * 32, [value]).redact(value) != redactor.redact(value)


def test_where_values_come_from(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("one value\n\nanother=1\none value\n")
    (tmp_path / "v.env").write_text("# no\nA='first'\nB=second=2\n")
    assert of_file(tmp_path / "v.txt") == ["one value", "another=1"]
    assert of_file(tmp_path / "v.env") == ["first", "second=2"]
    found = {"MY_API_KEY": "k3y-k3y-k3y-k3y", "PATH": "/usr/bin/x1234567", "X_TOKEN": "short1", "TOKENIZERS": "a1" * 9}
    assert of_environment(found) == ["k3y-k3y-k3y-k3y"]
    with pytest.raises(UsageError, match="1 of 2 values have fewer than 4"):
        checked(["abc", "abcd"])
    with pytest.raises(UsageError, match="cannot read secret values"):
        of_file(tmp_path / "none")


def test_events_name_each_other_by_their_new_ids(redactor: Redactor) -> None:
    action = Event("action", "t", "c", "agent", {"text": f"use {TOKEN}"}, 0, extra=json.dumps({"k": [TOKEN]}))
    seen = Event("observation", "t", "c", "environment", {"raw": "ok"}, 0, caused_by=action.event_id)
    first, second = redactor.events([action, seen])
    assert TOKEN not in str(first)
    assert json.loads(first.extra or "")["k"][0].startswith("[REDACTED:github-pat:")
    assert second.caused_by == first.event_id != action.event_id
    assert second.event_id == seen.event_id


def everything(lake: Lake) -> str:
    parts = []
    for path in sorted(p for p in Path(lake.uri).rglob("*") if p.is_file()):
        parts.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            parts.append(str(pq.read_table(path).to_pylist()))
    return "".join(parts)


def planted(data: Any, secret: str) -> Any:
    """A document with a secret at the end of every text that has words."""
    if isinstance(data, str):
        if data[:1] in "[{":
            try:
                return json.dumps(planted(json.loads(data), secret))
            except ValueError:
                pass
        return f"{data} {secret}" if " " in data and "\n" not in data else data
    if isinstance(data, bytes):
        return orjson.dumps(planted(orjson.loads(data), secret))
    if isinstance(data, dict):
        return {k: planted(v, secret) for k, v in data.items()}
    return [planted(v, secret) for v in data] if isinstance(data, list) else data


def test_every_format_is_written_without(tmp_path: Path) -> None:
    lake, folder = Lake(tmp_path / "lake"), tmp_path / "in"
    for i, (name, data, _) in enumerate(EXAMPLES):
        write_example(folder, i, name, planted(data, TOKEN))
    (folder / "cut.jsonl").write_bytes(b'{"a": 1}\n{"b": "' + TOKEN.encode() + b'"\n{"c": 1}\n')
    report = import_paths(lake, [folder], corpus="c")
    assert report.imported >= len(EXAMPLES) - 2
    assert report.rejected_records + report.rejected >= 1
    assert set(report.redacted) == {"github-pat"}
    assert report.counts()["redacted: github-pat"] == report.redacted["github-pat"] > len(EXAMPLES)
    written = everything(lake)
    assert not any(form in written for form in forms(TOKEN))
    assert "[REDACTED:github-pat:" in written
    again = import_paths(lake, [folder], corpus="c")
    assert (again.events, again.known) == (0, report.imported)
    kept = Lake(tmp_path / "kept")
    assert import_paths(kept, [folder], corpus="c", keep_secrets=True).redacted == {}
    assert TOKEN in everything(kept)


def test_given_values_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value, host = "plain words as a secret", "h0st-key-h0st-key"
    monkeypatch.setenv("INNER_API_KEY", host)
    data = planted(EXAMPLES[0][1], base64.b64encode(f"{value};{host};".encode()).decode())
    write_example(tmp_path / "in", 0, EXAMPLES[0][0], data)
    lake = Lake(tmp_path / "lake")
    report = import_paths(lake, [tmp_path / "in"], secret_values=[value])
    assert report.redacted["value"] > 1
    written = everything(lake)
    assert not any(form in written for secret in (value, host) for form in forms(secret))


def test_what_was_taken_down_does_not_come_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write_example(tmp_path / "in", 0, *EXAMPLES[0][:2])
    import_paths(lake, [tmp_path / "in"], corpus="c")
    (down,) = set(EventLog(lake).read().column("trajectory_id").to_pylist())
    redact(lake, Target(down=frozenset({down})), "asked")
    longer = write_example(tmp_path / "in2", 1, *EXAMPLES[0][:2])
    longer.write_bytes(longer.read_bytes() + b"\n")
    assert import_paths(lake, [longer], corpus="c").events == 0
    assert EventLog(lake).read().column("kind").to_pylist() == ["retraction"]


def test_the_proxy_keeps_none_in_its_journal_or_the_lake(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    said = {"role": "user", "content": f"clone with {TOKEN}"}
    reply = {"choices": [{"message": {"role": "assistant", "content": f"used {TOKEN}"}, "index": 0}], "usage": {}}

    async def main() -> None:
        recorder = Recorder(lake, Journal(tmp_path / "journal"), redactor=Redactor(salt_of(lake)))
        await recorder.start()
        told = {"messages": [said], "reply": reply, "prompt_hash": "x", "model": "m", "api": "chat/completions"}
        record = {
            "kind": "call",
            "known": 0,
            "sent": 1.0,
            "at": 2.0,
            "latency_s": 1.0,
            "tools": None,
            "extra": {},
            "sampling": {},
            **told,
        }
        address = Address("c", "task", 0)
        about = address.opened({"model": "m"}, {}, "http://127.0.0.1")
        await recorder.record(recorder.trajectory(address, about), record)
        for path in (tmp_path / "journal").glob("*.jsonl"):
            assert "[REDACTED:github-pat:" in path.read_text()
            assert TOKEN not in path.read_text()
        await recorder.stop()

    asyncio.run(main())
    rows = EventLog(lake).read(kinds=["instruction", "action"]).to_pylist()
    assert {r["kind"] for r in rows} == {"instruction", "action"}
    assert TOKEN not in everything(lake)
    assert rows[-1]["usage"]["prompt_hash"] not in (None, "x")
