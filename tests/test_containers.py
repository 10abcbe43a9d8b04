"""Files opened: lines one by one, Parquet, gzip, zip; what is hostile is rejected alone, with its place and its bytes."""

from __future__ import annotations

import gzip
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_examples import chat_row, nebius_openhands_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.errors import BadInput
from stepwell.importers import archive as archives
from stepwell.importers import files
from stepwell.importers.archive import Archive
from stepwell.importers.base import Rejected
from stepwell.importers.containers import Piece, open_blob
from stepwell.importers.files import Bytes, File, Gzip, read_lines
from stepwell.importers.parse import parse, record_identity
from stepwell.importers.run import import_paths
from stepwell.importers.table import plain, rows
from stepwell.lake import Lake
from stepwell.log import EventLog


def row(i: int) -> dict[str, Any]:
    return {**chat_row(), "run_id": f"run-{i}"}


def lines(*parts: bytes) -> bytes:
    return b"\n".join(parts) + b"\n"


def opened(data: bytes) -> list[Piece | Rejected]:
    return list(open_blob(Bytes(data)).pieces())


def test_a_bad_line_is_rejected_alone(lake: Lake, tmp_path: Path) -> None:
    good = [orjson.dumps(row(i)) for i in range(5)]
    bad = [b'{"messages": [', b'\xff\xfe{"a": 1}', b"[1, 2]", b'{"a": "\xc3("}']
    data = lines(good[0], bad[0], good[1], bad[1], b"", good[2], bad[2], good[3], bad[3], good[4])
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    report = import_paths(lake, [path])
    assert (report.imported, report.rejected, report.records, report.taken, report.rejected_records) == (1, 0, 9, 5, 4)
    rejects = sorted(lake.read("rejects").to_pylist(), key=lambda r: r["offset"])
    assert [r["raw"] for r in rejects] == bad
    assert [data[r["offset"] :][: len(r["raw"])] for r in rejects] == bad
    assert {(r["reason"], r["format"]) for r in rejects} == {("bad_line", "chat")}
    path.write_bytes(data.replace(bad[0], orjson.dumps(row(9))))
    assert import_paths(lake, [path]).trajectories == 6
    assert len(lake.read("trajectories" if lake.version("trajectories") else "sources")) == 2
    log = EventLog(lake).read(kinds=["end"])
    assert len(log) == 6, "after the fix only the fixed line is new"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")) | st.integers(0, 9), max_size=12))
def test_every_line_is_a_record_or_a_reject(parts: list[Any]) -> None:
    whole = [orjson.dumps(row(p)) if isinstance(p, int) else p for p in parts]
    data = lines(*[orjson.dumps(row(100 + i)) for i in range(14)], *whole)
    found = opened(data)
    assert len(found) == 14 + sum(bool(w.strip()) for w in whole)
    for one in found:
        assert one.raw is not None
        assert data[one.offset :].startswith(one.raw)
        assert isinstance(one, Rejected) or isinstance(one.data, dict)


def test_what_is_no_standard_json_is_kept_as_text(lake: Lake, tmp_path: Path) -> None:
    text = '{"a": NaN, "b": [-Infinity, 1e999], "half": "\\ud83d and \\ude00", "\\ud800": 1, "twice": 1, "twice": 2, '
    text += '"n": 18446744073709551616}'
    assert parse(text.encode()) == {
        "a": "NaN",
        "b": ["-Infinity", "1e999"],
        "half": "\\ud83d and \\ude00",
        "\\ud800": 1,
        "twice": 2,
        "n": 2.0**64,
    }
    odd = json.dumps({**chat_row(), "note": "half of a smile \ud83d here", "score": float("nan")}).encode()
    (tmp_path / "odd.json").write_bytes(odd)
    assert import_paths(lake, [tmp_path]).reasons == {}
    (end,) = EventLog(lake).read(kinds=["end"]).to_pylist()
    assert orjson.loads(end["extra"])["note"] == "half of a smile \\ud83d here"
    assert orjson.loads(end["extra"])["score"] == "NaN"


