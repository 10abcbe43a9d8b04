"""The command `proxy`: records the model calls of harnesses that point their base URL at it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output
from stepwell.cli.listening import listening
from stepwell.fold import refresh
from stepwell.proxy.recorder import Counts, Recorder
from stepwell.proxy.run import Settings, serve


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("proxy")(proxy_command)


def proxy_command(
    upstream: Annotated[
        str, typer.Option("--upstream", help="Base URL of the server, such as http://127.0.0.1:8000/v1.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than loopback need --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 8484,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="STEPWELL_PROXY_TOKEN", help="What clients must give as their API key."),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", help="Variable with the upstream's key; default: clients' keys are passed on."),
    ] = None,
    idle: Annotated[
        float, typer.Option("--idle", min=0.1, help="Seconds without a call after which a trajectory has ended.")
    ] = 3600.0,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between commits to the lake.")] = 10.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Events that make a commit before that.")] = 1000,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds the upstream may be silent.")] = 600.0,
    max_body: Annotated[float, typer.Option("--max-body", min=0.01, help="Largest request and reply, in MB.")] = 64.0,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Folder of the journal; default: .proxy in the lake's folder.")
    ] = None,
    keep_secrets: Annotated[bool, typer.Option("--keep-secrets", help="Record secrets as they are.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Pass model calls on to an OpenAI-compatible server and record them as trajectories, until Ctrl-C.

    Base URL of a harness: http://127.0.0.1:8484/CORPUS/TASK/ATTEMPT/v1, or .../CORPUS/v1 to tell trajectories apart by
    how their conversations begin. `POST .../CORPUS/TASK/ATTEMPT/end` says how one ended.

    Example: `stepwell proxy --upstream http://127.0.0.1:8000/v1`
    """
    most = int(max_body * 1e6)
    settings = Settings(upstream, host, port, token, key_env, idle, every, batch, timeout, most, journal, keep_secrets)
    opened = open_lake(lake)
    counts = listening(partial(serve, opened, settings), _shown, f", passing on to {upstream}")
    refresh(opened)
    if json:
        emit(vars(counts))
    else:
        output.print(_line(counts), markup=False, highlight=False)


def _shown(recorder: Recorder) -> str:
    return _line(recorder.counts)


def _line(c: Counts) -> str:
    told = f"{c.calls} calls, {c.tokens_in} tokens in, {c.tokens_out} out, {c.trajectories} trajectories"
    return f"{told} ({c.ended} ended), {c.failed} failed calls, {c.rejected} rejected, {c.events} events in the lake"
