"""Real replies of a small real model, recorded once: every prompt judged end to end without a model, on real rollouts.

`make cassettes` records them anew through a real vLLM server, where a prompt, the context or the embedded environment changed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from typer.testing import CliRunner
from vllm_server import serving

from jobs.vllm_policy import vllm_python
from stepwell.chat import Call, Completion, Failure, OpenAIBackend
from stepwell.cli import build_app
from stepwell.critics import prompts
from stepwell.critics.audit import audit
from stepwell.critics.cassettes import Player, Recorder, cassette_key
from stepwell.critics.judging import Report, judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.planning import plan
from stepwell.critics.rerendering import reproduced
from stepwell.errors import StepwellError, UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World
from stepwell.spending import Prices

MODEL = "SmolLM2-135M"
CASSETTE = Path(__file__).parent / "cassettes" / "smollm2.jsonl"
NAMES = ("steer-concise", "steer-detailed", "steps-one-pass", "critique", "verifier")
STALE = "what SmolLM2 was asked has changed; record its replies again: make cassettes"


def rollouts(lake: Lake) -> Lake:
    """The same five rollouts on every machine, with mistakes in them."""
    few = Collect(corpus="rollouts/few", policies=(Policy(kind="noisy", n_tasks=5, mistake_rate=0.35),))
    assert collect_pool(lake, few, World(functions=1, bugs_max=1)).complete
    return lake


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the rollouts and nothing else."""
    return Path(rollouts(Lake(tmp_path_factory.mktemp("pool") / "lake")).uri)


@pytest.fixture
def played(pool: Path, tmp_path: Path) -> Lake:
    """A copy of that lake to judge."""
    return Lake(shutil.copytree(pool, tmp_path / "lake"))


def critic(name: str, **options: Any) -> ModelCritic:
    chosen: dict[str, Any] = {"k": 3, "context": 8192, "max_tokens": 320, "prices": Prices(1.0, 0.1, 4.0)}
    return ModelCritic(prompts.load(name), MODEL, structured=name == "steps-one-pass", **(chosen | options))


def verdicts(lake: Lake, policy: str) -> dict[str, dict[str, Any]]:
    rows = EventLog(lake).read(kinds=["verdict"]).to_pylist()
    return {r["event_id"]: r for r in rows if r["policy"] == policy}


def replayed(lake: Lake, asked: ModelCritic, **options: Any) -> Report:
    report = judge(lake, asked, Player(CASSETTE, MODEL), **options)
    assert "no reply of" not in (report.stopped or ""), f"{STALE}\n{report.stopped}"
    return report


@pytest.mark.vllm
@pytest.mark.slow
def test_a_recording_plays_back_as_it_was(
    pool: Path, tmp_path: Path, smollm2: Path, request: pytest.FixtureRequest
) -> None:
    """Under `--regenerate` every prompt is recorded into the cassette the other tests play, else one into a file here."""
    anew = request.config.getoption("--regenerate")
    file, names = (CASSETTE, NAMES) if anew else (tmp_path / "one.jsonl", NAMES[-1:])
    file.unlink(missing_ok=True)
    python = vllm_python()
    assert python
    recorded, again = (Lake(shutil.copytree(pool, tmp_path / name)) for name in ("recorded", "again"))
    with serving(python, smollm2, name=MODEL, max_model_len=8192) as server:
        for name in names:
            backend = Recorder(file, MODEL, OpenAIBackend(MODEL, server.url + "/v1", timeout=900))
            assert judge(recorded, critic(name), backend).complete
    for name in names:
        assert judge(again, critic(name), Player(file, MODEL)).complete
        made = verdicts(recorded, critic(name).id)
        assert made
        assert verdicts(again, critic(name).id).keys() == made.keys()
    assert file.stat().st_size < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_real_replies_are_planned_judged_and_kept(played: Lake, name: str) -> None:
    asked = critic(name)
    told = plan(played, asked)
    report = replayed(played, asked)
    assert report.complete
    assert (report.n_calls, report.n_trajectories) == (told.n_calls, 5)
    assert report.n_calls == {"steer": 11, "steps": 5, "critique": 5, "verifier": 5}[asked.prompt.kind]
    assert report.cost_usd <= (told.cost_most_usd or 0)
    rows = verdicts(played, asked.id).values()
    assert len(rows) == report.n_verdicts
    assert all(r["verdict"]["raw"] for r in rows if r["usage"]["tokens_out"])
    assert all(r["occurred_at"] is not None for r in rows), "when the model said it, not when it was played"
    again = replayed(played, asked)
    assert (again.n_calls, again.n_verdicts) == (0, 0)
    found = reproduced(EventLog(played))
    assert (found.n, found.problems) == (len(rows), ())


