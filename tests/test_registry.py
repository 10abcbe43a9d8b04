"""Models by name, id and directory: one id however a model is named, and what to do when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import registry
from stepwell.errors import UsageError
from stepwell.lake import Lake


def written(folder: Path, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def registered(lake: Lake, name: str, weights: bytes = b"w") -> str:
    draft = written(registry.models_folder(lake) / name / "saving", weights)
    identity = registry.model_id(name, draft)
    final = draft.with_name(identity)
    registry.publish(draft, final)
    registry.register(lake, {
        "model_id": identity, "name": name, "path": str(final), "recipe": name, "recipe_hash": "h", "base_model": "base",
        "code_version": "1", "seed": 0, "n_parameters": 1, "n_rows": 1, "n_trained_tokens": 1, "metrics": "{}",
        "environment": "{}", "wall_s": 1.0,
    })  # fmt: skip
    return identity


def test_a_model_has_one_id_by_name_by_id_and_by_directory(lake: Lake) -> None:
    identity = registered(lake, "srft")
    folder = registry.models_folder(lake) / "srft" / identity
    for name in ("srft", identity, str(folder)):
        assert registry.located(lake, name) == (str(folder), identity)


def test_a_directory_that_is_named_by_something_else_is_given_its_hash(lake: Lake, tmp_path: Path) -> None:
    plain = written(tmp_path / "base")
    (_, first), (_, copied) = (registry.located(lake, str(f)) for f in (plain, written(tmp_path / "base-0123456789ab")))
    assert first == registry.model_id("base", plain)
    assert copied == f"base-0123456789ab-{first.removeprefix('base-')}", "a name that only looks like an id is none"
    (plain / "model.safetensors").write_bytes(b"other")
    assert registry.located(lake, str(plain))[1] != first


def test_a_model_that_is_not_there_is_trained_by_the_command_line(lake: Lake) -> None:
    registered(lake, "rft")
    with pytest.raises(UsageError, match=r"there are: rft. Train it: stepwell train ctrl_rl$"):
        registry.located(lake, "ctrl_rl")
