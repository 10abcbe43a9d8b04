"""Which importers there are: every module of this folder that has `IMPORTER`, or `IMPORTERS` for close siblings.

A format is added by adding its file. Belongs here: finding importers and naming them. Not here: what uses them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import stepwell.importers
from stepwell.importers.base import CAPABILITIES, Importer

_USERS = ("registry", "sniff", "containers", "units", "outcome", "identity", "parted", "run", "formats_page")
"""Modules that use the registry, and so cannot be looked into while it is made."""


def _found() -> Iterator[Importer]:
    for module in pkgutil.iter_modules(stepwell.importers.__path__, "stepwell.importers."):
        if module.name.rpartition(".")[2] not in _USERS:
            loaded = importlib.import_module(module.name)
            yield from getattr(loaded, "IMPORTERS", ())
            if hasattr(loaded, "IMPORTER"):
                yield loaded.IMPORTER


def _named() -> dict[str, Importer]:
    named: dict[str, Importer] = {}
    for importer in _found():
        assert importer.name not in named, f"two importers are named {importer.name!r}; names are unique."
        assert tuple(importer.capabilities) == CAPABILITIES, (
            f"{importer.name}: capabilities are {CAPABILITIES}, in order."
        )
        named[importer.name] = importer
    return dict(sorted(named.items()))


IMPORTERS = _named()
"""Format name -> its importer."""
