"""Invariants of the log and of datasets, as functions that list what breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import HELD_OUT
from stepwell.chat import prompt_hash
from stepwell.conversation import REPLAYED, prompts
from stepwell.critics.rerendering import reproduced
from stepwell.data_settings import Exclude
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.rollout.mixing import uniform, z_score
from stepwell.verdicts import flagged

LEAKS = Exclude()
OWN_SCAFFOLDS = "stepwell-"
"""How the names of the project's own scaffolds begin."""
MIXED = ("bernoulli", "switch")
"""Rules by which student and teacher are mixed."""


def unique_key(lake: Lake, name: str) -> list[str]:
    """Key values that occur more than once in a table."""
    key = list(lake.spec(name).key)
    frame = pl.DataFrame(lake.read(name, columns=key))
    twice = frame.group_by(key).len().filter(pl.col("len") > 1).sort(key)
    return [f"{name}: {row} stands {row['len']} times" for row in twice.head(100).to_dicts()]


def _kinds(lake: Lake, *kinds: str, corpora: Sequence[str] | None = None) -> pl.DataFrame:
    columns = ["event_id", "trajectory_id", "step", "kind", "caused_by", *kinds]
    return pl.DataFrame(EventLog(lake).read(corpora=corpora, kinds=list(kinds), columns=columns))


def one_action_per_turn(lake: Lake) -> Iterable[str]:
    """One action per turn, and turns numbered from 0 without a gap."""
    columns = ["event_id", "trajectory_id", "step", "kind", "retraction"]
    holding = live(EventLog(lake).read(kinds=["action", "retraction"], columns=columns))
    actions = pl.DataFrame(holding.select(columns[:4])).filter(pl.col("kind") == "action")
    turns = actions.group_by("trajectory_id").agg(
        pl.len().alias("n"), pl.col("step").n_unique().alias("unique"), pl.col("step").max().alias("last")
    )
    broken = turns.filter((pl.col("n") != pl.col("unique")) | (pl.col("last") != pl.col("n") - 1)).sort("trajectory_id")
    return [f"trajectory {r['trajectory_id']}: {r['n']} actions, last step {r['last']}" for r in broken.to_dicts()]


def masks_have_evidence(lake: Lake) -> Iterable[str]:
    """Every mask rests on at least one event that exists."""
    masks = pl.DataFrame(EventLog(lake).read(kinds=["mask"], columns=["event_id", "mask"]))
    if not len(masks):
        return []
    evidence = masks.select("event_id", pl.col("mask").struct.field("evidence")).explode("evidence", empty_as_null=True)
    bare = evidence.filter(pl.col("evidence").is_null())["event_id"].to_list()
    known = pl.DataFrame(lake.read("events", columns=["event_id"]))["event_id"]
    lost = evidence.filter(pl.col("evidence").is_not_null() & ~pl.col("evidence").is_in(known.implode()))
    return [f"mask {e} has no evidence" for e in bare] + [
        f"mask {e} rests on an unknown event" for e in lost["event_id"]
    ]


def answers_exist(lake: Lake) -> Iterable[str]:
    """Every event that answers another answers one that is in the log."""
    events = pl.DataFrame(lake.read("events", columns=["event_id", "caused_by"]))
    lost = events.filter(pl.col("caused_by").is_not_null()).join(
        events.select(caused_by="event_id"), on="caused_by", how="anti"
    )
    return [f"event {e} answers an unknown event" for e in sorted(lost["event_id"].to_list())]


def labels_fit_states(lake: Lake, corpora: Sequence[str] | None = None) -> Iterable[str]:
    """A teacher's label is for the state the acting policy was in."""
    rows = _kinds(lake, "label", "action", corpora=corpora)
    labels = rows.filter(pl.col("kind") == "label").select(
        "event_id", "trajectory_id", "step", state=pl.col("label").struct.field("state_hash")
    )
    actions = rows.filter(pl.col("kind") == "action").select(
        "trajectory_id", "step", before=pl.col("action").struct.field("state_hash")
    )
    wrong = labels.join(actions, on=["trajectory_id", "step"]).filter(pl.col("state").ne_missing(pl.col("before")))
    return [f"label {e} is for another state than its turn" for e in sorted(wrong["event_id"].to_list())]


