"""Rewards: what a critique is worth, and results of tests kept under what makes two solutions the same.

Belongs here: the format gate and the rules of CTRL (METHODS.md 2.2), the normal form of code, the file of results. Does not
belong here: running tests (`solutions`), advantages (they follow from the rewards of a group, in training).
"""

from __future__ import annotations

import ast
import builtins
import os
import sqlite3
import warnings
from pathlib import Path
from typing import Any, Literal

import orjson

from stepwell.ids import digest, sha256
from stepwell.lake import Lake

Rule = Literal["all", "mean"]
_TABLE = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_LOOKS_AT_NAMES = {"locals", "vars", "eval", "exec", "dir", "globals", "compile"}
_LARGEST = 1 << 16


def reward(judged: bool, resolved: bool, score: float, rule: Rule) -> float:
    """0 without a judgment (the format gate), else whether all tests pass, or the share of them that do."""
    return (float(resolved) if rule == "all" else score) if judged else 0.0


def ast_hash(code: str) -> str:
    """sha256 of the syntax tree with the variables of each function numbered in the order they come.

    Not renamed: parameters (they may be named in calls), what the module or the language defines, and everything in a
    program that looks names up as text. What is no Python is taken as text. Two programs with the same hash do the same.
    """
    try:
        if len(code) > _LARGEST:
            raise ValueError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
        if not any(isinstance(n, ast.Name) and n.id in _LOOKS_AT_NAMES for n in ast.walk(tree)):
            _rename(tree)
        return sha256(ast.dump(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return sha256(f"text:{code}")


def _rename(tree: ast.Module) -> None:
    kept = set(dir(builtins)) | {node.id for node in _outside(tree) if isinstance(node, ast.Name)}
    kept |= {name for node in ast.walk(tree) for name in _named(node)}
    for function in [n for n in _outside(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]:
        stored = {
            n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
        } - kept
        numbers: dict[str, str] = {}
        for n in ast.walk(function):
            if isinstance(n, ast.Name) and n.id in stored:
                n.id = numbers.setdefault(n.id, f"#{len(numbers)}")


def _outside(tree: ast.AST) -> list[ast.AST]:
    """Every node that is in no function (functions themselves included)."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += _outside(node)
    return found


def _named(node: ast.AST) -> list[str]:
    """Names a node holds as text, other than by a Name."""
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    if isinstance(node, ast.Global | ast.Nonlocal):
        return node.names
    found = [getattr(node, field, None) for field in ("name", "rest", "arg")]
    return [name for name in found if isinstance(name, str)]


def place(lake: Lake) -> Path:
    """`.cache/results.sqlite` inside a local lake, else a file of that lake in the user's cache folder."""
    if lake.local:
        return Path(lake.uri) / ".cache" / "results.sqlite"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "stepwell" / f"results-{digest(lake.uri)[:12]}.sqlite"


class Results:
    """Results of tests by solution, in one SQLite file that several processes may share."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute(_TABLE)

    def get(self, key: str) -> Any | None:
        """What is kept under a key."""
        row = self.db.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else orjson.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a result; when this returns it survives the death of the process."""
        self.db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, orjson.dumps(value)))

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
