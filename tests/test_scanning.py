"""A table as an Arrow dataset: the files and rows that deltalake's own has, and only what rules a file out beside them."""

from __future__ import annotations

import lakes
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake.exceptions import DeltaProtocolError

from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.scanning import dataset_of, file_name

CORPORA = ("demo", "rollouts/one", "a b%c=d&é")


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Three commits in each of three corpora, names that paths must escape among them."""
    for n in range(3):
        for corpus in CORPORA:
            events = lakes.trajectory(f"{n}-{corpus}", [lakes.Step("ls")], corpus=corpus)
            EventLog(lake).append(events, "b")
    return lake


def test_it_has_what_the_dataset_of_deltalake_has(filled: Lake) -> None:
    handle = filled.create("events")
    ours, theirs = dataset_of(handle, True), handle.to_pyarrow_dataset()
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    assert sorted(f.path for f in ours.get_fragments()) == sorted(f.path for f in theirs.get_fragments())
    order = [("event_id", "ascending")]
    assert ours.to_table().sort_by(order).equals(theirs.to_table().sort_by(order))
    assert set(ours.to_table(columns=["corpus"]).column(0).to_pylist()) == set(CORPORA)


@pytest.mark.parametrize("corpus", CORPORA)
def test_files_of_other_partitions_and_other_trajectories_are_ruled_out(filled: Lake, corpus: str) -> None:
    data = dataset_of(filled.create("events"), True)
    assert len(list(data.get_fragments(pc.field("corpus") == corpus))) == 3
    assert len(list(data.get_fragments(pc.field("trajectory_id").isin(pa.array([f"1-{corpus}"]))))) == 1
    assert not list(data.get_fragments(pc.field("trajectory_id") == "9"))


def test_only_the_files_that_are_named(filled: Lake) -> None:
    handle = filled.create("events")
    wanted = {file_name(uri) for uri in handle.file_uris()[2:5]}
    assert {file_name(path) for path in dataset_of(handle, True, wanted).files} == wanted
    assert dataset_of(handle, False, wanted).count_rows() == dataset_of(handle, True, wanted).count_rows() > 0
    assert dataset_of(handle, True, ()).count_rows() == 0


def test_an_empty_table_has_no_rows(lake: Lake) -> None:
    assert dataset_of(lake.create("events"), True).count_rows() == 0
    assert dataset_of(lake.create("trajectories"), True).count_rows() == 0


def test_a_table_that_arrow_would_read_wrongly_is_refused(filled: Lake) -> None:
    handle = filled.create("events")
    handle.alter.set_table_properties({"delta.enableDeletionVectors": "true"}, raise_if_not_exists=False)
    handle = filled.create("events")
    assert handle.protocol().min_reader_version > 1
    with pytest.raises(DeltaProtocolError, match="deletionVectors"):
        dataset_of(handle, True)
