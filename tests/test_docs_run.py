"""The documentation runs: every command and every block of Python, SQL and YAML of every page, in one reader's folder.

The tutorial is gone through first, from files of real rollouts to a trained and evaluated model; the other pages are run in
what it leaves behind. Names of a page that stand for something of the reader's (READ_AS) are replaced. What is not run is
listed with its reason: here by line (NOT_RUN), or on the page by block, as `<!-- test: skip, REASON -->`; what is marked
`<!-- test: slow, REASON -->` is run with the slow tests only. `stepwell` is the real program, imported once and forked for
every call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import DOCS, PAGES, ROOT, Block, blocks
from forked import forked

from assets import machines
from stepwell import recipe
from stepwell.exporters.run import Request, export
from stepwell.lake import Lake
from stepwell.query import connect, run
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World

pytestmark = pytest.mark.xdist_group("docs")  # one process: what the tutorial made is made once

PLAYS = "plays rollouts for minutes"
NOT_RUN: dict[str, dict[str, str]] = {
    "README": {
        "make demo": "minutes; what CI does first",
        "make test": "these tests",
        "stepwell view": "serves until it is stopped: test_view.py",
        "stepwell train": "the tutorial trains",
        "stepwell evaluate": "the tutorial evaluates",
        "stepwell rollout RECIPE": f"{PLAYS}: test_collect.py",
        "stepwell dagger dagger": f"{PLAYS}: test_dagger.py",
        "stepwell steer steer": f"{PLAYS}: test_steering.py",
        "stepwell revise ctrl": f"{PLAYS}: test_revision.py",
        "stepwell proxy": "serves until it is stopped: test_proxy.py",
    },
    "critics": {
        "--model NAME": "asks a model of the reader's: test_judging.py",
        "python -m jobs.judge": "needs vLLM: test_judge_vllm.py",
        "stepwell vote": "needs five samples of a model: test_ensemble.py",
    },
    "ctrl": {"stepwell revise ctrl  ": f"{PLAYS}: test_revision.py"},
    "live": {"stepwell watch": "watches until it is stopped: test_watch.py",
             "stepwell serve": "serves until it is stopped: test_serve.py"},
    "training": {"stepwell train": "the tutorial trains"},
    "dagger": {
        "stepwell dagger dagger --iterations 3": f"{PLAYS}: test_dagger.py",
        "stepwell dagger dagger --report": "needs an iteration: test_dagger.py",
        "stepwell dagger dagger --dagster": f"{PLAYS}: test_dagger_assets.py",
        "stepwell verify dagger-2": "needs an iteration: test_dagger.py",
        "stepwell label": "needs the teacher of a recipe: test_dagger.py",
    },
    "proxy": {
        "stepwell proxy": "serves until it is stopped: test_proxy.py",
        "curl": "asks the proxy: test_proxy.py",
        "-d '{": "goes on from the line before",
    },
    "rollouts": dict.fromkeys(
        ("stepwell rollout RECIPE", "stepwell dagger RECIPE", "stepwell steer RECIPE", "stepwell revise RECIPE"), PLAYS
    )
    | {"stepwell proxy": "serves until it is stopped: test_proxy.py"},
    "viewing": {"stepwell view  ": "serves until it is stopped: test_view.py",
                "stepwell view 8dbb9193 07ee939c": "serves until it is stopped: test_view.py"},
}  # fmt: skip
"""Page -> words of a line that is not run (two spaces: and nothing more) -> why not, and where it is tried instead."""
READ_AS: dict[str, dict[str, str]] = {
    "README": {"path/to/trajectories": "runs", " srft": " mine.yaml", "trace mine.yaml": "trace mine",
               "verify mine.yaml": "verify mine"},
    "comparing": {"--n 500": "--n 500 || test $? -eq 1",  # the answer is no
                  "srft-*": "'*'", "base all rft srft": "base mine", "base rft srft": "base mine", "base srft": "base mine",
                  "EVAL1,EVAL2": "{evaluations[0]}", "EVAL3,EVAL4": "{evaluations[1]}"},
    "contamination": {"contamination srft": "contamination mine", "ID [--base ID]": "{evaluations[0]}"},
    "curation": {"RECIPE": "mine.yaml"},
    "export": {"runs/": "given/", "nightly": "mine", "--dataset srft": "--dataset mine"},
    "lineage": {"trace srft": "trace mine", "datasets/srft@3": "datasets/mine@0", "datasets/srft": "datasets/mine",
                "ROW_ID": "{row}", "runs/one.traj.json": "{file}", "django/django": "{repo}"},
    "rendering": {"verify srft": "verify mine"},
    "secrets": {"runs/": "leaky/", "3f2a...": "{event}", "owner/name": "{repo}", "VALUE": "CORP-87654321"},
    "sql": {"--at 120": "--at 1"},
    "viewing": {"8dbb9193": "{trajectory}"},
}  # fmt: skip
"""Page -> what stands there -> what it stands for in the reader's folder, in this order."""
SHOWN = ("text", "mermaid", "json")
"""Languages that nothing runs: diagrams, and what a model or a client says."""
MODEL = ("README", "comparing", "contamination", "lineage")
"""Pages that need the model and the evaluations of the tutorial's slow part."""
WRITES = ("secrets",)
"""Pages that take something out of the lake: they are run on a copy of it."""
WITH_BLOCKS = [page for page in PAGES if any(True for _ in blocks(page))]