def _mixed(lake: Lake, corpora: Sequence[str] | None, *kinds: str) -> list[dict[str, Any]]:
    """Live events of trajectories in which student and teacher were mixed, of the kind `turn` and these."""
    columns = ["event_id", "trajectory_id", "corpus", "step", "kind", "actor", "retraction", "turn"]
    events = EventLog(lake).read(corpora=corpora, kinds=["turn", "retraction", *kinds], columns=columns)
    rows = live(events).to_pylist()
    mixed = {r["trajectory_id"] for r in rows if (r["turn"] or {}).get("rule") in MIXED}
    return [r for r in rows if r["trajectory_id"] in mixed]


def draws_follow_beta(lake: Lake, corpora: Sequence[str] | None = None) -> Iterable[str]:
    """The teacher acted as often as declared: |z| < 3 for every corpus and beta; a key drawn twice counts once (K16)."""
    drawn: dict[tuple[str, float], dict[str, bool]] = {}
    for row in _mixed(lake, corpora):
        turn = row["turn"] or {}
        if turn.get("rule") == "bernoulli" and turn["beta"] is not None:
            drawn.setdefault((row["corpus"], turn["beta"]), {})[str(turn["rng_key"])] = turn["chosen"] == "teacher"
    found = []
    for (corpus, beta), turns in sorted(drawn.items()):
        z = z_score([beta] * len(turns), sum(turns.values()))
        if not abs(z) < 3:
            found.append(
                f"{corpus}: the teacher took {sum(turns.values())} of {len(turns)} turns at beta {beta}, z {z:+.1f}"
            )
    return found


def turns_say_who_acts(lake: Lake, corpora: Sequence[str] | None = None) -> Iterable[str]:
    """Every mixed turn names its draw and key, the draw is that of the key, decides who acts, and that one acted (K16)."""
    rows = _mixed(lake, corpora, "action")
    turns = {(r["trajectory_id"], r["step"]): r["turn"] for r in rows if r["turn"]}
    found = []
    for row in rows:
        turn = turns.get((row["trajectory_id"], row["step"]))
        where = f"trajectory {row['trajectory_id']}, step {row['step']}"
        if turn is None:
            found.append(f"{where}: nothing says who acts")
        elif row["kind"] == "action" and row["actor"] != turn["chosen"]:
            found.append(f"{where}: {turn['chosen']} was to act, {row['actor']} did")
        elif row["kind"] == "turn":
            wanted = ("draw", "rng_key", "chosen", *(("beta",) if turn["rule"] == "bernoulli" else ()))
            missing = [name for name in wanted if turn[name] is None]
            if missing:
                found.append(f"{where}: no {', '.join(missing)}")
            elif abs(turn["draw"] - uniform(turn["rng_key"])) > 1e-12:
                found.append(f"{where}: the draw is not that of its key")
            elif turn["rule"] == "bernoulli" and (turn["draw"] < turn["beta"]) != (turn["chosen"] == "teacher"):
                found.append(
                    f"{where}: the draw {turn['draw']:.3f} at beta {turn['beta']} does not give {turn['chosen']}"
                )
    return found


def labels_cover_turns(lake: Lake, corpora: Sequence[str] | None = None) -> Iterable[str]:
    """Every action of a mixed trajectory has a label of the teacher, whoever acted (K16: coverage 1)."""
    rows = _mixed(lake, corpora, "action", "label")
    labelled = {(r["trajectory_id"], r["step"]) for r in rows if r["kind"] == "label"}
    bare = [r for r in rows if r["kind"] == "action" and (r["trajectory_id"], r["step"]) not in labelled]
    return [f"trajectory {r['trajectory_id']}, step {r['step']}: no label" for r in bare]


