"""What every command shares: the program, its consoles, and the `--lake` and `--json` options."""

from __future__ import annotations

import os
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from stepwell.lake import Lake

app = typer.Typer(
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
console = Console(stderr=True)
output = Console()

LakeOption = Annotated[str, typer.Option("--lake", help="Lake URI; default $STEPWELL_LAKE, else ./lake.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, messages on standard error.")
]
DEFAULT_LAKE = ""


def open_lake(uri: str) -> Lake:
    """The lake named by the option, the environment or the default folder."""
    return Lake(uri or os.environ.get("STEPWELL_LAKE") or "lake")


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    print(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


@app.callback()
def program() -> None:
    """Every step an agent ever took as an event; every training set derived from them by replay."""
