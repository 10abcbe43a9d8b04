"""Prompts: shipped ones hold together with their grammar, a change of wording changes the id, broken files say all."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from stepwell.critics import grammar, taxonomy
from stepwell.critics.prompts import PLACES, load, names
from stepwell.errors import StepwellError, UnknownName

ROOT = Path(__file__).parent.parent
SHIPPED = ("critique", "pairwise", "steer-concise", "steer-detailed", "steps-one-pass", "verifier")


def write(folder: Path, stem: str, **changes: object) -> Path:
    """A prompt file like steer-concise, with some of its fields changed; None leaves a field out."""
    document = yaml.safe_load((ROOT / "stepwell/critics/prompts/steer-concise.yaml").read_text())
    document |= {"name": stem} | changes
    path = folder / f"{stem}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))
    return path


def test_the_shipped_prompts_are_there() -> None:
    assert set(SHIPPED) <= set(names())
    assert {load(name).kind for name in SHIPPED} == set(grammar.KINDS)
    assert len({load(name).id for name in names()}) == len(names())


@pytest.mark.parametrize("name", names())
def test_a_shipped_prompt_is_complete(name: str) -> None:
    prompt = load(name)
    assert re.fullmatch(rf"{name}@{prompt.version}#[0-9a-f]{{12}}", prompt.id)
    assert not re.search(r"\{\w+\}", prompt.system), "a place was not filled in"
    assert set(re.findall(r"\{(\w+)\}", prompt.request)) <= PLACES["request"]
    of = taxonomy.load(prompt.taxonomy) if prompt.taxonomy else None
    assert grammar.sketch(prompt.kind, of) in prompt.system
    for category in of.categories if of else ():
        assert f"{category.name}: {category.definition}" in prompt.system
        assert (category.recovery in prompt.system) == (name == "steer-detailed")


def test_a_steering_prompt_warns_of_the_budget() -> None:
    for name in ("steer-concise", "steer-detailed"):
        prompt = load(name)
        assert prompt.budget is not None
        assert "{history}" in prompt.request
        assert "100 of its 150 steps" in prompt.budget.format(current_step=100, step_limit=150)


def test_the_examples_in_the_step_prompt_are_read_as_told() -> None:
    example = load("steps-one-pass").system.partition("For example")[2].partition("\n\n")[2]
    reading = grammar.read("steps", example, steps=[0, 1, 2])
    assert (reading.status, dict(reading.labels)) == ("ok", {0: "good", 1: "mistake", 2: "recover"})


def test_a_prompt_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    same = load(str(write(tmp_path, "steer-concise")))
    assert same == load("steer-concise")
    assert same.id == load("steer-concise").id
    other = load(str(write(tmp_path, "mine", kind="verifier", taxonomy=None, budget=None, request="Go. {n_steps}",
                           system='Say {reply} or {"json": 1}')))  # fmt: skip
    assert other.system == 'Say <YES or NO>\nPROBABILITY: <a number from 0 to 1> or {"json": 1}'
    assert (other.name, other.taxonomy, other.budget, other.request) == ("mine", None, None, "Go. {n_steps}")


@pytest.mark.parametrize(
    "change",
    [
        {"system": "{reply}"},
        {"request": "Now. {budget}"},
        {"budget": "{step_limit}"},
        {"version": 2},
        {"taxonomy": "leaks"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_that_is_rendered_is_in_the_id(tmp_path: Path, change: dict[str, object]) -> None:
    changed = load(str(write(tmp_path, "steer-concise", **change)))
    assert changed.id.partition("#")[2] != load("steer-concise").id.partition("#")[2]


def test_a_description_is_not_in_the_id(tmp_path: Path) -> None:
    assert load(str(write(tmp_path, "steer-concise", description="Other words."))).id == load("steer-concise").id


def test_a_change_of_the_taxonomy_changes_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, category = load("steer-concise"), taxonomy.load("steer-12").categories[0]
    before = prompt.id
    monkeypatch.setitem(category.crosswalk, "mast", "FM-9.9")
    assert prompt.id != before, "the taxonomy's id is part of the prompt's, whether or not it is rendered"


def test_everything_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "bad", name="other", version="one", kind="judge", taxonomy="none-such", description=None,
                 colour="red", request="Now {histroy}", budget="{steps}", system=" ")  # fmt: skip
    with pytest.raises(StepwellError) as error:
        load(str(path))
    for told in (
        "description is missing", "colour is no field", "system is ' ', must be text", "version is 'one'", "name is 'other'",
        "kind is 'judge', allowed: steer, steps, critique, verifier, pair", "taxonomy is 'none-such', allowed: leaks, steer-12",
        "{histroy} in request is nothing to fill in; allowed: budget, history, n_steps", "{steps} in budget",
        "budget and the place {budget} in request need each other", "Correct the file",
    ):  # fmt: skip
        assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- 1", "it holds a list"),
        (b"", "it holds a NoneType"),
        (b"name: 3\nversion: true\nkind: [steer]\ntaxonomy: {a: b}\n", "kind is ['steer'], must be text"),
        (b"1: 2\nname: x\n", "1 is no field"),
    ],
)
def test_a_file_that_is_no_prompt_is_an_error_of_ours(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(StepwellError) as error:
        load(str(path))
    assert told in str(error.value)


def test_a_steering_prompt_needs_a_taxonomy_and_others_have_no_categories(tmp_path: Path) -> None:
    with pytest.raises(StepwellError, match=r"kind steer needs a taxonomy.*\{categories\} in system"):
        load(str(write(tmp_path, "x", taxonomy=None)))


def test_an_unknown_name_lists_the_prompts(tmp_path: Path) -> None:
    for name in ("no-such", "no-such.yaml", str(tmp_path), "../prompts/critique"):
        with pytest.raises(UnknownName, match="allowed: critique, pairwise, steer-concise"):
            load(name)


def test_the_taxonomy_has_definitions_recoveries_and_kin() -> None:
    kin = {c.id: c.crosswalk for c in taxonomy.load().categories}
    mast = {"task_specification", "role_specification", "step_repetition", "termination_unawareness", "task_derailment"}
    assert {c for c, cross in kin.items() if "mast" in cross} >= {*mast, "verification_failure"}
    assert all("mast" in cross or "trail" in cross for cross in kin.values())
    assert kin["verification_failure"]["mast"] == "FM-3.2; FM-3.3"
    assert list(taxonomy.load().groups) == ["specification", "reasoning", "coordination"]


def test_the_wheel_has_prompts_and_taxonomies(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    there = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {f"stepwell/critics/prompts/{name}.yaml" for name in SHIPPED} <= set(there)
    assert "stepwell/critics/taxonomy/steer-12.yaml" in there
