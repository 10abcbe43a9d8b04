"""The command `view`: trajectories in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, console, emit, open_lake, output, writing
from stepwell.display import plain
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.viewing.document import document
from stepwell.viewing.page import page
from stepwell.viewing.server import Viewer


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("view")(view_command)


def view_command(
    trajectories: Annotated[
        list[str] | None,
        typer.Argument(help="Trajectory id, or the beginning of one; two are shown side by side. None: the list."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write one self-contained .html instead of serving.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    tokens: Annotated[bool, typer.Option(help="Show dataset rows down to the token.")] = True,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Show trajectories in a browser: every step with what was said of it, what is trained, and how it ended.

    Example: `stepwell view 8dbb9193 -o judged.html`
    """
    opened, names = open_lake(lake), trajectories or []
    if out is not None:
        write_page(opened, names, out, tokens=tokens, json=json)
        if browser:
            webbrowser.open(out.resolve().as_uri())
        return
    ids = [run["id"] for run in document(opened, names, tokens=False)["runs"]] if names else []
    try:
        server = Viewer(opened, port)
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be had ({error.strerror}); choose another with --port, or none."
        ) from error
    with server:
        address = server.address(ids)
        if json:
            emit({"url": address, "lake": opened.uri})
        else:
            output.print(address, markup=False, highlight=False, soft_wrap=True)
            console.print("Ctrl-C ends it.", highlight=False)
        if browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def write_page(lake: Lake, names: list[str], out: Path, tokens: bool = True, json: bool = False) -> None:
    """Write the page of one trajectory, or of two, and say what is on it. Raises UsageError."""
    if out.suffix != ".html":
        raise UsageError(f"--out {str(out)!r} ends in {out.suffix!r}; allowed: .html. Rename it.")
    made = document(lake, names, tokens)
    with writing(out):
        out.write_text(page(made).html, encoding="utf-8")
    ids = [run["id"] for run in made["runs"]]
    events = [event for run in made["runs"] for event in run["events"]]
    n_steps = sum(
        len({event["step"] for event in run["events"] if event["kind"] in ("action", "attempt")})
        for run in made["runs"]
    )
    raters = sorted({str(event.get("policy")) for event in events if event["kind"] == "verdict"})
    if json:
        emit({"out": str(out), "trajectories": ids, "steps": n_steps, "raters": raters})
    else:
        told = plain(f"{out}: {n_steps} steps, {', '.join(raters) or 'nobody judged them'}")
        output.print(told, markup=False, highlight=False, soft_wrap=True)
