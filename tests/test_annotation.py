"""People as critics: the draw, a page that hostile text cannot leave, labels taken back, and where raters differ."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import lakes
import pytest
from browser import CHROMIUM, Browser
from lakes import Step
from typer.testing import CliRunner

from stepwell.cli import build_app
from stepwell.critics import annotation, people, taxonomy
from stepwell.critics.run import judge_new
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.verdicts import holding

HOSTILE = (
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=2><svg/onload=window.owned=3>"
    "</pre></article>{{ 7*7 }}{% raise %}${1}<!--<style>*{display:none}</style>\"'><iframe src=//evil.example>"
    "\u202egnp.exe\u2066\u200b\x1b[31m\x00 &lt;b&gt; \udcff\ud83d <meta http-equiv=refresh content='0;url=//evil.example'>"
)


@pytest.fixture
def judged(lake: Lake) -> Lake:
    lakes.build(lake)
    judge_new(lake)
    return lake


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(build_app(), ["annotate", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def export(lake: Lake, path: Path, *options: str) -> list[dict[str, Any]]:
    run("export", "--out", str(path), "--lake", lake.uri, *options)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else []


def label(item: dict[str, Any], what: str = "good", **rest: Any) -> dict[str, Any]:
    where = {k: item[k] for k in ("trajectory_id", "step", "event_id", "content_hash")}
    return where | {"label": what, "severity": 0, "taxonomy_id": taxonomy.load().id} | rest


def take(lake: Lake, labels: list[Any], name: str = "ann") -> people.Taken:
    lines = b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in labels)
    return people.import_labels(lake, lines, name, [taxonomy.load()], "labels.jsonl")


def opinions(lake: Lake, name: str = "ann") -> list[dict[str, Any]]:
    return [v for v in holding(EventLog(lake).read()) if v["policy"] == f"human/{name}"]


def test_the_draw_is_seeded_even_over_strata_and_blind(judged: Lake, tmp_path: Path) -> None:
    first = export(judged, tmp_path / "a.jsonl", "--n", "8", "--seed", "3")
    assert first == export(judged, tmp_path / "b.jsonl", "--n", "8", "--seed", "3")
    assert first != export(judged, tmp_path / "c.jsonl", "--n", "8", "--seed", "4")
    said = {v["caused_by"]: v["label"] for v in holding(EventLog(judged).read()) if v["policy"] == "rules@1"}
    assert Counter(said[i["event_id"]] for i in first) == {"good": 2, "mistake": 2, "unnecessary": 2, "recover": 2}
    assert not any(i["says"] for i in first)
    assert "rules@1" not in (tmp_path / "a.jsonl").read_text()
    shown = export(judged, tmp_path / "d.jsonl", "--n", "8", "--seed", "3", "--show-critic")
    assert {i["says"]["rules@1"]["label"] for i in shown} == {"good", "mistake", "unnecessary", "recover"}
    whole = export(judged, tmp_path / "e.jsonl", "--n", "1000")
    assert len({i["event_id"] for i in whole}) == len(whole) == len(said)


def test_strata_by_outcome_and_by_what_the_critic_found(judged: Lake, tmp_path: Path) -> None:
    by_outcome = export(judged, tmp_path / "o.jsonl", "--n", "6", "--by", "outcome")
    assert Counter(i["trajectory_id"].startswith("t-loop") for i in by_outcome) == {True: 3, False: 3}
    by_critic = export(judged, tmp_path / "c.jsonl", "--n", "4", "--by", "critic", "--show-critic")
    first = [
        next((d["category"] for d in i["says"]["rules@1"]["detections"] if d["category"]), None) for i in by_critic
    ]
    assert len(set(first)) == 4
    with pytest.raises(UnknownName, match="critic, label, outcome"):
        export(judged, tmp_path / "x.jsonl", "--by", "mood")
    with pytest.raises(UsageError, match=r"\.html, \.jsonl"):
        export(judged, tmp_path / "x.pdf")
    with pytest.raises(UsageError, match="no steps in nowhere"):
        export(judged, tmp_path / "x.jsonl", "--corpus", "nowhere")


def test_an_item_shows_the_task_what_came_before_and_after_and_cuts_what_is_long(lake: Lake, tmp_path: Path) -> None:
    steps = [Step(f"echo {i}", "x" * 9000 if i == 2 else f"out {i}") for i in range(6)]
    EventLog(lake).append(lakes.trajectory("t", steps), "in")
    items = export(lake, tmp_path / "a.jsonl", "--before", "2", "--after", "1")
    third = next(i for i in items if i["step"] == 3)
    assert [s["step"] for s in third["before"]] == [1, 2]
    assert [s["step"] for s in third["after"]] == [4]
    assert third["task"] == "Repair it."
    assert "5,000 characters left out" in third["before"][1]["output"]
    assert next(i for i in items if i["step"] == 0)["before"] == []


@pytest.mark.parametrize(
    ("text", "command", "shown"),
    [
        ("Let me use the tools to check.", "ls", "ls"),
        ("Calling `submit` to submit.", "submit", "submit"),
        ("I'll run `ls`.\n\n```bash\nls\n```", "ls", None),
        ("Thought: look\nAction: ls", "ls", None),
        ("<parameter=command>ls -a</parameter>", "ls -a", None),
        ("All done.<function=submit>\n</function>", "<function=submit>\n</function>", None),
    ],
)
def test_a_command_is_shown_unless_the_reply_gives_it(
    text: str, command: str, shown: str | None, tmp_path: Path
) -> None:
    log = EventLog(Lake(tmp_path / "lake"))
    action = Event("action", "t-1", "c", "agent", {"text": text, "command": command}, step=0, policy="m")
    log.append([action], "b")
    (item,) = annotation.items(log.read(columns=annotation.COLUMNS), [action.event_id])
    assert item.here.command == shown


def test_labels_become_verdicts_once_and_a_changed_one_supersedes(judged: Lake, tmp_path: Path) -> None:
    one, two = export(judged, tmp_path / "a.jsonl", "--n", "2")
    bad = label(
        one,
        "mistake",
        severity=2,
        categories=["hallucination"],
        rationale="made up",
        labelled_at="2026-01-01T10:00:00Z",
    )
    first = take(judged, [bad, label(two)])
    assert first.counts() == {"lines": 2, "new": 2, "changed": 0, "known": 0, "rejected": 0, "reasons": {}}
    version = EventLog(judged).version
    assert take(judged, [bad, label(two)]).n_known == 2
    assert EventLog(judged).version == version, "importing twice writes nothing"
    stored = {v["step"]: v for v in opinions(judged)}[one["step"]]
    assert (stored["actor"], stored["caused_by"], stored["label"], stored["severity"]) == (
        "human",
        one["event_id"],
        "mistake",
        2,
    )
    assert ([d["category"] for d in stored["detections"]], stored["raw"]) == (["hallucination"], "made up")
    assert take(judged, [label(one, "good")]).n_changed == 1
    assert take(judged, [bad]).n_changed == 1, "an opinion may be returned to"
    held = opinions(judged)
    assert len(held) == 2
    assert {v["label"] for v in held} == {"mistake", "good"}
    assert take(judged, [label(one, "recover")], "bob").n_new == 1, "another person's label stands beside it"
    retractions = [r["retraction"] for r in EventLog(judged).read(kinds=["retraction"]).to_pylist()]
    assert [r["action"] for r in retractions] == ["supersede"] * 2
    known = set(EventLog(judged).read(columns=["event_id"]).column(0).to_pylist())
    assert {r["replacement"] for r in retractions} <= known


def test_every_line_is_taken_or_rejected_with_a_reason(judged: Lake, tmp_path: Path) -> None:
    one, two = export(judged, tmp_path / "a.jsonl", "--n", "2")
    lines: list[Any] = [
        b"not json\n",
        b'{"trajectory_id": 1}\n',
        b"[" * 2000 + b"\n",
        b"\xff\xfe\n",
        b'"' + b"x" * 200_000 + b'"\n',
        label(one, "awful"),
        label(one, severity=3),
        label(one, severity=True),
        label(one, step="0"),
        label(one, categories=["nonsense"]),
        label(one, categories=["hallucination"], taxonomy_id="mine@1"),
        label(one, labelled_at="yesterday"),
        label(one, annotator="bob"),
        label(one, event_id="0" * 32),
        label(one, step=one["step"] + 1),
        label(one, content_hash="0" * 32),
        label(two, "mistake"),
        b"\n",
        label(two, "good"),
    ]
    taken = take(judged, lines)
    reasons = taken.counts()["reasons"]
    assert reasons == {
        "label_malformed": 12, "label_of_other": 1, "label_unknown_step": 2, "label_changed_step": 1, "label_repeated": 1,
    }  # fmt: skip
    assert taken.n_lines == 18 == taken.n_new + len(taken.rejected)
    assert reasons.keys() <= people.REASONS.keys()
    rows = judged.read("rejects").to_pylist()
    assert Counter(r["reason"] for r in rows) == reasons
    assert {r["raw"] for r in rows} >= {b"not json", b"\xff\xfe"}
    take(judged, lines)
    assert len(judged.read("rejects")) == len(rows)
    assert [v["label"] for v in opinions(judged)] == ["good"]
    with pytest.raises(UsageError, match="letters, digits"):
        take(judged, [], "../ann")


def test_raters_are_compared_on_the_steps_they_share(judged: Lake, tmp_path: Path) -> None:
    one, two, three = export(judged, tmp_path / "a.jsonl", "--n", "3")
    take(judged, [label(one), label(two), label(three)], "ann")
    take(judged, [label(one, "mistake"), label(two)], "bob")
    out = tmp_path / "differ.html"
    told = run(
        "disagreements", "--with", "human/ann", "--with", "human/bob", "--lake", judged.uri, "--out", str(out), "--json"
    )
    assert (told["shared_steps"], told["differing"]) == (2, 1)
    assert (told["steps"][0]["human/ann"], told["steps"][0]["human/bob"]) == ("good", "mistake")
    page = out.read_text()
    assert page.count("<article") == 1
    assert 'td class="mistake"' in page
    assert 'name="label"' not in page
    assert "1 of 2 shared steps differ" in run(
        "disagreements", "--with", "human/ann", "--with", "human/bob", "--lake", judged.uri
    )
    with pytest.raises(UsageError, match="two or more"):
        run("disagreements", "--with", "human/ann", "--lake", judged.uri)
    with pytest.raises(UnknownName, match=r"'human/bop'; allowed: .*human/bob"):
        run("disagreements", "--with", "human/ann", "--with", "human/bop", "--lake", judged.uri)


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def hostile(lake: Lake) -> None:
    text = HOSTILE.encode("utf-8", "backslashreplace").decode()
    steps = [Step(text, text), Step(None, text), Step("ls", text), Step("submit", "done")]
    events = lakes.trajectory(f"t-{text[:40]}", steps, corpus="c<b>")
    events.append(Event("task", events[0].trajectory_id, "c<b>", "system", {"task_id": "x", "statement": text}))
    EventLog(lake).append(events, "in")


def test_hostile_text_is_inert_in_the_page(lake: Lake, tmp_path: Path) -> None:
    hostile(lake)
    judge_new(lake)
    export(lake, tmp_path / "a.html", "--show-critic")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    tags = Counter(tag for tag, _ in Tags(text).tags)
    assert tags["script"] == tags["style"] == 1
    assert tags["article"] == 4
    assert not tags.keys() & {"img", "svg", "iframe", "object", "embed", "link", "base", "b"}
    assert tags["meta"] == 3
    assert not any(k.startswith("on") or k in ("src", "href", "style") for _, a in Tags(text).tags for k in a)
    assert "{{ 7*7 }}" in text
    assert "⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+200B⟩⟨U+001B⟩[31m⟨U+0000⟩" in text
    assert not set(text) & set("\u202e\u2066\u200b\x1b\x00")
    assert "default-src &#39;none&#39;" in text


def test_lone_surrogates_are_written_out() -> None:
    assert annotation.plain("a\ud83d\udcff\r\nb\rc") == "a⟨U+D83D⟩⟨U+DCFF⟩\nb⟨U+000D⟩c"
    shown = annotation.Shown(0, HOSTILE, HOSTILE, HOSTILE, 0)
    item = annotation.Item(
        "t\ud83d",
        0,
        "e",
        "h",
        "c",
        1,
        HOSTILE,
        shown,
        (shown,),
        (shown,),
        {"\ud83d": {"label": "good", "severity": 0, "raw": HOSTILE, "detections": []}},
    )
    assert annotation.page([item], taxonomy.load(), ["\ud83d"]).encode("utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_person_judges_with_the_keyboard_in_a_real_browser(lake: Lake, tmp_path: Path) -> None:
    hostile(lake)
    export(lake, tmp_path / "judge.html")
    with Browser(tmp_path) as browser:
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.open(tmp_path / "judge.html")
        assert (
            browser.value("window.owned === undefined && document.querySelectorAll('article:not([hidden])').length")
            == 1
        )
        for key in ("m", "2", "n", "g", "n", "u", "p", "n"):
            browser.press(key)
        browser.until("document.querySelector('#progress').textContent === 'step 3 of 4, 3 judged'")
        browser.press("e")
        browser.call("Input.insertText", text='no reason; "quoted" g\nü')
        browser.press("g")
        browser.until("document.querySelector('textarea').value.endsWith('üg')")  # typing is no shortcut
        browser.press("Escape")
        browser.value("document.querySelector('input[value=hallucination]').click()")
        browser.press("d")
        browser.until("document.querySelector('#message').textContent.includes('write your name')")
        browser.value("document.querySelector('#annotator').focus()")
        browser.call("Input.insertText", text="ann")
        browser.press("Escape")
        saved = "document.querySelector('#progress').textContent === 'step 3 of 4, 3 judged'"
        # A browser gives what one page stored to the next a moment later, when the machine is busy.
        browser.until_here(
            lambda: browser.open(tmp_path / "judge.html") or bool(browser.value(saved)), "saved by itself"
        )
        browser.press("d")
        browser.until("document.querySelector('#message').textContent.includes('downloaded')")
        browser.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert browser.value("window.owned === undefined")
        labels = tmp_path / "labels-ann.jsonl"
        browser.until_here(lambda: labels.exists() and labels.stat().st_size > 0)
        asked = browser.requested()
        broken = [
            e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        ]
    assert all(url.startswith(("file://", "blob:")) for url in asked), asked
    assert broken == [], json.dumps(broken[0])
    told = run("import", str(labels), "--annotator", "ann", "--lake", lake.uri, "--json")
    assert (told["new"], told["rejected"]) == (3, 0)
    by_label = {v["label"]: v for v in opinions(lake)}
    assert by_label.keys() == {"mistake", "good", "unnecessary"}
    assert by_label["mistake"]["severity"] == 2
    assert by_label["unnecessary"]["raw"] == 'no reason; "quoted" g\nüg'
    assert [d["category"] for d in by_label["unnecessary"]["detections"]] == ["hallucination"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_two_tabs_of_a_page_keep_the_labels_of_both(lake: Lake, tmp_path: Path) -> None:
    hostile(lake)
    export(lake, tmp_path / "judge.html")
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "judge.html")
        browser.press("g")
        first = browser.session
        address = (tmp_path / "judge.html").resolve().as_uri()
        other = browser.call("Target.createTarget", url=address)["targetId"]
        browser.session = second = browser.call("Target.attachToTarget", targetId=other, flatten=True)["sessionId"]
        browser.until("document.querySelector('#progress')?.textContent === 'step 1 of 4, 1 judged'")
        for tab, keys in ((first, "nm"), (second, "nnu")):
            browser.session = tab
            for key in keys:
                browser.press(key)
        browser.until("document.querySelector('#progress').textContent === 'step 3 of 4, 3 judged'")
