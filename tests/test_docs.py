"""The documentation tells the truth: blocks run, commands exist, links lead somewhere, generated pages are current.

Of a page that is run, every `sh`, `python` and `sql` block is executed in order in one temporary folder with a lake of real
rollouts. A comment before a block, `<!-- test: skip, REASON -->` or `<!-- test: slow, REASON -->`, says what is not run,
or only with the slow tests. On every page, whatever else is shown, each `stepwell` command must be one the program has.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stepwell.cli import reference
from stepwell.exporters.run import Request, export
from stepwell.lake import Lake
from stepwell.query import connect, run
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md"), ROOT / "README.md"])
RUN = ("tutorial", "concepts", "methods", "python", "operations")
"""Pages that are run; the others show output of experiments, or need what a test must not use, and have tests of their own."""
REASONS = {
    **dict.fromkeys(("index", "security", "peers"), "no block"),
    **dict.fromkeys(("cli", "recipes", "prompts", "schema", "formats"), "generated"),
    "LOG": "figures of experiments",
    "remote": "needs other machines",
    "comparing": "test_compare.py",
    "contamination": "test_contamination.py",
    "critics": "test_judging.py",
    "ctrl": "test_revision.py",
    "curation": "test_curation.py",
    "dagger": "test_dagger.py",
    "datasets": "test_dataset_methods.py",
    "export": "test_export.py",
    "lineage": "test_lineage.py",
    "live": "test_watch.py, test_serve.py",
    "proxy": "test_proxy.py",
    "rendering": "test_rendering.py",
    "rollouts": "test_collect.py",
    "sandbox": "test_sandbox.py",
    "secrets": "test_redaction.py",
    "sql": "test_query.py, test_shell.py",
    "training": "test_training.py",
    "viewing": "test_view.py",
}
_FENCE = re.compile(r"(?:<!-- test: (skip|slow), ([^>]+?) -->\n)?^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ |    |    \$ )?(stepwell .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and what the page says of running it."""

    language: str
    text: str
    mark: str
    reason: str


def blocks(page: Path) -> Iterator[Block]:
    for mark, reason, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        yield Block(language, text, mark, reason)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: `runs` with trajectories in files, the project's recipes and base model, no lake yet."""
    made = tmp_path_factory.mktemp("docs")
    there = Lake(made / "elsewhere")
    noisy = Policy(kind="noisy", n_tasks=8, mistake_rate=0.5, recover_rate=0.7)
    assert collect_pool(
        there, Collect(corpus="pool", seed=3, policies=(noisy,)), World(functions=1, bugs_max=1, max_turns=8)
    ).complete
    export(there, Request("atif"), made / "runs")
    for name in ("jobs", "requirements.lock"):
        (made / name).symlink_to(ROOT / name)
    return made


def execute(page: Path, folder: Path, slow: bool) -> None:
    """Run the blocks of a page in order: one shell session, one Python namespace, SQL against the lake of the page."""
    names: dict[str, Any] = {}
    state = folder / "shell-state"
    state.touch()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "STEPWELL_LAKE": "lake", "COLUMNS": "120"}
    for block in blocks(page):
        if block.mark == "skip" or (block.mark == "slow" and not slow):
            continue
        if block.language == "sh":
            script = f". ./shell-state\nset -eo pipefail\n{block.text}\nset +e\nexport -p > shell-state"
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
            assert done.returncode == 0, f"{page.name}:\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        elif block.language == "python":
            with redirect_stdout(StringIO()):
                exec(compile(block.text, str(page), "exec"), names)
        elif block.language == "sql":
            assert len(run(connect(Lake(folder / "lake")), block.text)), f"{page.name}: no row\n{block.text}"


@pytest.fixture(scope="module")
def read(folder: Path) -> Path:
    """The folder after a reader has gone through the tutorial as far as it is quick."""
    execute(DOCS / "tutorial.md", folder, slow=False)
    return folder


@pytest.mark.parametrize("name", RUN)
def test_the_blocks_of_a_page_run(name: str, read: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(read)
    if name == "tutorial":
        assert (read / "longest.html").exists()
        assert (read / "tokens.html").exists()
    else:
        execute(DOCS / f"{name}.md", read, slow=False)


@pytest.mark.slow
def test_the_whole_tutorial_runs(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "reader"
    again.mkdir()
    for name in ("runs", "jobs", "requirements.lock"):
        (again / name).symlink_to(folder / name)
    execute(DOCS / "tutorial.md", again, slow=True)
    assert "single run" in (again / "report.html").read_text()
    assert "<svg" in (again / "mine.svg").read_text()


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    named = {page.stem for page in DOCS.glob("*.md")}
    assert named == {*RUN, *REASONS}, "a new page is run (RUN), or it is said here why not (REASONS)"
    for name in RUN:
        for block in blocks(DOCS / f"{name}.md"):
            assert block.language, f"{name}: a block without a language cannot be run\n{block.text}"
            assert block.language in ("sh", "python", "sql") or block.mark == "skip", (
                f"{name}: {block.language} is not run"
            )
            assert not block.mark or len(block.reason) > 10
    for reason in REASONS.values():
        for test in re.findall(r"test_\w+\.py", reason):
            assert (ROOT / "tests" / test).exists(), f"{test} is named and not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_is_one_the_program_has(page: Path) -> None:
    known = dict(reference.commands())
    text = page.read_text(encoding="utf-8")
    shown = [block.text for block in blocks(page)] + re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    inline = re.findall(r"`(stepwell [^`\n]+)`", text)
    for line in [*(m for part in shown for m in _COMMAND.findall(part)), *inline]:
        line = re.split(r"\s+#|\s{3,}|\s[|>&;]|\)$", line.replace("\\\n", " "))[0]
        try:
            words = shlex.split(line)[1:]
        except ValueError:
            continue  # a statement over several lines: its first words are all that could be looked at
        name = next((n for n in (" ".join(words[:2]), words[0] if words else "") if n in known), None)
        options = [w.partition("=")[0] for w in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", w)]
        if name is None:
            command = words[0] if words else ""
            placeholder = not re.fullmatch(r"[a-z]+", command) or (command == "annotate" and len(words) == 1)
            assert placeholder, f"{page.name}: no command {command!r} in `{line}`"
            continue
        allowed = {opt for param in known[name].params for opt in (*param.opts, *param.secondary_opts)} | {"--help"}
        assert set(options) <= allowed, f"{page.name}: `{line}` has {sorted(set(options) - allowed)}"


def anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target} names no heading of {file.name}"


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_the_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == reference.PAGES[name](), "run `make docs`"


def test_the_site_is_built_whole_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", str(DOCS / "site" / "mkdocs.yml")]
    command += ["-d", str(tmp_path / "site")]
    hush = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=hush, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {p.stem for p in pages} >= {page.stem for page in DOCS.glob("*.md")}
    for page in pages:
        loading = "".join(re.findall(r"<(?:script|link|img)[^>]*>", page.read_text()))
        fetched = re.findall(r"""(?:src|href)=["'](https?://[^"']+)""", loading)
        assert not fetched, f"{page.name} fetches {fetched}"
