"""The audits in the asset graph: tables and plots where there is data, a sentence where there is none."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import lakes
from lakes import Step

from assets.audits import audit_asset, audits
from assets.resources import Experiments, Settings
from stepwell.data_settings import Mask
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe


def shown(lake: Lake, critic: str) -> dict[str, str]:
    asset = audit_asset(critic)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], resources={"settings": Settings(lake_uri=lake.uri)}, instance=instance)
    (made,) = result.asset_materializations_for_node(asset.op.name)
    return {name: str(value.value) for name, value in made.metadata.items()}


def test_one_audit_a_critic_that_recipes_trust_and_one_of_the_rules() -> None:
    recipes = {
        name: Recipe(name=name, mask=Mask(critic=critic)) for name, critic in (("a", "steer@1/x"), ("b", "rules@1"))
    }
    keys = [a.key.to_user_string() for a in audits(Experiments(Path(), recipes))]
    assert keys == ["audits/rules_1", "audits/steer_1_x"]


def test_an_audit_shows_its_tables_and_a_plot_of_whatever_it_has(lake: Lake) -> None:
    made: list[Event] = []
    for i in range(4):
        one = lakes.trajectory(
            f"t{i}", [Step("view", "1", truth="good"), Step("sub", "no", truth="mistake")], resolved=True
        )
        made += one
        for k, action in enumerate(lakes.actions(one)):
            for candidate, label in enumerate(("good", "good" if i else "mistake", "mistake" if k else "good")):
                made.append(lakes.verdict(action, label, candidate=candidate, confidence=0.5 + i / 10))
    EventLog(lake).append(made, "b")
    found = shown(lake, "judge@1")
    assert "is unknown" in found["figures are"]
    assert "|mistake|4|" in found["tables"]
    assert "majorities of samples: labels" in found["tables"]
    for plot in ("confusion", "reliability of labels", "votes on labels"):
        assert "data:image/png" in found[plot]


def test_an_audit_without_a_truth_says_so_and_does_not_fail(lake: Lake) -> None:
    assert "no step has a verdict of both 'rules@1'" in shown(lake, "rules@1")["nothing to audit"]