@pytest.mark.parametrize("name", ["steer-detailed", "verifier"])
def test_a_run_that_stops_halfway_goes_on_and_ends_with_the_same_verdicts(pool: Path, played: Lake, name: str) -> None:
    asked, told = critic(name), list[str]()

    class Stopping(Player):
        """Gone after three calls."""

        async def complete(self, call: Call) -> Completion | Failure:
            told.append(cassette_key(MODEL, call))
            return Failure("fatal", "gone") if len(told) > 3 else await super().complete(call)

    first = judge(played, asked, Stopping(CASSETTE, MODEL))
    assert (first.stopped, first.n_calls) == ("gone", 3)
    second = replayed(played, asked)
    whole = Lake(shutil.copytree(pool, Path(played.uri).parent / "whole"))
    assert first.n_calls + second.n_calls == replayed(whole, asked).n_calls
    assert second.complete
    assert verdicts(whole, asked.id).keys() == verdicts(played, asked.id).keys()


def test_what_the_grammars_make_of_real_replies(played: Lake, golden: Callable[[str, Any], None]) -> None:
    read = {}
    for name in NAMES:
        assert replayed(played, critic(name)).complete
        rows = verdicts(played, critic(name).id).values()
        cut = sum(r["usage"]["finish"] == "length" for r in rows)
        read[name] = {"replies cut": cut} | dict(sorted(Counter(r["verdict"]["parse_status"] for r in rows).items()))
    golden("cassette_replies", read)


def test_a_recorded_critic_is_audited_against_the_environments_ground_truth(played: Lake) -> None:
    for name in ("steps-one-pass", "verifier"):
        replayed(played, critic(name))
    result = audit(EventLog(played).read(), critic("steps-one-pass").id, draws=200)
    assert (result.n_trajectories, result.n_not_judged) == (5, 0)
    assert sum(map(sum, result.confusion)) == result.n_steps > 30
    assert result.intervention["needless"].n > 0
    assert result.first_error["first_error_never_found"].n > 0
    judged = audit(EventLog(played).read(), critic("verifier").id, draws=200)
    assert judged.n_graded == 5


def test_a_prompt_that_changed_is_not_in_the_cassette_and_the_run_says_so(played: Lake) -> None:
    asked = critic("verifier")
    other = replace(asked, prompt=replace(asked.prompt, request=asked.prompt.request + " Be brief."))
    report = judge(played, other, Player(CASSETTE, MODEL))
    assert report.n_calls == report.n_verdicts == 0
    assert report.stopped is not None
    assert "Record it again" in report.stopped
    assert "smollm2.jsonl" in report.stopped
    assert judge(played, replace(asked, model="another"), Player(CASSETTE, "another")).stopped is not None
    with pytest.raises(AssertionError, match="make cassettes"):
        replayed(played, other)


