"""Every error Stepwell raises on purpose.

    StepwellError
    |-- UsageError         what was asked for cannot be done as asked (exit status 2)
    |   |-- RecipeError    a recipe names something that does not exist or does not fit
    |   `-- UnknownName    a name is not among the allowed ones; lists them
    |-- SchemaError        rows do not have exactly the table's schema
    |-- LakeError          the lake is missing, broken or not where it was said to be
    |-- RenderError        tokens and chosen steps cannot be shown to agree
    |-- SandboxError       commands cannot be isolated as asked
    `-- BadInput           a source cannot be taken; becomes a row of `rejects`

A message gives the value received, the values allowed and the next act.
"""

from __future__ import annotations

from collections.abc import Iterable


class StepwellError(Exception):
    """Root of every deliberate error."""


class UsageError(StepwellError):
    """What was asked for cannot be done as asked."""


class RecipeError(UsageError):
    """A recipe names something that does not exist or does not fit."""


class UnknownName(UsageError):
    """A name is not among the allowed ones."""

    def __init__(self, what: str, got: str, allowed: Iterable[str], act: str) -> None:
        super().__init__(f"unknown {what} {got!r}; allowed: {', '.join(sorted(allowed)) or 'none yet'}. {act}")


class SchemaError(StepwellError):
    """Rows do not have exactly the table's schema."""


class LakeError(StepwellError):
    """The lake is missing, broken or not where it was said to be."""


class RenderError(StepwellError):
    """Tokens and chosen steps cannot be shown to agree."""


class SandboxError(StepwellError):
    """Commands cannot be isolated as asked."""


class BadInput(StepwellError):
    """A source cannot be taken; `reason` is one of `stepwell.importers.base.REASONS`."""

    def __init__(self, reason: str, detail: str, offset: int = 0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.offset = reason, detail, offset