@pytest.mark.parametrize("depth", [300, 900, 1200, 100_000])
def test_deep_nesting_is_a_clear_reject(depth: int, lake: Lake, tmp_path: Path) -> None:
    deep = b'{"messages": [], "x": ' + b"[" * depth + b"]" * depth + b"}"
    (tmp_path / "deep.json").write_bytes(deep)
    (tmp_path / "deep.jsonl").write_bytes(lines(orjson.dumps(row(0)), deep, orjson.dumps(row(1))))
    report = import_paths(lake, [tmp_path])
    assert report.reasons == {"too_deep": 2}
    assert report.trajectories == 2


def test_a_line_of_200_mb_is_rejected_without_reading_it_whole(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(orjson.dumps(row(0)) + b'\n{"messages": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + orjson.dumps(row(1)) + b"\n")
    report = import_paths(lake, [path])
    assert (report.taken, dict(report.reasons)) == (2, {"too_large": 1})
    (reject,) = lake.read("rejects").to_pylist()
    assert len(reject["raw"]) == files.HEAD
    assert reject["offset"] == len(orjson.dumps(row(0))) + 1


def test_memory_does_not_grow_with_the_lines() -> None:
    line = orjson.dumps(row(0)) + b"\n"
    many = gzip.compress(line * (12_000_000 // len(line)), 1)
    tracemalloc.start()
    n = sum(isinstance(p, Piece) for p in open_blob(Bytes(many)).pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n == 12_000_000 // len(line)
    assert peak < 5_000_000


def test_a_gzip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    for inside in (b" " * (8 << 20), lines(*[orjson.dumps(row(i)) for i in range(4000)])):
        with pytest.raises(BadInput, match="too_large"):
            opened(gzip.compress(inside))


def test_gzip_that_breaks_off_keeps_what_came_before(lake: Lake, tmp_path: Path) -> None:
    whole = lines(*[orjson.dumps({**row(i), "noise": os.urandom(30_000).hex()}) for i in range(8)])
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(whole)[:-100_000])
    report = import_paths(lake, [tmp_path])
    assert 0 < report.taken < 8
    assert dict(report.reasons) == {"bad_archive": 1}
    assert report.imported == 1


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip; method 93 is zstd, which `zipfile` cannot write."""
    entries, directory = b"", b""
    for name, content in members.items():
        deflate = zlib.compressobj(wbits=-15)
        packed = (
            pa.compress(content, codec="zstd", asbytes=True)
            if method == 93
            else deflate.compress(content) + deflate.flush()
        )
        told = struct.pack(
            "<HHHHHIIIHH", 20, 0, method, 0, 0, zlib.crc32(content), len(packed), len(content), len(name), 0
        )
        directory += (
            b"PK\x01\x02"
            + struct.pack("<H", 20)
            + told
            + struct.pack("<HHHII", 0, 0, 0, 0, len(entries))
            + name.encode()
        )
        entries += b"PK\x03\x04" + told + name.encode() + packed
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(entries), 0)
    return entries + directory + end


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, 93])
def test_members_are_read_whichever_way_they_are_compressed(method: int) -> None:
    content = b'{"version": 2}' * 5000
    data = zipped({"header.json": content, "samples/1.json": b""}, method)
    with Archive(Bytes(data)) as archive:
        assert dict(archive) == {"header.json": content, "samples/1.json": b""}
    damaged = data.replace(struct.pack("<I", zlib.crc32(content)), b"\0\0\0\0")
    with Archive(Bytes(damaged)) as archive, pytest.raises(BadInput, match="bad_archive"):
        archive["header.json"]


def test_members_that_lead_out_of_the_archive_are_not_in_it() -> None:
    names = ["header.json", "../up.json", "/etc/abs.json", "a/../../b.json", "c:\\d.json", "..\\e.json", "ok/f.json"]
    with Archive(Bytes(zipped(dict.fromkeys(names, b"{}")))) as archive:
        assert set(archive) == {"header.json", "ok/f.json"}
        assert set(archive.unsafe) == set(names) - set(archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, 93])
def test_a_member_that_lies_about_its_size_is_stopped(method: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1 << 16)
    content = b"0" * (4 << 20)
    honest = zipped({"header.json": content}, method)
    for data in (honest, honest.replace(struct.pack("<I", len(content)), struct.pack("<I", 100))):
        with Archive(Bytes(data)) as archive, pytest.raises(BadInput, match=r"too_large|bad_archive"):
            archive["header.json"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damaged_archives_and_tables_are_bad_input(at: int, damage: bytes) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([nebius_openhands_row()]), sink)
    for data in (zipped({"header.json": b"{}"}), sink.getvalue().to_pybytes(), gzip.compress(orjson.dumps(chat_row()))):
        hurt = data[:at] + damage + data[at + len(damage) :]
        try:
            found = open_blob(Bytes(hurt))
            if found.shape == "archive":
                with found.archive() as archive:
                    dict(archive)
            else:
                list(found.pieces())
        except BadInput:
            continue


def test_rows_of_parquet_are_plain(tmp_path: Path) -> None:
    values = {
        "a": [{"x": 1, "y": None}, {"x": None, "y": "t"}],
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "cost": Decimal("1.50"),
        "text": b"caf\xc3\xa9",
        "blob": b"\xff\xfe",
        "score": float("nan"),
        "none": None,
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([values]), sink)
    (row,) = rows(Bytes(sink.getvalue().to_pybytes()))
    assert row == {
        "a": [{"x": 1}, {"y": "t"}],
        "when": "2026-01-01T00:00:00+00:00",
        "cost": "1.50",
        "text": "café",
        "blob": {"base64": "//4="},
        "score": "NaN",
    }
    assert plain([(1, 2)]) == [[1, 2]]


def test_a_row_is_the_same_trajectory_in_parquet_and_in_json_lines(lake: Lake, tmp_path: Path) -> None:
    data = [nebius_openhands_row(), {**nebius_openhands_row(), "trajectory_id": "other"}]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_bytes(lines(*map(orjson.dumps, data)))
    (tmp_path / "rows.json").write_bytes(orjson.dumps({str(i): d for i, d in enumerate(data)}))
    report = import_paths(lake, [tmp_path])
    assert (report.imported, report.taken) == (3, 6)
    assert len(EventLog(lake).read(kinds=["end"])) == 2
    assert record_identity({"a": None, "b": [{"c": None}]}) == record_identity({"b": [{}]})


def test_links_out_of_the_folder_are_not_followed(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "secret.json").write_bytes(orjson.dumps(row(0)))
    (tmp_path / "in" / "mine.json").write_bytes(orjson.dumps(row(1)))
    (tmp_path / "in" / "link.json").symlink_to("../out/secret.json")
    (tmp_path / "in" / "folder").symlink_to("../out")
    (tmp_path / "in" / "inside.json").symlink_to("mine.json")
    report = import_paths(lake, [tmp_path / "in"])
    assert (report.imported, report.known, report.rejected) == (1, 1, 1)
    (reject,) = lake.read("rejects").to_pylist()
    assert (Path(reject["path"]).name, reject["reason"], reject["raw"]) == ("link.json", "unreadable", b"")
    assert import_paths(lake, [tmp_path / "in" / "link.json"]).imported == 1, "a file given by name is taken"


def test_a_file_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"{}\n" * (23 << 20))
    file = File(path)
    file.unchanged()
    with path.open("ab") as stream:
        stream.write(b"{}\n")
    with pytest.raises(BadInput, match="changed"):
        file.unchanged()


def test_lines_are_found_whatever_stands_between_them() -> None:
    data = b"\n\r\n  \n{}\r\n\n[1]"
    assert [(line.offset, line.data) for line in read_lines(Bytes(data))] == [(6, b"{}"), (11, b"[1]")]
    assert [line.data for line in read_lines(Gzip(Bytes(gzip.compress(data))))] == [b"{}", b"[1]"]
