"""Trajectories as pages: complete, inert whatever they hold, quick however long, and served to this machine only."""

from __future__ import annotations

import http.client
import importlib.util
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import lakes
import orjson
import pytest
from browser import CHROMIUM, Browser
from chat_models import make
from golden_lake import stored
from lakes import Step
from test_annotation import HOSTILE, Tags
from typer.testing import CliRunner

from stepwell.cli import build_app
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.display import plain
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.ids import storable
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import IGNORE, Renderer
from stepwell.viewing.document import document, find
from stepwell.viewing.listing import SIZE, Asked, list_page, listed
from stepwell.viewing.page import page
from stepwell.viewing.server import Viewer

AXE = importlib.util.find_spec("axe_playwright_python")
ANSI = "\x1b[31mFAILED\x1b[0m \x1b[1;38;5;46;48;2;0;50;200mbright\x1b[0m plain \x1b[2J"
PATCH = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n"
DAGGER, STEERED, REVISED = "3bacfc63", "a7ab87cd", "4a95ce26"
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The recorded lake of real rollouts, judged by rules, with masks and one dataset; and trajectories made to be hard."""
    folder = tmp_path_factory.mktemp("view")
    lake = stored(Lake(folder / "lake"))
    judge_new(lake)
    EventLog(lake).append(
        [*hostile(), *long("t-long", 5000), *lakes.good_repair("t-good"), *lakes.looping("t-loop")], "b"
    )
    make("qwen3", folder / "model")
    recipe = Recipe.model_validate({"name": "srft", "source": {"corpora": ["rollouts/pool"], "where": "true"},
        "mask": {"rule": "srft"}, "dataset": {"method": "srft", "held_out": 0.0, "max_length": 9000},
        "base_model": str(folder / "model")})  # fmt: skip
    mask_new(lake, rule_of(recipe.mask))
    build(lake, recipe, Renderer.load(folder / "model"), rule_of(recipe.mask).id)
    return lake


def hostile() -> list[Event]:
    """Everything that could run, leave or hide, in every place a text can be; a megabyte in one line; colours; a patch."""
    text = storable(HOSTILE) + "\u2028\u2029 ]]> <!--<script> javascript:alert(1) \U000e0041"
    many = "\n".join(f"line {i}" for i in range(9000))
    outputs = {text: text * 2, "cat big": "x" * 1_000_000, "log": many, "colours": ANSI, "git diff": PATCH}
    steps = [Step(command, output, int(command == text)) for command, output in outputs.items()]
    made = lakes.trajectory("t-hostile", steps, model=text, task_id=text, corpus="hostile")
    first = lakes.actions(made)[0]
    found = [{"category": text, "evidence": text, "recovery": text}]
    where = ("t-hostile", "hostile")
    return [
        *made,
        lakes.verdict(first, "mistake", text, detections=found, guidance=text, raw=text, severity=2),
        Event("label", *where, "teacher", {"text": text + "!", "command": text + "!", "source": "queried"}, 0, text),
        Event("feedback", *where, "critic", {"mode": "suppressed", "text": text, "reason": text}, 0, text),
        Event("notice", *where, "system", {"target": "agent", "text": text}, 0),
        Event("hint", *where, "environment", {"text": text, "hint_kind": "wrong"}, 0),
        Event("mask", *where, "system", {"mask_rule": text, "weight": 0.0, "reason": text, "evidence": [text]}, 0),
    ]


def long(name: str, n: int) -> list[Event]:
    """Many steps of some lines each; every tenth fails."""
    steps = [Step(f"grep -n word-{i} src/", f"src/a.py:{i}: word\n" * 12, int(i % 10 == 9)) for i in range(n)]
    return lakes.trajectory(name, steps)


def run(lake: Lake, *arguments: str) -> Any:
    result = CliRunner().invoke(build_app(), ["view", "--lake", lake.uri, *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def embedded(html: str) -> Any:
    return json.loads(html.split('id="data">', 1)[1].split("</script>", 1)[0])


def test_a_page_holds_every_event_that_holds_and_says_who_judged(world: Lake, tmp_path: Path) -> None:
    for name, kinds in (
        (DAGGER, {"turn", "notice"}),
        (STEERED, {"feedback", "verdict"}),
        (REVISED, {"attempt", "reward", "feedback"}),
    ):
        told = run(world, name, "-o", str(tmp_path / "a.html"), "--json")
        (shown,) = embedded((tmp_path / "a.html").read_text(encoding="utf-8"))["runs"]
        rows = EventLog(world).replay(shown["id"]).to_pylist()
        assert [e["event_id"] for e in shown["events"]] == [r["event_id"] for r in rows]
        assert kinds <= {e["kind"] for e in shown["events"]}
        assert told["trajectories"] == [shown["id"]]
        assert told["steps"] == len({r["step"] for r in rows if r["kind"] in ("action", "attempt")}) > 0
        assert set(told["raters"]) == {r["policy"] for r in rows if r["kind"] == "verdict"}
        texts = [r["action"]["text"] for r in rows if r["kind"] == "action"]
        assert [e["action"]["text"] for e in shown["events"] if e["kind"] == "action"] == texts


def test_what_is_said_of_a_page_cannot_steer_a_terminal(world: Lake, tmp_path: Path) -> None:
    shown = run(world, "t-hostile", "-o", str(tmp_path / "a.html")).replace("\n", "")
    assert "⟨U+202E⟩gnp.exe" in shown
    assert plain(shown) == shown


def test_a_trajectory_is_named_by_the_beginning_of_its_id(world: Lake, tmp_path: Path) -> None:
    assert find(world, "t-goo") == "t-good"
    for name, said in (("t-", "4 trajectories"), ("nobody", "0 trajectories"), ("", "0 trajectories")):
        with pytest.raises(UsageError, match=said):
            find(world, name)
    with pytest.raises(UsageError, match="3 trajectories named"):
        document(world, ["t-good"] * 3)
    with pytest.raises(UsageError, match=r"allowed: \.html"):
        run(world, "t-good", "-o", str(tmp_path / "a.pdf"))


def test_a_trajectory_of_which_nothing_holds_is_not_shown(lake: Lake) -> None:
    start = Event("start", "t-1", "demo", "system", {"task_id": "x"})
    why = {"target_event": start.event_id, "action": "supersede", "reason": "wrong"}
    EventLog(lake).append([start, Event("retraction", "t-1", "demo", "system", why)], "b")
    with pytest.raises(UsageError, match="has no event that was not retracted"):
        document(lake, ["t-1"])


def test_what_was_superseded_is_counted_and_what_was_taken_down_is_not_shown(lake: Lake) -> None:
    events = lakes.good_repair("t-1")
    old = lakes.verdict(lakes.actions(events)[0], "good")
    where = ("t-1", "demo", "system")
    gone = Event("retraction", *where, {"target_event": old.event_id, "action": "supersede", "reason": "again"})
    EventLog(lake).append([*events, old, gone], "a")
    (shown,) = document(lake, ["t-1"])["runs"]
    assert shown["n_retracted"] == 1
    assert old.event_id not in {e["event_id"] for e in shown["events"]}
    EventLog(lake).append([Event("retraction", *where, {"action": "takedown", "reason": "asked by its owner"})], "b")
    with pytest.raises(UsageError, match=r"taken down .asked by its owner"):
        document(lake, ["t-1"])


def test_tokens_are_those_of_the_dataset_and_in_the_loss_as_its_labels_say(world: Lake) -> None:
    rows = world.read("datasets/srft").to_pylist()
    for row in [r for r in rows if 0.0 in r["weights"]] + rows[:2]:
        (shown,) = document(world, [row["trajectory_id"]])["runs"]
        (dataset,) = shown["datasets"]
        assert (dataset["name"], dataset["note"], dataset["models"]) == ("datasets/srft", None, [])
        (of,) = dataset["rows"]
        assert of["row_id"] == row["row_id"]
        assert of["n_outside"] == 0
        assert [r["event"] for r in of["replies"]] == row["event_ids"]
        assert [set(r["kinds"]) for r in of["replies"]] == [{"t"} if w else {"m"} for w in row["weights"]]
        said = {e["event_id"]: e["action"]["text"] for e in shown["events"] if e["kind"] == "action"}
        assert all(said[r["event"]].strip() in "".join(r["tokens"]) for r in of["replies"])
        assert sum(r["kinds"].count("t") for r in of["replies"]) <= sum(x != IGNORE for x in row["labels"])


def test_without_its_tokenizer_a_dataset_is_shown_by_step(world: Lake, tmp_path: Path) -> None:
    trajectory = world.read("datasets/srft").column("trajectory_id")[0].as_py()
    base = Path(world.uri).parent / "model"
    (row,) = document(world, [trajectory], tokens=False)["runs"][0]["datasets"][0]["rows"]
    assert {r["weight"] for r in row["replies"]} <= {0.0, 1.0}
    assert all("tokens" not in r for r in row["replies"])
    base.rename(tmp_path / "gone")
    try:
        assert "is not here" in document(world, [trajectory])["runs"][0]["datasets"][0]["note"]
        make("llama3", base)
        assert (
            "is not what the dataset was made with" in document(world, [trajectory])["runs"][0]["datasets"][0]["note"]
        )
    finally:
        base.rename(tmp_path / "other")
        (tmp_path / "gone").rename(base)


def test_what_a_trajectory_holds_cannot_leave_the_data(world: Lake) -> None:
    made = document(world, ["t-hostile"])
    text = page(made).html
    assert embedded(text)["runs"] == orjson.loads(orjson.dumps(made["runs"], option=orjson.OPT_UTC_Z))
    tags = Counter(tag for tag, _ in Tags(text).tags)
    assert tags["script"] == 2
    assert not tags.keys() & {"img", "svg", "iframe", "object", "embed", "link", "base"}
    assert not any(k.startswith("on") or k in ("src", "style") for _, a in Tags(text).tags for k in a)
    data = text.split('id="data">', 1)[1].split("</script>", 1)[0]
    assert not set(data) & set("<>&\u2028\u2029")


@contextmanager
def serving(lake: Lake) -> Iterator[Viewer]:
    with Viewer(lake) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def asked(server: Viewer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text


def test_the_server_answers_this_machine_and_nobody_behind_another_name(world: Lake) -> None:
    with serving(world) as server:
        assert server.server_address[0] == "127.0.0.1"
        status, headers, text = asked(server, "/view?id=t-good")
        assert status == 200
        assert embedded(text)["runs"][0]["id"] == "t-good"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert asked(server, "/view?id=t-good", Host=f"localhost:{server.server_port}")[0] == 200
        for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
            status, _, text = asked(server, "/view?id=t-good", Host=host)
            assert status == 421, host
            assert "t-good" not in text
        cross = {"Sec_Fetch_Site": "cross-site"}
        assert asked(server, "/view?id=t-good", Sec_Fetch_Mode="no-cors", **cross)[0] == 403
        for sql in ("where=true", "%77here=true", "order=1", "first=0&where", "first=0&%6frder=1"):
            assert asked(server, f"/?{sql}", Sec_Fetch_Mode="navigate", **cross)[0] == 403, sql
        assert asked(server, "/view?id=nowhere", Sec_Fetch_Mode="navigate", **cross)[0] == 404
        assert asked(server, "/view?id=t-good", Sec_Fetch_Mode="navigate", **cross)[0] == 200
        assert asked(server, "/", "POST")[0] == 501
        assert asked(server, "/view?id=t-good", "HEAD")[2] == ""
        for path in ("/view?id=nobody", "/view", "/../etc/passwd", "/?first=x", "/?first=%C2%B2"):
            assert asked(server, path)[0] == 404, path
        assert "<b>" not in asked(server, "/view?id=" + quote("<b>"))[2]
        assert asked(server, "/" + "x" * 30_000)[0] == 414


def test_the_list_is_filtered_by_sql_that_can_only_read(world: Lake, tmp_path: Path) -> None:
    rows, total = listed(world, Asked())
    assert len(rows) == SIZE < total
    rest, _ = listed(world, Asked(first=SIZE))
    assert len(rest) == total - SIZE
    assert not {r["trajectory_id"] for r in rest} & {r["trajectory_id"] for r in rows}
    assert listed(world, Asked(first=999_999_999)) == ([], total)
    assert f"{total} trajectories, {SIZE + 1} to {total} shown" in list_page(world, Asked(first=999_999_999)).html
    assert "0 trajectories" in list_page(world, Asked("false", first=SIZE)).html
    (one,) = listed(world, Asked("trajectory_id = 't-loop' -- a comment"))[0]
    assert (one["n_steps"], one["resolved"], one["attempts"]) == (6, False, 3)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for where in (
        f"1 IN (SELECT a FROM read_csv('{secret}'))", "true); DROP TABLE events; SELECT (1", f"true) TO '{tmp_path / 'out'}'",
    ):  # fmt: skip
        made = list_page(world, Asked(where))
        assert made.status == 400, where
        assert 'role="alert"' in made.html
    assert not (tmp_path / "out").exists()
    shown = list_page(world, Asked("task_id = 'task-1'")).html
    assert "3 attempts</a>" in shown
    assert Counter(tag for tag, _ in Tags(list_page(world, Asked("corpus = 'hostile'")).html).tags)["script"] == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as made:
        made.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        yield made


def visit(browser: Browser, world: Lake, folder: Path, *names: str, at: str = "") -> None:
    """Write the page of these trajectories and go there."""
    browser.events.clear()
    browser.call("Page.navigate", url="about:blank")
    (folder / "a.html").write_text(page(document(world, list(names))).html, encoding="utf-8")
    browser.call("Page.navigate", url=(folder / "a.html").resolve().as_uri() + at)
    browser.until("document.documentElement?.dataset.ready === 'yes' && document.querySelector('article') !== null")


def quiet(browser: Browser) -> None:
    """Nothing ran that should not, nothing broke, nothing was asked for."""
    bad = ("Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Log.entryAdded")
    assert [e for e in browser.events if e.get("method") in bad] == []
    assert browser.value("window.owned === undefined")
    assert all(url.startswith("file://") for url in browser.requested()), browser.requested()


def unfold(browser: Browser) -> None:
    """Open everything that can be opened, and what is in it."""
    for _ in range(3):
        browser.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
        browser.value("document.querySelectorAll('.more').forEach(b => b.click())")
        browser.until("[...document.querySelectorAll('details')].every(d => d.children.length > 1 || !d.open)")


@in_a_browser
def test_hostile_text_is_only_text_in_a_real_browser(browser: Browser, world: Lake, tmp_path: Path) -> None:
    visit(browser, world, tmp_path, "t-hostile")
    browser.until("document.querySelectorAll('article').length === 5")
    unfold(browser)
    inside = "#whole, #steps"
    for tag in ("img", "iframe", "style", "script", "meta", "form", "object"):
        assert browser.value(f"document.querySelectorAll('main {tag}').length") == 0, tag
    whole = browser.value(f"[...document.querySelectorAll('{inside}')].map(e => e.textContent).join('')")
    assert "<img src=x onerror=window.owned=2>" in whole
    assert not set(whole) & set("\u202e\u2066\u200b\x1b\x00\u2028\U000e0041")
    for escaped in ("U+202E", "U+2066", "U+0000", "U+2028", "U+E0041"):
        assert escaped in whole
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
    quiet(browser)


@in_a_browser
def test_colours_patches_and_what_is_long(browser: Browser, world: Lake, tmp_path: Path) -> None:
    visit(browser, world, tmp_path, "t-hostile")
    assert browser.value("document.querySelector('#step-3 .ink1').textContent") == "FAILED"
    assert browser.value("document.querySelector('#step-3 .bold.ground4').textContent") == "bright"
    assert "U+001B" in browser.value("document.querySelector('#step-3 .esc').textContent")
    assert browser.value("document.querySelector('#step-4 .added').textContent") == "+    return 2"
    assert browser.value("document.querySelector('#step-4 .gone').textContent") == "-    return 1"
    assert browser.value("document.querySelector('#step-1 .output').textContent.length") < 3000
    folded = browser.value("document.querySelector('#step-2 .folded').textContent")
    assert [f"line {i}" in folded for i in (13, 8999, 4000)] == [True, True, False]
    browser.value("document.querySelectorAll('#step-1 .more, #step-2 .more').forEach(b => b.click())")
    assert browser.value("document.querySelector('#step-1 .output').textContent.length") > 40_000
    browser.press("G")
    browser.press("k")
    browser.press("k")
    browser.press("o")
    shown = browser.value("document.querySelector('#step-2 .folded .output').textContent")
    assert shown == "\n".join(f"line {i}" for i in range(9000))
    quiet(browser)


@in_a_browser
def test_what_each_method_records_is_shown_where_it_happened(browser: Browser, world: Lake, tmp_path: Path) -> None:
    shadow = EventLog(world).replay(find(world, STEERED)).to_pylist()
    at = next(r for r in shadow if r["kind"] == "feedback")
    visit(browser, world, tmp_path, STEERED)
    told = browser.value(f"document.querySelector('#step-{at['step']} .feedback.shadow').textContent")
    assert told.endswith(at["feedback"]["text"])
    visit(browser, world, tmp_path, REVISED)
    assert browser.value("document.querySelectorAll('#step-1 .difference del').length") > 0
    assert browser.value("document.querySelector('#step-0 .verdict .incorrect').textContent") == "incorrect"
    assert "reward" in browser.value("document.querySelector('#step-1').textContent")
    rows = EventLog(world).read(kinds=["label", "action"]).to_pylist()
    acted = {(r["trajectory_id"], r["step"]): r["action"]["text"] for r in rows if r["kind"] == "action"}
    differs = next(r for r in rows if r["kind"] == "label" and r["corpus"].startswith("rollouts/d")
                   and acted[r["trajectory_id"], r["step"]] != r["label"]["text"])  # fmt: skip
    visit(browser, world, tmp_path, differs["trajectory_id"])
    here = f"document.querySelector('#step-{differs['step']}')"
    kept = f"[...{here}.querySelectorAll('.differs .difference > :not(del)')].map(e => e.textContent).join('')"
    assert browser.value(kept) == differs["label"]["text"]
    assert browser.value(f"{here}.querySelector('.chip.agent').textContent") == "student"
    quiet(browser)


@in_a_browser
def test_a_command_is_parted_from_its_reply_only_where_it_is_given(browser: Browser, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    replies = ["I'll run `ls` with the tools.\n\n```bash\nls\n```", "Let me use the tools.", "Thought: see\nAction: ls"]
    EventLog(lake).append(
        [Event("action", "t-1", "c", "agent", {"text": text, "command": "ls"}, i) for i, text in enumerate(replies)],
        "b",
    )
    visit(browser, lake, tmp_path, "t-1")
    of = "[...a.querySelectorAll('.happened pre')].map(p => p.textContent)"
    blocks = f"[...document.querySelectorAll('article')].map(a => {of})"
    thoughts = ["I'll run `ls` with the tools.", "Let me use the tools.", "Thought: see\nAction:"]
    assert browser.value(blocks) == [[thought, "ls"] for thought in thoughts]
    quiet(browser)


@in_a_browser
def test_search_reaches_what_is_above_the_steps_and_unfolds_what_it_finds(browser: Browser, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    made = lakes.trajectory("t-1", [Step("cat min.js", "x" * 30_000 + " NEEDLE " + "y" * 9000), Step("ls", "a")])
    made.append(lakes.verdict(lakes.actions(made)[1], "good", raw="because of the GIRAFFE"))
    task = Event("task", "t-0", "demo", "system", {"task_id": "t", "statement": "find the zebra"})
    EventLog(lake).append([*made, task, Event("start", "t-0", "demo", "system", {"task_id": "t"})], "b")
    visit(browser, lake, tmp_path, "t-1")
    for needle, told, hash_ in (
        ("needle", "find in step 1 of 1", "#step-0"), ("giraffe", "find in step 1 of 1", "#step-1"),
        ("repair it", "find above the steps", "#step-1"),
    ):  # fmt: skip
        submit = "document.querySelector('#find').requestSubmit()"
        browser.value(f"{{ document.querySelector('#query').value = '{needle}'; {submit} }}")
        assert browser.value("document.querySelector('#told').textContent") == told
        assert browser.value("location.hash") == hash_
        found = browser.value("[...CSS.highlights.get('found')].map(r => r.toString().toLowerCase())")
        assert found == [needle]
        box = "[...CSS.highlights.get('found')][0].getBoundingClientRect()"
        browser.until(f"(b => b.height > 0 && b.top >= 0 && b.bottom <= innerHeight)({box})")
    visit(browser, lake, tmp_path, "t-1", at="#step-0")
    browser.press("o")
    assert browser.value("document.querySelector('#step-0 .output').textContent.length") == 39_008
    browser.call("Page.navigate", url="about:blank")
    (tmp_path / "b.html").write_text(page(document(lake, ["t-0", "t-0"])).html, encoding="utf-8")
    browser.call("Page.navigate", url=(tmp_path / "b.html").resolve().as_uri())
    browser.until("document.documentElement?.dataset.ready === 'yes'")
    assert browser.value("document.querySelector('.apart') === null")
    quiet(browser)


@in_a_browser
def test_tokens_and_cost_are_those_of_trajectories_also_where_a_model_judged(browser: Browser, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    made = lakes.trajectory("t-1", [Step("ls", "a", cost_usd=0.01), Step("cat", "a", cost_usd=0.01)])
    said = {"scope": "step", "label": "good", "parse_status": "ok"}
    usage = {"tokens_in": 5000, "tokens_out": 50, "cost_usd": 0.5}
    for action in lakes.actions(made):
        where = ("t-1", "demo", "critic", said, action.step, "judge@1")
        made.append(Event("verdict", *where, caused_by=action.event_id, usage=usage))
    EventLog(lake).append(made, "b")
    (row,) = listed(lake, Asked())[0]
    assert row["cost_usd"] == 0.02
    visit(browser, lake, tmp_path, "t-1")
    told = browser.value("document.querySelector('#whole').textContent")
    for figure in ("201 in, 20 out", "$0.0200 of calls", "up to 101 prompt tokens a step"):
        assert figure in told
    assert "$1.02" not in told
    quiet(browser)


@in_a_browser
def test_masks_are_seen_by_step_and_by_token(browser: Browser, world: Lake, tmp_path: Path) -> None:
    row = next(r for r in world.read("datasets/srft").to_pylist() if 0.0 in r["weights"])
    visit(browser, world, tmp_path, row["trajectory_id"])
    colours = browser.value(
        "[...document.querySelectorAll('article')].map(a => a.classList.contains('in-loss') ? 1 : 0)"
    )
    assert colours == [int(w) for w in row["weights"]]
    browser.press("x")
    masked = row["steps"][row["weights"].index(0.0)]
    assert browser.value("location.hash") == f"#step-{masked}"
    unfold(browser)
    assert browser.value(f"document.querySelectorAll('#step-{masked} .tokens .masked').length") > 5
    assert browser.value(f"document.querySelectorAll('#step-{masked} .tokens .trained').length") == 0
    browser.value("{ const s = document.querySelector('#by'); s.value = ''; s.dispatchEvent(new Event('change')) }")
    assert browser.value("document.querySelectorAll('.in-loss, .not-in-loss').length") == 0
    quiet(browser)


@in_a_browser
def test_five_thousand_steps_open_at_once_and_only_those_near_are_there(
    browser: Browser, world: Lake, tmp_path: Path
) -> None:
    visit(browser, world, tmp_path, "t-long")
    assert browser.value("document.querySelectorAll('article').length") <= 100
    ready = browser.value("performance.now()")
    browser.call("Page.navigate", url=(tmp_path / "a.html").resolve().as_uri() + "#step-4321")
    browser.until("document.activeElement.id === 'step-4321'")
    browser.value("new Promise(r => setTimeout(r, 300))")
    top = browser.value("document.querySelector('#step-4321').getBoundingClientRect().top")
    assert 0 <= top < 200, f"the step stays where it was gone to, {top}"
    browser.press("e")
    assert browser.value("location.hash") == "#step-4329"
    browser.press("/")
    browser.call("Input.insertText", text="WORD-777 ")
    browser.value("document.querySelector('#find').requestSubmit()")
    browser.until("document.querySelector('#told').textContent.includes('1 of 1')")
    assert browser.value("location.hash") == "#step-777"
    assert browser.value("[...CSS.highlights.get('found')].map(r => r.toString())") == ["word-777 "]
    assert browser.value("document.querySelectorAll('article').length") <= 300
    assert ready < 30_000  # a machine under load; docs/viewing.md has what was measured on an idle one
    quiet(browser)


@in_a_browser
def test_it_is_moved_through_by_keys_and_linked_to(browser: Browser, world: Lake, tmp_path: Path) -> None:
    visit(browser, world, tmp_path, "t-loop", at="#step-2")
    assert browser.value("document.activeElement.id") == "step-2"
    for key, at in (("j", 3), ("k", 2), ("g", 0), ("G", 5), ("k", 4), ("M", 3), ("m", 4), ("E", 0)):
        browser.press(key)
        assert browser.value("document.activeElement.id") == f"step-{at}", key
    browser.press("E")
    assert "no error before" in browser.value("document.querySelector('#told').textContent")
    browser.press("r")
    browser.until("document.querySelectorAll('#step-0 .event').length > 2")
    browser.value("document.querySelector('#step-0 .event summary').click()")
    browser.until("document.querySelector('#step-0 .json') !== null")
    shown = json.loads(browser.value("document.querySelector('#step-0 .json').textContent"))
    assert shown["event_id"] in EventLog(world).replay("t-loop").column("event_id").to_pylist()
    was = browser.value("getComputedStyle(document.body).backgroundColor")
    browser.press("t")
    assert browser.value("getComputedStyle(document.body).backgroundColor") != was
    browser.press("t")
    browser.press("?")
    assert browser.value("document.querySelector('dialog').open")
    browser.value("document.querySelector('dialog button').click()")
    quiet(browser)


@in_a_browser
def test_two_attempts_stand_side_by_side(browser: Browser, world: Lake, tmp_path: Path) -> None:
    visit(browser, world, tmp_path, "t-good", "t-loop", at="#step-1")
    assert browser.value("document.querySelectorAll('.pair').length") == 6
    assert browser.value("document.querySelector('#step-5').className").strip() == "absent"
    assert "view" in browser.value("document.querySelector('#b-step-1 .command').textContent")
    assert "They part at step 0." in browser.value("document.querySelector('.apart').textContent")
    left, right = (
        browser.value(f"document.querySelector('#{i}').getBoundingClientRect().top") for i in ("step-1", "b-step-1")
    )
    assert left == right
    quiet(browser)


@in_a_browser
def test_the_list_leads_to_the_pages(browser: Browser, world: Lake) -> None:
    with serving(world) as server:
        browser.events.clear()
        browser.call("Page.navigate", url=f"{server.url}?" + urlencode({"where": "task_id = 'task-1'"}))
        browser.until("document.querySelectorAll('.list tbody tr').length >= 2")
        browser.value("document.querySelectorAll('[name=id]').forEach((box, i) => { if (i < 2) box.click() })")
        browser.value("document.querySelectorAll('form button')[1].click()")
        browser.until("document.documentElement?.dataset.ready === 'yes'")
        assert browser.value("document.querySelectorAll('.whole').length") == 2
        assert [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")] == []
        assert {url.split("/")[2] for url in browser.requested()} == {f"127.0.0.1:{server.server_port}"}


@in_a_browser
@pytest.mark.skipif(AXE is None, reason="axe is not here: pip install --no-deps axe-playwright-python")
def test_axe_finds_nothing_serious(browser: Browser, world: Lake, tmp_path: Path) -> None:
    assert AXE is not None
    assert AXE.submodule_search_locations
    axe = (Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
    row = next(r for r in world.read("datasets/srft").to_pylist() if 0.0 in r["weights"])
    (tmp_path / "list.html").write_text(list_page(world, Asked()).html, encoding="utf-8")
    for names in ((row["trajectory_id"],), ("t-good", "t-loop"), ()):
        if names:
            visit(browser, world, tmp_path, *names, at="#step-1")
            if len(names) == 1:
                unfold(browser)
        else:
            browser.open(tmp_path / "list.html")
        browser.value(axe)
        for theme, rules in (("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            say = (
                "r.violations.map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary)])"
            )
            told = browser.call(
                "Runtime.evaluate", awaitPromise=True, returnByValue=True,
                expression=f"axe.run(document, {rules}).then(r => ({{ found: {say}, passed: r.passes.map(p => p.id) }}))",
            )["result"]["value"]  # fmt: skip
            assert "color-contrast" in told["passed"]
            assert [v for v in told["found"] if v[1] != "minor"] == [], (names, theme)
