"""A server from its start to its clean end: what the command and the tests run.

Does not belong here: options and what is shown (`stepwell.cli.serving`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stepwell.errors import UsageError
from stepwell.ids import unfit_corpus
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.listening import journal_folder, loopback, until_stopped
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
        if why := unfit_corpus(self.corpus):
            raise UsageError(why)

    @property
    def token(self) -> str | None:
        """What clients must give; None: nothing."""
        return os.environ.get(self.token_env) if self.token_env else None

    def folder(self, lake: Lake) -> Path:
        """Where the journal is kept: in the lake's folder unless said otherwise."""
        return journal_folder(self.journal, lake, ".serve")


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
    keeper = Keeper(
        lake, Journal(settings.folder(lake)), idle=settings.idle, every=settings.every, batch=settings.batch,
        most_events=settings.max_queue, corpus=settings.corpus, tell=tell,
        redactor=None if settings.keep_secrets else redactor_of(lake),
    )  # fmt: skip

    def server(fatal: Callable[[BaseException], None]) -> Server:
        return Server(keeper, token=settings.token, most=settings.most_bytes, fatal=fatal)

    address = (settings.host, settings.port)
    await until_stopped(keeper, server, address, lambda url: ready(url, keeper), tell, "requests")
    return keeper.counts
