"""What the commands that listen show while they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stepwell.cli.common import console

Keeper = TypeVar("Keeper")
Counts = TypeVar("Counts")
Serve = Callable[[Callable[[str, Keeper], None], Callable[[str], None]], Awaitable[Counts]]


def listening(serve: Serve[Keeper, Counts], line: Callable[[Keeper], str], also: str = "") -> Counts:
    """Serve until told to stop, with a line of progress about what was kept; returns what `serve` does.

    `serve` is given whom to tell the address and the keeper, and whom to tell what goes wrong; `also` follows the address.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("starting", total=None)

        def tell(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

        async def show(keeper: Keeper) -> None:
            while True:
                progress.update(shown, description=line(keeper))
                await asyncio.sleep(0.5)

        async def main() -> Counts:
            tasks: list[asyncio.Task[None]] = []

            def ready(url: str, keeper: Keeper) -> None:
                tasks.append(asyncio.create_task(show(keeper)))
                tell(f"listening on {url}{also}")

            try:
                return await serve(ready, tell)
            finally:
                for task in tasks:
                    task.cancel()

        return asyncio.run(main())
