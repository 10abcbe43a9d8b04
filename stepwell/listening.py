"""What every server of the project asks before it listens, how it runs, and how it is told to stop.

Does not belong here: what is served (`proxy`, `live`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stepwell.errors import LakeError, UsageError
from stepwell.lake import Lake


class Keeping(Protocol):
    """Writes what is received: first to a journal, then to the lake."""

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


async def until_stopped(
    keeper: Keeping,
    server_of: Callable[[Callable[[BaseException], None]], Receiving],
    address: tuple[str, int],
    ready: Callable[[str], None],
    tell: Callable[[str], None],
    what: str,
) -> None:
    """Listen until SIGINT or SIGTERM, then write what waits.

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
            await server.close()
            try:
                await keeper.stop()
            except OSError as error:
                broken.append(error)
    if broken:
        raise LakeError(
            f"{what} can no longer be kept ({broken[0]}); what was acknowledged is in the journal. Make room, start again."
        )
