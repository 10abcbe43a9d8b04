"""The sandbox tests run code in."""

from __future__ import annotations

import functools

import pytest

from stepwell.errors import SandboxError
from stepwell.rollout.sandbox import Sandbox


@functools.cache
def sandbox() -> Sandbox:
    """The strongest sandbox of this machine, or a skip."""
    try:
        return Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
