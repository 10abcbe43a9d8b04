"""The documentation tells the truth: commands exist, links lead somewhere, generated pages are current, the site is whole.

That what it shows runs is `test_docs_run.py`. Here each `stepwell` command of every page, run or not, in a block or in a
sentence, must be one that the program has, with the options it has.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import DOCS, PAGES, ROOT, blocks

from stepwell.cli import reference

_COMMAND = re.compile(r"^(?:\$ |    |    \$ )?(stepwell .*)$", re.MULTILINE)


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
