"""Detectors by equality: each gives a task the keys it is known by; two tasks with a key in common are a pair."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit

from stepwell.contamination.tasks import Task
from stepwell.contamination.text import normalised
from stepwell.ids import sha256

MIN_WORDS = 8
"""Words from which on a statement can be told from another; `Fix the bug.` is asked of many tasks."""
_CODEFORCES = re.compile(r"/(?:contest|gym)/(\d+)/problem/(\w+)|/problemset/problem/(\d+)/(\w+)")
_SHOWN = re.compile(r"utm_\w+|ref|lang|language|locale|hl|tab|view", re.IGNORECASE)
"""Parameters of an address that say how a page is shown; others may name the problem (`problem?id=1000`)."""


def identity(task: Task) -> set[str]:
    """The same id in the same task set, or an id written `owner__name-number` (SWE-bench), which says all itself."""
    name = task.task_id.strip().lower()
    keys = {f"{task.named.lower()}\n{name}"} if name and task.named else set()
    return keys | ({name} if re.search(r"\w__\w.*\d", name) else set())


def source(task: Task) -> set[str]:
    """Where it was published: host, path and what it asks for, or contest and problem where two addresses show one."""
    if not task.url:
        return set()
    try:
        parts = urlsplit(task.url if "//" in task.url else f"//{task.url}")
    except ValueError:
        return set()  # no address, such as one of which a part was redacted
    host, path = parts.netloc.lower().removeprefix("www.").removeprefix("m1."), parts.path.rstrip("/").lower()
    if host.endswith("codeforces.com") and (found := _CODEFORCES.search(path)):
        return {f"codeforces {found[1] or found[3]} {found[2] or found[4]}"}
    asked = sorted(pair for pair in parse_qsl(parts.query) if not _SHOWN.fullmatch(pair[0]))
    return {f"{host}{path}{'?' if asked else ''}{urlencode(asked)}"} if host and (path or asked) else set()


def exact(task: Task) -> set[str]:
    """The statement to the letter."""
    return {sha256(task.statement)} if _tells(task) else set()


def normal(task: Task) -> set[str]:
    """The statement without case, white space, punctuation and LaTeX layout."""
    return {sha256(normalised(task.statement))} if _tells(task) else set()


def tests(task: Task) -> set[str]:
    """The hidden tests as a whole, by hash."""
    return set(task.tests)


def solution(task: Task) -> set[str]:
    """The reference solution or gold patch, by hash."""
    return set(task.solutions)


def syntax(task: Task) -> set[str]:
    """The reference solution's syntax tree in normal form, by hash."""
    return set(task.trees)


def _tells(task: Task) -> bool:
    return len(normalised(task.statement).split()) >= MIN_WORDS


KEYS: dict[str, Callable[[Task], set[str]]] = {
    "identity": identity,
    "source": source,
    "exact": exact,
    "normalised": normal,
    "tests": tests,
    "solution": solution,
    "syntax": syntax,
}