def test_the_key_covers_every_setting_of_a_call(played: Lake) -> None:
    calls: list[Call] = []

    class Listening(Player):
        async def complete(self, call: Call) -> Completion | Failure:
            calls.append(call)
            return await super().complete(call)

    judge(played, critic("verifier"), Listening(CASSETTE, MODEL))
    one = calls[0]
    changed = {
        "messages": ({"role": "user", "content": "x"},), "max_tokens": 1, "temperature": 0.5, "seed": 3, "top_p": 0.5,
        "tools": ({"type": "function"},), "schema": {"type": "object"}, "yes_no": not one.yes_no,
    }  # fmt: skip
    assert set(changed) == {f.name for f in fields(Call)}, "a new setting of a call belongs here, and in the key"
    keys = {cassette_key(MODEL, replace(one, **{name: value})) for name, value in changed.items()}
    assert len(keys | {cassette_key(MODEL, one), cassette_key("another", one)}) == len(changed) + 2


def command(lake: Lake, *more: str) -> list[str]:
    asked = ["judge", "--prompt", "verifier", "--model", MODEL, "--context", "8192", "--max-tokens", "320"]
    return [*asked, "--lake", lake.uri, *more]


def test_the_command_records_and_replays(pool: Path, played: Lake, tmp_path: Path) -> None:
    app = build_app()
    runner, file = CliRunner(), tmp_path / "mine" / "own.jsonl"
    with ChatServer(lambda body: "YES\nPROBABILITY: 0.7") as server:
        done = runner.invoke(app, command(played, "--base-url", server.url, "--record", str(file), "--json"))
        assert done.exit_code == 0, done.output
        n = len(server.bodies)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["key"] for line in lines] == sorted({line["key"] for line in lines})
    assert len(lines) == n == 5
    assert {line["completion"]["text"] for line in lines} == {"YES\nPROBABILITY: 0.7"}
    other = Lake(shutil.copytree(pool, tmp_path / "other"))
    again = runner.invoke(app, command(other, "--replay", str(file), "--json"))
    assert json.loads(again.stdout)["n_calls"] == n
    policy = json.loads(again.stdout)["critic"]
    assert verdicts(other, policy).keys() == verdicts(played, policy).keys()
    fresh = Lake(shutil.copytree(pool, tmp_path / "fresh"))
    stale = runner.invoke(app, command(fresh, "--replay", str(file), "--every", "2", "--temperature", "0.5"))
    assert isinstance(stale.exception, StepwellError)
    assert "Record it again with --record" in str(stale.exception)
    for wrong in (
        command(fresh, "--replay", str(tmp_path / "nowhere")),
        command(fresh, "--replay", str(file), "--record", str(file)),
        ["judge", "--replay", str(file), "--lake", fresh.uri],
    ):
        assert isinstance(runner.invoke(app, wrong).exception, UsageError), wrong


def test_a_recording_that_dies_keeps_what_was_answered_and_goes_on(played: Lake, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"

    class Dying(Player):
        async def complete(self, call: Call) -> Completion | Failure:
            n = len(file.read_bytes().splitlines()) if file.exists() else 0
            return Failure("fatal", "gone") if n == 2 else await super().complete(call)

    assert judge(played, critic("verifier"), Recorder(file, MODEL, Dying(CASSETTE, MODEL))).stopped == "gone"
    assert len(Player(file, MODEL).entries) == 2
    assert judge(played, critic("verifier"), Recorder(file, MODEL, Player(CASSETTE, MODEL))).complete
    assert len(Player(file, MODEL).entries) == 5
    own, all_of_them = Player(file, MODEL).entries, Player(CASSETTE, MODEL).entries
    assert all(all_of_them[key] == entry for key, entry in own.items())


def test_a_file_that_is_no_cassette_is_refused_by_line(tmp_path: Path) -> None:
    good = CASSETTE.read_bytes().splitlines()[0]
    for number, bad in enumerate((b"{", b'{"key": "1"}', b'{"key": "1", "completion": {"words": 3}}', b"[]")):
        file = tmp_path / f"{number}.jsonl"
        file.write_bytes(good + b"\n" + bad + b"\n")
        with pytest.raises(UsageError, match=r"line 2 of .* is no entry of a cassette"):
            Player(file, MODEL)
