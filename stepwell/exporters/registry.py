"""Which exporters there are: every module of this folder that has `EXPORTER`, or `EXPORTERS` for close siblings.

A format is added by adding its file. Belongs here: finding exporters and naming them. Not here: what uses them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import stepwell.exporters
from stepwell.exporters.base import Exporter

_USERS = ("registry", "run", "page")
"""Modules that use the registry, and so cannot be looked into while it is made."""


def _found() -> Iterator[Exporter]:
    for module in pkgutil.iter_modules(stepwell.exporters.__path__, "stepwell.exporters."):
        if module.name.rpartition(".")[2] not in _USERS:
            loaded = importlib.import_module(module.name)
            yield from getattr(loaded, "EXPORTERS", ())
            if hasattr(loaded, "EXPORTER"):
                yield loaded.EXPORTER


EXPORTERS: dict[str, Exporter] = {e.name: e for e in sorted(_found(), key=lambda e: e.name)}
"""Format name -> its exporter."""
