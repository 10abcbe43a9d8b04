"""The reference pages of the docs: commands, settings of recipes and prompts, written from what they are made of.

    python -m stepwell.cli.reference        (writes docs/cli.md, docs/recipes.md and docs/prompts.md; `make docs`)

Belongs here: turning declarations into Markdown. A test requires the committed pages to be what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stepwell.cli import build_app
from stepwell.critics import prompts, taxonomy
from stepwell.recipe import Recipe, load, names

DOCS = Path("docs")
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}


def cli() -> str:
    """The page of commands: what `--help` says, and how they end."""
    lines = ["# Commands", "", *_written(), *_EXITS]
    for name, command in commands():
        lines += ["", f"## stepwell {name}", "", *_paragraphs(command.help or ""), *_options(command)]
    return "\n".join(lines) + "\n"


def commands() -> list[tuple[str, Any]]:
    """Every command of the program with its full name, in alphabetical order."""
    return sorted(_walk(typer.main.get_command(build_app()), ""))


def recipes() -> str:
    """The page of recipes: those that come with Stepwell, then every section with its settings."""
    lines = ["# Recipes", "", *_written(), *_RECIPES]
    for name in names():
        recipe = load(f"jobs/recipes/{name}.yaml")
        lines.append(f"| `{name}` | {recipe.title} |")
    for model in _models(Recipe, []):
        lines += ["", f"## {model.__name__}", "", *_paragraphs(inspect.getdoc(model) or ""), ""]
        lines += ["| setting | type | default |", "|---|---|---|"]
        lines += [f"| `{name}` | {_type(field)} | {_default(field)} |" for name, field in model.model_fields.items()]
    return "\n".join(lines) + "\n"


def prompt_page() -> str:
    """The page of prompts and taxonomies, as critics are told them."""
    lines = ["# Prompts", "", *_written(), *_PROMPTS]
    for name in prompts.names():
        prompt = prompts.load(name)
        of = f" Taxonomy `{prompt.taxonomy}`." if prompt.taxonomy else ""
        lines += ["", f"## {name}", "", f"`{prompt.id}`, kind `{prompt.kind}`.{of} {prompt.description}"]
        for title, text in (("system", prompt.system), ("request", prompt.request), ("budget", prompt.budget)):
            if text:
                lines += ["", f"{title}:", "", *(f"    {line}".rstrip() for line in text.splitlines())]
    for name in taxonomy.names():
        found = taxonomy.load(name)
        lines += ["", f"## Taxonomy {name}", "", f"`{found.id}`", "", "| category | group | definition | recovery |"]
        lines += ["|---|---|---|---|"]
        for one in found.categories:
            lines.append(f"| {_cell(one.name)} | {one.group} | {_cell(one.definition)} | {_cell(one.recovery)} |")
    return "\n".join(lines) + "\n"


PAGES = {"cli.md": cli, "recipes.md": recipes, "prompts.md": prompt_page}

_EXITS = """
Every command takes `--help`. Most take `--lake URI` (default `$STEPWELL_LAKE`, else `./lake`; [addresses](operations.md)) and
`--json`: one JSON document on standard output, everything else on standard error. `stepwell --install-completion` makes the
shell complete commands and options (bash, zsh, fish, PowerShell); `stepwell --show-completion` prints what it would install.

| exit status | means |
|---|---|
| 0 | it did what was asked |
| 1 | it could not: a broken lake, an unfinished run, a problem found (`verify`, `doctor`); the message says what to do |
| 2 | wrong usage: an unknown name, option or recipe; the message lists what is allowed |
| 130 | interrupted with Ctrl-C; what was finished is kept (`watch`, `serve` and `proxy` end with 0) |
""".strip().splitlines()
_RECIPES = """
A recipe is a YAML file in `jobs/recipes`, or anywhere: a command that takes a recipe takes a name or a path. `extends: NAME`
takes another file's settings as defaults, merged section by section. A setting that is not declared here is an error that
names those that are.

| recipe | |
|---|---|
""".strip().splitlines()
_PROMPTS = """
Prompts are YAML files in `stepwell/critics/prompts`, or anywhere: `stepwell judge --prompt` takes a name or a path. The id of a
prompt carries a hash of all it renders and is recorded with every verdict. How they are filled in is told in
[critics](critics.md).
""".strip().splitlines()


def _written() -> list[str]:
    return ["Written by `make docs` from what it describes; do not edit.", ""]


def _walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, inner in below.items():
        yield from _walk(inner, f"{name} {word}".strip())


def _paragraphs(text: str) -> list[str]:
    """Text as it stands, with every example on a line of its own."""
    return re.sub(r"\n+(Example:)", r"\n\n\1", inspect.cleandoc(text)).splitlines()


def _options(command: Any) -> list[str]:
    rows = []
    for option in command.params:
        if option.name == "help":
            continue
        argument = option.param_type_name == "argument"
        called = f"`{option.name.upper()}`" if argument else ", ".join(f"`{name}`" for name in option.opts)
        of = "" if getattr(option, "is_flag", False) else _kind(option.type_descriptor.annotation)
        default = getattr(option.default, "value", option.default)
        said = "" if default in (None, False, "", ()) or callable(default) else f" Default: {default}."
        required = " Required." if option.required else ""
        rows.append(f"| {called} | {of} | {_cell(option.help or '')}{said}{required} |")
    return ["", "| | | |", "|---|---|---|", *rows] if rows else []


def _kind(annotation: Any) -> str:
    """What an option takes: the choices, or the name of a type."""
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return ", ".join(f"`{choice.value}`" for choice in annotation)
    inner = get_args(annotation)
    return (
        f"{_kind(inner[0])}, repeated"
        if inner
        else {"str": "text", "int": "number", "float": "number"}.get(annotation.__name__, annotation.__name__.lower())
    )


def _models(model: type[BaseModel], known: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """A section and every section in it, each once, in the order they are declared."""
    if model not in known:
        known.append(model)
        for field in model.model_fields.values():
            for inner in _inside(field.annotation):
                _models(inner, known)
    return known


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def _type(field: FieldInfo) -> str:
    text = str(
        field.annotation if get_args(field.annotation) else getattr(field.annotation, "__name__", field.annotation)
    )
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("typing.", "").replace("NoneType", "none")
    text = re.sub(r"\bLiteral\[([^\]]*)\]", lambda m: m[1].replace("'", "`"), text).replace("None", "none")
    for inner in dict.fromkeys(_inside(field.annotation)):
        text = re.sub(rf"\b{inner.__name__}\b", f"[{inner.__name__}](#{inner.__name__.lower()})", text)
    bounds = ((sign, getattr(m, name)) for m in field.metadata for name, sign in _SIGNS.items() if hasattr(m, name))
    limits = ", ".join(f"{sign} {bound}" for sign, bound in bounds)
    return _cell(text + (f" ({limits})" if limits else ""))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel) or default is PydanticUndefined:
        return "as below"
    return f"`{default!r}`" if default not in (None, (), {}) else "none"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
