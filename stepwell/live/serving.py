"""A server from its start to its clean end: what the command and the tests run.

Does not belong here: options and what is shown (`stepwell.cli.serving`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stepwell.errors import LakeError, UsageError
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.listening import loopback, stopping, url_of
from stepwell.live.keeping import Counts, Keeper
from stepwell.live.server import Server
from stepwell.secrets.redact import redactor_of


@dataclass(frozen=True)
class Settings:
    """Where to listen and what to keep; times in seconds. Raises UsageError for what cannot be served as asked."""

    host: str = "127.0.0.1"
    port: int = 0
    token_env: str | None = None
    idle: float = 3600.0
    every: float = 2.0
    batch: int = 1000
    max_queue: int = 100_000
    most_bytes: int = 32 << 20
    corpus: str = "traces"
    journal: Path | None = None
    keep_secrets: bool = False

    def __post_init__(self) -> None:
        if self.token_env and not self.token:
            raise UsageError(f"no token in ${self.token_env}; set it, or leave --token-env out.")
        if not self.token and not loopback(self.host):
            raise UsageError(f"{self.host!r} can be reached from elsewhere; give --token-env, or listen on 127.0.0.1.")

    @property
    def token(self) -> str | None:
        """What clients must give; None: nothing."""
        return os.environ.get(self.token_env) if self.token_env else None

    def folder(self, lake: Lake) -> Path:
        """Where the journal is kept: in the lake's folder unless said otherwise."""
        if self.journal is None and not lake.local:
            raise UsageError(
                f"the journal needs a folder on this machine and the lake is {lake.uri!r}; give --journal."
            )
        return self.journal or Path(lake.uri) / ".serve"


async def serve(
    lake: Lake,
    settings: Settings,
    ready: Callable[[str, Keeper], None] = lambda url, keeper: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Counts:
    """Receive until SIGINT or SIGTERM, then write what waits; returns what was received.

    `ready` is told the address once it listens; `tell` what goes wrong. Raises UsageError when the address or the journal
    is taken and LakeError when nothing can be kept any more; what was acknowledged is in the journal then.
    """
    stopped, broken = asyncio.Event(), list[BaseException]()

    def fatal(error: BaseException) -> None:
        broken.append(error)
        stopped.set()

    keeper = Keeper(
        lake, Journal(settings.folder(lake)), idle=settings.idle, every=settings.every, batch=settings.batch,
        most_events=settings.max_queue, corpus=settings.corpus, tell=tell,
        redactor=None if settings.keep_secrets else redactor_of(lake),
    )  # fmt: skip
    server = Server(keeper, token=settings.token, most=settings.most_bytes, fatal=fatal)
    with stopping(stopped.set):
        try:
            if found := await keeper.start():
                tell(f"{found} requests of the journal taken up")
            try:
                port = await server.start(settings.host, settings.port)
            except OSError as error:
                raise UsageError(
                    f"cannot listen on {settings.host}:{settings.port}: {error}; name another --port."
                ) from error
            ready(url_of(settings.host, port), keeper)
            await stopped.wait()
        finally:
            await server.close()
            try:
                await keeper.stop()
            except OSError as error:
                broken.append(error)
    if broken:
        raise LakeError(
            f"events can no longer be kept ({broken[0]}); what was acknowledged is in the journal. Make room, start again."
        )
    return keeper.counts
