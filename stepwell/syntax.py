"""The normal form of Python code: what makes two solutions the same, for any stage.

Belongs here: hashes of syntax trees, finding code in a reply. Does not belong here: running code (`rollout.solutions`).
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterator

from stepwell.ids import sha256

_LOOKS_AT_NAMES = {"locals", "vars", "eval", "exec", "dir", "globals", "compile"}
_LARGEST = 1 << 16
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n(.*?)\n\s*\1\b", re.DOTALL)


def ast_hash(code: str) -> str:
    """sha256 of the syntax tree with the variables of each function numbered in the order they come.

    Not renamed: parameters (they may be named in calls), what the module or the language defines, and everything in a
    program that looks names up as text. What is no Python is taken as text. Two programs with the same hash do the same.
    """
    tree = parsed(code)
    if tree is None:
        return sha256(f"text:{code}")
    try:
        if not any(isinstance(n, ast.Name) and n.id in _LOOKS_AT_NAMES for n in ast.walk(tree)):
            _rename(tree)
        return sha256(ast.dump(tree))
    except (ValueError, RecursionError, MemoryError):
        return sha256(f"text:{code}")


def n_nodes(code: str) -> int:
    """Nodes of the syntax tree; 0 for what is no Python. Short programs are alike by chance."""
    tree = parsed(code)
    return 0 if tree is None else sum(1 for _ in ast.walk(tree))


def blocks(text: str) -> Iterator[str]:
    """Code inside a reply: fenced blocks, and what a shell command writes into a file by a here-document."""
    for pattern, group in ((_FENCE, 1), (_HEREDOC, 2)):
        for found in pattern.finditer(text):
            yield found[group]


def parsed(code: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python, is too deep, or is longer than 64 KiB."""
    try:
        if len(code) > _LARGEST:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


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
