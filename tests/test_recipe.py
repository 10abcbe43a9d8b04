"""Recipes: merged, checked, and named in errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from stepwell import recipe
from stepwell.errors import RecipeError, UnknownName

DOCS = Path(__file__).parent.parent / "docs"


def test_every_shipped_recipe_loads_and_differs_only_where_it_says() -> None:
    loaded = {name: recipe.load(name) for name in recipe.names()}
    assert {"all", "rft", "srft"} <= loaded.keys()
    assert len({r.hash for r in loaded.values()}) == len(loaded)
    trained = [r for r in loaded.values() if r.dataset is not None]
    assert len(trained) >= 5
    assert all(r.world == loaded["all"].world and r.evaluation == loaded["all"].evaluation for r in trained)


def test_extends_merges_deeply(tmp_path: Path) -> None:
    (tmp_path / "_low.yaml").write_text("dataset: {method: all, max_length: 7}\nseeds: [1]\n")
    (tmp_path / "high.yaml").write_text("extends: _low\ndataset: {method: rft}\n")
    loaded = recipe.load(tmp_path / "high.yaml")
    assert loaded.name == "high"
    assert loaded.dataset is not None
    assert (loaded.dataset.method, loaded.dataset.max_length, loaded.seeds) == ("rft", 7, (1,))
    assert recipe.names(tmp_path) == ["high"]


def test_errors_list_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("train: {epochs: many}\ncolour: red\n")
    with pytest.raises(RecipeError, match=r"train\.epochs.*'many'.*colour"):
        recipe.load(tmp_path / "bad.yaml")
    (tmp_path / "misspelt.yaml").write_text(
        "dataset: {method: rft, maxlength: 3}\ncurate: {steps: [{where: x, wen: all}]}\n"
    )
    with pytest.raises(RecipeError) as told:
        recipe.load(tmp_path / "misspelt.yaml")
    assert "curate.steps.0.wen: no setting; allowed: share, when, where (got 'all')" in str(told.value)
    assert re.search(
        r"dataset\.maxlength: no setting; allowed: balance, .*max_length, .*teacher \(got 3\)", str(told.value)
    )
    with pytest.raises(UnknownName, match=r"allowed: all, .*dagger, .*srft"):
        recipe.load("no-such-recipe")
    (tmp_path / "long.yaml").write_text(f"collect: {{corpus: {'c' * 241}, policies: []}}\n")
    with pytest.raises(RecipeError, match=r"collect\.corpus.*241 bytes percent-encoded; allowed: at most 240"):
        recipe.load(tmp_path / "long.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match="must be a mapping"):
        recipe.load(tmp_path / "list.yaml")
    for n, data in enumerate((b"a: [1", b"\xff\xfe", b"!!python/object/apply:os.system ['true']", b"[" * 5000)):
        (tmp_path / f"odd-{n}.yaml").write_bytes(data)
        with pytest.raises(RecipeError, match=rf"recipe '.*odd-{n}\.yaml' is no YAML in UTF-8: "):
            recipe.load(tmp_path / f"odd-{n}.yaml")


def test_words_of_settings_need_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("""
contamination: {off: [cut], repository: off, before: 2024-06-01}
curate: {dedup: {exact: off}}
train: {packing: true, learning_rate: 1e-3}
""")
    loaded = recipe.load(tmp_path / "words.yaml")
    assert (loaded.contamination.off, loaded.contamination.repository) == (("cut",), "off")
    assert loaded.contamination.before == "2024-06-01"
    assert loaded.curate is not None
    assert loaded.curate.dedup is not None
    assert loaded.curate.dedup.exact == "off"
    assert (loaded.train.packing, loaded.train.learning_rate) == (True, 0.001)


@pytest.mark.parametrize("text", ["seeds: [1, 2, 1]", "evaluation: {sampling_seeds: [0, 0]}"])
def test_a_seed_is_named_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(RecipeError, match="each seed once"):
        recipe.load(tmp_path / "twice.yaml")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_recipe_in_the_docs_loads(page: Path, tmp_path: Path) -> None:
    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if set(yaml.safe_load(text)) <= {"extends", *recipe.Recipe.model_fields}:
            (tmp_path / "_repair.yaml").write_text((recipe.RECIPES / "_repair.yaml").read_text())
            (tmp_path / "shown.yaml").write_text(text)
            recipe.load(tmp_path / "shown.yaml")
