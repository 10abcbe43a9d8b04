"""A proxy from its start to its clean end: what the command and the tests run.

Does not belong here: options and what is shown (`stepwell.cli.proxy`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stepwell.errors import UsageError
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.listening import journal_folder, loopback, until_stopped
from stepwell.proxy.recorder import Counts, Recorder
from stepwell.proxy.server import Proxy
from stepwell.secrets.redact import redactor_of


@dataclass(frozen=True)
class Settings:
    """Where to listen and what to keep; times in seconds. Raises UsageError for what cannot be served as asked."""

    upstream: str
    host: str = "127.0.0.1"
    port: int = 8484
    token: str | None = None
    key_env: str | None = None
    idle: float = 3600.0
    every: float = 10.0
    batch: int = 1000
    timeout: float = 600.0
    most_bytes: int = 64 << 20
    journal: Path | None = None
    keep_secrets: bool = False

    def __post_init__(self) -> None:
        at = urlsplit(self.upstream)
        if at.scheme not in ("http", "https") or not at.hostname:
            raise UsageError(f"upstream {self.upstream!r} is no base URL; give one such as http://127.0.0.1:8000/v1.")
        if not self.token and not loopback(self.host):
            raise UsageError(f"{self.host!r} can be reached from elsewhere; give --token, or listen on 127.0.0.1.")
        if self.key_env and not os.environ.get(self.key_env):
            raise UsageError(f"no key in ${self.key_env}; set it, or leave --key-env out to pass on the clients' keys.")

    def folder(self, lake: Lake) -> Path:
        """Where the journal is kept: in the lake's folder unless said otherwise."""
        return journal_folder(self.journal, lake, ".proxy")


async def serve(
    lake: Lake,
    settings: Settings,
    ready: Callable[[str, Recorder], None] = lambda url, recorder: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Counts:
    """Record until SIGINT or SIGTERM, then write what waits; returns what was recorded.

    `ready` is told the address once it listens; `tell` what goes wrong. Raises UsageError when the address or the journal
    is taken and LakeError when nothing can be kept any more; what was acknowledged is in the journal then.
    """
    recorder = Recorder(
        lake, Journal(settings.folder(lake)), idle=settings.idle, every=settings.every, batch=settings.batch, tell=tell,
        redactor=None if settings.keep_secrets else redactor_of(lake),
    )  # fmt: skip
    key = os.environ.get(settings.key_env) if settings.key_env else None

    def proxy(fatal: Callable[[BaseException], None]) -> Proxy:
        return Proxy(
            settings.upstream, recorder, key=key, token=settings.token, timeout=settings.timeout, most=settings.most_bytes,
            fatal=fatal,
        )  # fmt: skip

    address = (settings.host, settings.port)
    await until_stopped(recorder, proxy, address, lambda url: ready(url, recorder), tell, "calls")
    return recorder.counts