@dataclass
class Reader:
    """Someone who goes through the pages in a folder of their own."""

    folder: Path
    environment: dict[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "lake")

    def meant(self, page: Path, text: str) -> str:
        """What a text of a page says to this reader."""
        for shown, meant in READ_AS.get(page.stem, {}).items():
            text = text.replace(shown, meant.format_map(_Facts(self.lake)))
        return text

    def shell(self, page: Path, lines: list[str]) -> None:
        """Run lines in a shell that knows what was exported on this page before."""
        state = self.folder / f"{page.stem}-state"
        if not state.exists() and page.stem in WRITES:
            shutil.copytree(self.folder / "lake", self.folder / f"lake-{page.stem}")
            lines = [f"export STEPWELL_LAKE=lake-{page.stem}", *lines]
        state.touch()
        script = "\n".join([f". ./{state.name}", "set -eo pipefail", *lines, "set +e", f"export -p > {state.name}"])
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}:\n{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def through(self, page: Path) -> None:
        """Run what is on a page, the files it shows before the commands that name them."""
        for block in sorted(blocks(page), key=lambda block: block.language != "yaml"):
            self.execute(page, block)

    def execute(self, page: Path, block: Block) -> None:
        """Run a block: one shell session and one Python namespace a page, SQL against the lake."""
        if block.mark == "skip" or block.language in SHOWN:
            return
        text = self.meant(page, block.text)
        if block.language == "python":
            with redirect_stdout(StringIO()):
                exec(compile(text, str(page), "exec"), self.names)
        elif block.language == "sql":
            assert len(run(connect(self.lake), text)), f"{page.name}: no row\n{text}"
        elif block.language == "yaml":
            settings(self.folder, page, text)
        else:
            left_out = NOT_RUN.get(page.stem, {})
            lines = [line for line in block.commands() if not any(w in f"{line}  " for w in left_out)]
            if lines:
                self.shell(page, [self.meant(page, line) for line in lines])


class _Facts(dict[str, Any]):
    """What is in a lake, looked up when a page names it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def __missing__(self, name: str) -> Any:
        if name == "evaluations":
            return sorted(set(self.lake.read("evaluations", columns=["evaluation_id"]).column(0).to_pylist()))
        table, column = {
            "row": ("datasets/mine", "row_id"), "file": ("sources", "path"), "repo": ("trajectories", "repo"),
            "trajectory": ("trajectories", "trajectory_id"), "event": ("events", "event_id"),
        }[name]  # fmt: skip
        return self.lake.read(table, columns=[column]).column(0)[0].as_py()


def settings(folder: Path, page: Path, text: str) -> None:
    """Read YAML as the program would: a price list (for the commands after it), a machine, a recipe."""
    if page.stem == "comparing":
        (folder / "prices.yaml").write_text(text)
    elif page.stem == "remote":
        (folder / "there.yaml").write_text(text)
        machines.load("there", folder)
    else:
        (folder / "recipes").mkdir(exist_ok=True)
        for file in recipe.RECIPES.glob("*.yaml"):
            (folder / "recipes" / file.name).write_bytes(file.read_bytes())
        shown = folder / "recipes" / f"of-{page.stem}.yaml"
        shown.write_text(text if "extends:" in text else f"extends: srft\n{text}")
        told = recipe.load(shown).model_dump()
        assert set(yaml.safe_load(text)) - {"extends"} <= set(told)


def prepare(folder: Path) -> None:
    """What pages speak of beside trajectories: a run with secrets, lists of secrets, tasks of a benchmark."""
    run = next((folder / "runs").rglob("*.json"))
    leaky = re.sub(r'("session_id": ?")', r"\1leaky-", run.read_text(), count=1)
    (folder / "leaky").mkdir()
    (folder / "leaky" / run.name).write_text(
        re.sub(r'("(?:content|message)": ?")', r"\1CORP-12345678 CORP-87654321 ", leaky, count=1)
    )
    (folder / "ours.env").write_text("KEY=CORP-12345678\n")
    (folder / "leaked.txt").write_text("CORP-12345678\n")
    task = {"instance_id": "acme__anvil-1", "repo": "acme/anvil", "problem_statement": "The anvil falls too slowly."}
    (folder / "bench.jsonl").write_text(json.dumps(task) + "\n")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A folder with trajectories in files, recipes and a base model, after the tutorial as far as it is quick."""
    folder = tmp_path_factory.mktemp("docs")
    there = Lake(folder / "elsewhere")
    noisy = Policy(kind="noisy", n_tasks=8, mistake_rate=0.5, recover_rate=0.7)
    assert collect_pool(
        there, Collect(corpus="pool", seed=3, policies=(noisy,)), World(functions=1, bugs_max=1, max_turns=8)
    ).complete
    export(there, Request("atif"), folder / "runs")
    prepare(folder)
    for name in ("jobs", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    with forked(folder) as programs:
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        one = Reader(
            folder, {**os.environ, "PATH": path, "STEPWELL_LAKE": "lake", "COLUMNS": "120", "HOME": str(folder)}
        )
        for block in blocks(DOCS / "tutorial.md"):
            if block.mark != "slow":
                one.execute(DOCS / "tutorial.md", block)
        yield one


@pytest.fixture(scope="module")
def trained(reader: Reader) -> Reader:
    """The same after the slow part of the tutorial: a trained model, two evaluations, a report."""
    for block in blocks(DOCS / "tutorial.md"):
        if block.mark == "slow":
            reader.execute(DOCS / "tutorial.md", block)
    return reader


def test_the_tutorial_makes_what_it_says(reader: Reader) -> None:
    assert (reader.folder / "longest.html").exists()
    assert (reader.folder / "tokens.html").exists()


@pytest.mark.parametrize("page", [p for p in WITH_BLOCKS if p.stem not in (*MODEL, "tutorial")], ids=lambda p: p.stem)
def test_the_blocks_of_a_page_run(page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.folder)
    reader.through(page)


@pytest.mark.slow
def test_the_slow_part_of_the_tutorial_makes_what_it_says(trained: Reader) -> None:
    assert "single run" in (trained.folder / "report.html").read_text()
    assert "<svg" in (trained.folder / "mine.svg").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in WITH_BLOCKS if p.stem in MODEL], ids=lambda p: p.stem)
def test_the_blocks_of_a_page_about_models_run(page: Path, trained: Reader) -> None:
    trained.through(page)


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    """A word of these lists that is on its page no longer is taken off the list; every language is known."""
    pages = {page.stem: page for page in WITH_BLOCKS}
    for listed in (NOT_RUN, READ_AS):
        for name, words in listed.items():
            text = "\n".join(block.text for block in blocks(pages[name]))
            assert not [word for word in words if listed is NOT_RUN and word not in text], name
            assert any(word in text for word in words), name
    for reasons in NOT_RUN.values():
        for test in re.findall(r"test_\w+\.py", " ".join(reasons.values())):
            assert (ROOT / "tests" / test).exists(), f"{test} is named and not there"
    for page in WITH_BLOCKS:
        for block in blocks(page):
            assert block.language in ("", "sh", "bash", "console", "python", "sql", "yaml", *SHOWN), page.name
            assert not block.mark or len(block.reason) > 10, page.name
