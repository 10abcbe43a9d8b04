"""Completions kept: what is forgotten is gone from the disk, byte by byte."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import lakes
import pytest
from chat_server import ChatServer, critique
from lakes import Step

from stepwell.chat import Completion, OpenAIBackend
from stepwell.critics import prompts
from stepwell.critics.cache import Completions, place
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic, kept_under
from stepwell.errors import StepwellError
from stepwell.lake import Lake
from stepwell.log import EventLog

SECRET = "the password is swordfish"


def on_disk(path: Path) -> bytes:
    """Every byte of the file and of all that stands beside it."""
    return b"".join(f.read_bytes() for f in path.parent.glob(path.name + "*"))


def test_what_is_forgotten_leaves_no_byte(lake: Lake) -> None:
    EventLog(lake).append([e for i in range(8) for e in lakes.trajectory(f"t{i}", [Step(f"view {i}")] * 5)], "b")
    with ChatServer(lambda body: critique(f"In {body['messages'][2]['content']}: {SECRET} " * 40)) as server:
        assert judge(lake, ModelCritic(prompts.load("steer-concise"), "m"), OpenAIBackend("m", server.url)).complete
    rows = [r for r in EventLog(lake).read(kinds=["verdict"]).to_pylist() if r["actor"] == "critic"]
    path = place(lake)
    assert len(rows) == 8
    with Completions(path) as completions:
        completions.put("plain", Completion("nothing to hide"))
        assert on_disk(path).count(b"In view 3: " + SECRET.encode()) >= 40
        keys = {r["trajectory_id"]: key for r in rows if (key := kept_under(r))}
        assert completions.forget([keys.pop("t3")]) == 1
        assert b"In view 3" not in on_disk(path)
        assert all(completions.get(key) for key in keys.values()), "the others stay"
        assert completions.forget(keys.values()) == 7
        assert SECRET.encode() not in on_disk(path)
        assert completions.get("plain") == Completion("nothing to hide")
        assert completions.forget(["never kept"]) == completions.forget([]) == 0
    assert SECRET.encode() not in on_disk(path)


def test_a_verdict_no_model_made_has_nothing_kept(lake: Lake) -> None:
    EventLog(lake).append(lakes.good_repair("good"), "b")
    assert {kept_under(r) for r in EventLog(lake).read(kinds=["verdict"]).to_pylist()} == {None}


def test_forgetting_while_another_process_reads_is_no_success(tmp_path: Path) -> None:
    path = tmp_path / "completions.sqlite"
    with Completions(path) as completions:
        completions.put("a", Completion(SECRET))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM completions").fetchone() == (1,)
        completions.db.execute("PRAGMA busy_timeout=50")
        with pytest.raises(StepwellError, match="another process has the cache open"):
            completions.forget(["a"])
        other.execute("COMMIT")
        other.close()
        assert completions.forget(["a"]) == 0
        assert SECRET.encode() not in on_disk(path)
