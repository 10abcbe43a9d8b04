"""One price policy for every arm of a comparison (METHODS.md K11, 1.5 defect 6).

Belongs here: a price list read from a file, and what usage costs by it. Does not belong here: the limit on spending while a
run goes on (`stepwell.spending`). A list is YAML:

    name: list prices of 2026-01
    models:
      srft-*: {input: 0.10, cached: 0.01, output: 0.40}
      judge-1: {input: 3.00, cached: 0.30, cache_write: 3.75, output: 15.00}
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import ValidationError

from stepwell import settings
from stepwell.errors import UnknownName, UsageError
from stepwell.ids import digest
from stepwell.spending import Prices


class Listed(settings.Prices):
    """US dollars for a million tokens of one model; tokens written to the cache cost as `input` unless said."""

    cache_write: float | None = None


class _File(settings.Part):
    name: str
    models: dict[str, Listed]


@dataclass(frozen=True)
class PriceList:
    """Prices by model name or pattern (`*`, `?`); a whole name wins, then the first pattern that fits."""

    name: str
    models: dict[str, Listed]

    @property
    def policy(self) -> str:
        """Identity of the list: its name and a digest of every price."""
        return f"{self.name}@{digest({k: v.model_dump() for k, v in self.models.items()})[:12]}"

    def of(self, model: str) -> Listed:
        """Prices of a model; raises UnknownName when the list has none."""
        if model in self.models:
            return self.models[model]
        found = next((p for pattern, p in self.models.items() if fnmatchcase(model, pattern)), None)
        if found is None:
            raise UnknownName("model in the price list", model, self.models, f"Add its prices to {self.name!r}.")
        return found

    def cost(self, model: str, tokens_in: int, tokens_out: int, cache_read: int, cache_write: int) -> float:
        """US dollars; tokens read from and written to the cache are among `tokens_in`."""
        p = self.of(model)
        dollars = Prices(p.input, p.cached, p.output).cost(tokens_in, cache_read, tokens_out)
        return dollars + cache_write * ((p.input if p.cache_write is None else p.cache_write) - p.input) / 1e6


def read_prices(path: Path) -> PriceList:
    """A price list from a YAML file; raises UsageError listing every problem."""
    try:
        given = _File.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValidationError) as error:
        problems = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise UsageError(
            f"price list {str(path)!r}: {problems}. It needs `name` and `models`: MODEL: {{input, cached, output}} in US "
            "dollars per million tokens, `cache_write` where it differs."
        ) from error
    return PriceList(given.name, given.models)