def prompts_are_reproduced(lake: Lake) -> Iterable[str]:
    """Rendering the log gives the prompt whose hash was logged: at most 300 verdicts of model critics, drawn by seed 0."""
    return reproduced(EventLog(lake))


def agents_saw_what_is_logged(lake: Lake) -> Iterable[str]:
    """The prompts of the project's own rollouts, rebuilt from the log, have the recorded hashes (300 trajectories, seeded)."""
    log = EventLog(lake)
    starts = log.read(kinds=["start"], columns=["trajectory_id", "start"]).to_pylist()
    ours = [r["trajectory_id"] for r in starts if (r["start"]["scaffold"] or "").startswith(OWN_SCAFFOLDS)]
    drawn = sorted(ours, key=lambda t: digest("prompts", t))[:300]
    problems = []
    for events in log.batches(drawn, columns=list(REPLAYED)):
        for prompt in prompts(events):
            for action in prompt.rows.get("action", ()):
                recorded = (action["usage"] or {}).get("prompt_hash")
                if recorded is not None and prompt_hash(prompt.messages) != recorded:
                    problems.append(
                        f"trajectory {prompt.trajectory_id}, step {prompt.step}: the log gives another prompt"
                    )
    return problems


EVENTS: dict[str, Callable[[Lake], Iterable[str]]] = {
    "one_action_per_turn": one_action_per_turn,
    "masks_have_evidence": masks_have_evidence,
    "answers_exist": answers_exist,
    "labels_fit_states": labels_fit_states,
    "draws_follow_beta": draws_follow_beta,
    "turns_say_who_acts": turns_say_who_acts,
    "labels_cover_turns": labels_cover_turns,
    "prompts_are_reproduced": prompts_are_reproduced,
    "agents_saw_what_is_logged": agents_saw_what_is_logged,
}


def dataset_rows(lake: Lake, rows: pa.Table) -> list[str]:
    """Rows without a trained token, rows of evaluation tasks, rows whose events are not in the log."""
    untaught = pc.and_(pc.equal(rows.column("n_trained_tokens"), 0), pc.is_null(rows.column("group_id")))
    idle = rows.filter(untaught).column("row_id").to_pylist()  # prompts for rewards have a group and train nothing
    where = pc.starts_with(pc.field("corpus"), HELD_OUT) & (pc.field("kind") == "start")
    started = lake.read("events", columns=["start"], filters=where).column("start").to_pylist()
    held_out = {s["task_id"] for s in started if s["task_id"]}
    leaked = sorted(set(rows.column("task_id").to_pylist()) & held_out)
    known = set(lake.read("events", columns=["event_id"]).column(0).to_pylist())
    lost = [e for ids in rows.column("event_ids").to_pylist() for e in ids if e not in known]
    return (
        [f"row {r} trains no token" for r in idle]
        + [f"evaluation task {t} is in the training rows" for t in leaked]
        + [f"a row rests on unknown event {e}" for e in lost[:20]]
    )


def no_flagged_trajectory(lake: Lake, rows: pa.Table, exclude: Exclude = LEAKS) -> list[str]:
    """Rows of trajectories that a critic flags; by default those in which `leaks@1` saw the solution read or a test gamed.

    A trajectory not judged is no problem here: whether it may be trained on is for `source.exclude` to say.
    """
    ids = sorted(set(rows.column("trajectory_id").to_pylist()))
    columns = ["event_id", "trajectory_id", "kind", "policy", "verdict", "retraction"]
    events = EventLog(lake).read(trajectory_ids=ids, kinds=["verdict", "retraction"], columns=columns)
    found = flagged(events, exclude)
    return [f"trajectory {t} is flagged {c} by {exclude.critic}" for t, c in sorted(found.items()) if c is not None]
