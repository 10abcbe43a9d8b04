"""The command `serve`: receives events and spans over HTTP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output
from stepwell.cli.listening import listening
from stepwell.fold import refresh
from stepwell.live.keeping import Counts, Keeper
from stepwell.live.serving import Settings, serve


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("serve")(serve_command)


def serve_command(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than loopback need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 0,
    token_env: Annotated[
        str | None, typer.Option("--token-env", help="Variable with the token that clients must give.")
    ] = None,
    idle: Annotated[
        float,
        typer.Option("--idle", min=0.1, help="Seconds of silence after which a trajectory is closed as unfinished."),
    ] = 3600.0,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between commits to the lake.")] = 2.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Events that make a commit before that.")] = 1000,
    max_queue: Annotated[
        int,
        typer.Option("--max-queue", min=1, help="Events that may wait for the lake before senders are told to wait."),
    ] = 100_000,
    max_body: Annotated[float, typer.Option("--max-body", min=0.01, help="Largest unpacked body, in MB.")] = 32.0,
    corpus: Annotated[str, typer.Option("--corpus", help="Corpus of received traces; events name theirs.")] = "traces",
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Folder of the journal; default: .serve in the lake's folder.")
    ] = None,
    keep_secrets: Annotated[bool, typer.Option("--keep-secrets", help="Write secrets as they are.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Receive events (POST /v1/events) and OpenTelemetry traces (POST /v1/traces) until Ctrl-C; GET /openapi.json says how.

    Example: `stepwell serve --port 8585`
    """
    settings = Settings(
        host, port, token_env, idle, every, batch, max_queue, int(max_body * 1e6), corpus, journal, keep_secrets
    )
    opened = open_lake(lake)
    counts = listening(partial(serve, opened, settings), _shown)
    refresh(opened)
    if json:
        emit(vars(counts))
    else:
        output.print(_line(counts), markup=False, highlight=False)


def _shown(keeper: Keeper) -> str:
    return f"{_line(keeper.counts)}, {keeper.n_waiting} wait"


def _line(c: Counts) -> str:
    told = f"{c.requests} requests, {c.received} events and {c.spans} spans received, {c.events} new in the lake"
    return f"{told}, {c.rejected} rejected, {c.closed} closed as unfinished"
