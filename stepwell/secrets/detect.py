"""What in a text is a secret: the rules that Kingfisher bundles, ours in `rules.yml`, and a list of exact values.

Kingfisher (Apache-2.0) matches all rules at once in its own engine, some 150 MB of text a second. Its compiled rules are kept
in the user's cache folder; without that, the first scan of a process takes about three seconds more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from kingfisher_sdk import Rules, Scanner

from stepwell.secrets.values import forms

MARK = "[REDACTED:"
_HELPERS = re.compile(r"(?:secret-access-key|api-secret|passphrase|security-token|consumer-key)$")
"""Rules that Kingfisher reports as part of others only, whose match is a secret of its own."""
IN_NUMBER = re.compile(r"[-+.\deE]+")
"""What can stand in a number of JSON."""
_WEAK, _SHORT = 12, 8


@dataclass(frozen=True)
class Found:
    """A secret, its kind, and the text to take out: the secret, or with a character on each side when it is short or a word."""

    kind: str
    text: str
    secret: str


@cache
def scanner() -> Scanner:
    """The engine with all rules, once a process."""
    with as_file(files("stepwell.secrets") / "rules.yml") as rules:
        return Scanner(Rules([str(rules)], confidence="low"))


def detected(text: str) -> list[Found]:
    """Secrets the rules find in a text, one entry a secret, in order of their text."""
    data = ("\n" + text).encode("utf-8", "replace")
    found: dict[str, Found] = {}
    hits = [f for f in scanner().scan(data) if f.visible or _HELPERS.search(f.rule_id)]
    for hit in sorted(hits, key=lambda f: (f.rule_id.startswith("stepwell."), f.rule_id)):
        begin, end = hit.location["start_offset"], hit.location["end_offset"]
        secret = data[begin:end].decode("utf-8", "replace")
        if len(secret) < 2 or MARK in secret:
            continue
        kind = re.sub(r"\.\d+$", "", hit.rule_id).rpartition("/")[2].rpartition(".")[2]
        weak = len(secret) < _SHORT or (len(secret) < _WEAK and not re.search(r"\d", secret)) or secret.isalpha()
        shown = data[begin - 1 : end + 1].decode("utf-8", "replace") if weak else secret
        found.setdefault(secret, Found(kind, shown, secret))
    return [found[secret] for secret in sorted(found)]


class Values:
    """Exact values, searched for in all their forms at once."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = {form: value for value in values for form in forms(value)}
        self.numeric = any(IN_NUMBER.fullmatch(value) for value in self._values.values())

    def found(self, text: str) -> list[Found]:
        """The values that stand in a text in any form."""
        if not self._values:
            return []
        import polars as pl  # a quarter of a second, for those who have values only

        shown = pl.Series([text.encode("utf-8", "replace").decode()])
        sought = pl.Series(list(self._values), dtype=pl.String).implode()
        hits = shown.str.extract_many(sought, overlapping=True).explode().drop_nulls().to_list()
        return [Found("value", value, value) for value in sorted({self._values[hit] for hit in hits})]
