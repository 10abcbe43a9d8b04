"""What every server of the project asks before it listens, how it runs, and how it is told to stop.

Does not belong here: what is served (`proxy`, `live`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from stepwell.errors import LakeError, UsageError
from stepwell.fold import refresh
from stepwell.lake import Lake


class Keeping(Protocol):
    """Writes what is received: first to a journal, then to the lake."""

    lake: Lake

    async def start(self) -> int:
        """Take up what the journal holds; returns how much that is."""

    async def stop(self) -> None:
        """Write what waits; raises OSError when that cannot be done."""


class Receiving(Protocol):
    """Listens."""

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError when the address is taken."""

    async def close(self) -> None:
        """Take no more requests."""


def loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int) -> str:
    """The URL of an address that is listened on."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` in the running loop when SIGINT or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def journal_folder(given: Path | None, lake: Lake, name: str) -> Path:
    """Where a journal is kept: in the lake's folder unless said otherwise; raises UsageError for a lake elsewhere."""
    if given is None and not lake.local:
        raise UsageError(f"the journal needs a folder on this machine and the lake is {lake.uri!r}; give --journal.")
    return given or Path(lake.uri) / name


async def folding(
    lake: Lake, stopped: asyncio.Event, tell: Callable[[str], None], every: float = 3.0, most: float = 60.0
) -> None:
    """Fold what is new into `trajectories` and `steps` until told to stop, in a thread.

    Times in seconds: nothing new for `every` is quiet enough, and `most` is waited for quiet, and after a failure, which is
    told and stops nothing. After each fold four times as long as it took is left to everything else.
    """
    folded: int | None = None
    seen, since, wait = folded, time.monotonic(), every
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), wait)
        if stopped.is_set():
            return
        wait = every
        try:
            before, seen = seen, await asyncio.to_thread(lake.version, "events")
            begun = time.monotonic()
            if seen == folded:
                since = begun
            elif seen == before or begun - since >= most:
                await asyncio.to_thread(refresh, lake)
                folded, since = seen, time.monotonic()
                wait = max(every, 4 * (since - begun))
        except Exception as error:  # whatever a store can raise: the events are kept, and folded another time
            tell(f"trajectories and steps are not up to date, tried again in {most:g} s: {error}")
            wait = most


async def until_stopped(
    keeper: Keeping,
    server_of: Callable[[Callable[[BaseException], None]], Receiving],
    address: tuple[str, int],
    ready: Callable[[str], None],
    tell: Callable[[str], None],
    what: str,
) -> None:
    """Listen until SIGINT or SIGTERM, then write what waits; meanwhile folds are kept up to date.

    `server_of` is given what to call when nothing can be kept any more. `ready` is told the address once it listens; `tell`
    what goes wrong. Raises UsageError when the address is taken and LakeError when nothing could be kept any more: what was
    acknowledged is in the journal then.
    """
    stopped, broken = asyncio.Event(), list[BaseException]()

    def fatal(error: BaseException) -> None:
        broken.append(error)
        stopped.set()

    server = server_of(fatal)
    with stopping(stopped.set):
        folds = asyncio.create_task(folding(keeper.lake, stopped, tell))
        try:
            if found := await keeper.start():
                tell(f"{found} {what} of the journal taken up")
            try:
                port = await server.start(*address)
            except OSError as error:
                raise UsageError(
                    f"cannot listen on {address[0]}:{address[1]}: {error}; name another --port."
                ) from error
            ready(url_of(address[0], port))
            await stopped.wait()
        finally:
            stopped.set()
            await server.close()
            try:
                await keeper.stop()
            except OSError as error:
                broken.append(error)
            await folds
    if broken:
        raise LakeError(
            f"{what} can no longer be kept ({broken[0]}); what was acknowledged is in the journal. Make room, start again."
        )
