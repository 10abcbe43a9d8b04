"""Commands that look: sql and questions (`asking`), trace and impact (`tracing`), status and doctor (`health`)."""

from __future__ import annotations

import typer

from stepwell.cli import asking, health, tracing


def register(app: typer.Typer) -> None:
    """Add the commands of the three modules beside it."""
    for group in (asking, tracing, health):
        group.register(app)
