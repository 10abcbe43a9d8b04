"""Repair tasks are deterministic and sound, their tools and environment behave, and a grade cannot be tampered with."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jailed import sandbox

from stepwell.errors import UnknownName, UsageError
from stepwell.rollout.environments import Observation
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.environments.truth import line_distance
from stepwell.rollout.families import EVAL_FAMILIES, FAMILIES, TRAIN_FAMILIES
from stepwell.rollout.policies.scripted import sub_command
from stepwell.rollout.repair import Case, Difficulty, RepairTask, evaluate, make_task, mutations
from stepwell.rollout.sandbox import Sandbox
from stepwell.rollout.scaffolds import KEEP, is_submission, render
from stepwell.rollout.scaffolds.bash import BashScaffold, format_action, parse_action

EASY = Difficulty(3, 1, 1, 1.0, "source")
HARD = Difficulty(5, 2, 3, 0.5, "name")
GLUE = {"is", "of", "in", "can", "each", "new", "after", "any"}


DRAWN = Difficulty(3, 1, 2, 0.8, "source", drawn=True)
SHORT = Difficulty(3, 1, 2, 0.8, "source", drawn=True, one_token=True)


def run_cases(source: str, cases: tuple[Case, ...]) -> list[bool]:
    """Run our own text of a module on cases."""
    return [evaluate(source.split("\n"), c.function, [eval(f"({c.args},)")])[0] == c.want for c in cases]


def test_families_share_no_nouns() -> None:
    assert len(TRAIN_FAMILIES) >= 10
    assert len(EVAL_FAMILIES) == 3
    assert not set(TRAIN_FAMILIES) & set(EVAL_FAMILIES)
    nouns = {
        family: {
            word for f in functions for name in (f.name, *(a for a, _ in f.args)) for word in name.split("_")
        } - GLUE
        for family, functions in FAMILIES.items()
    }  # fmt: skip
    assert all(len(functions) >= 6 for functions in FAMILIES.values())
    for family, words in nouns.items():
        others = set().union(*(nouns[other] for other in nouns if other != family))
        assert not words & others, family


def test_a_short_bug_is_repaired_by_naming_one_token() -> None:
    written = Difficulty(6, 1, 3, 1.0, "line", one_token=True)
    kinds = set()
    for seed in range(200):
        for difficulty in (SHORT, written):
            task = make_task(seed, TRAIN_FAMILIES, difficulty)
            have, want = task.source.split("\n"), task.solution.split("\n")
            for bug in task.bugs:
                kinds.add(bug.kind)
                command = sub_command(bug.line, have[bug.line - 1], want[bug.line - 1])
                assert command == f"sub {bug.line} '{bug.wrong}' '{bug.right}'"
    assert len(kinds) >= 5


def test_every_function_is_short_and_has_live_mutants() -> None:
    kinds = set()
    for functions in FAMILIES.values():
        for function in functions:
            assert len(function.body) <= 2
            assert all("  # " in line and len(line) < 80 for line in function.body)
            kinds |= {mutation.kind for mutation in mutations(function)}
            for mutation in mutations(function):
                line = function.body[mutation.body_line]
                assert line[mutation.at :].startswith(mutation.old)
                assert mutation.apply(line).partition("  #")[2] == line.partition("  #")[2]
    assert kinds == {"arithmetic", "comparison", "constant", "variable", "builtin", "negation"}


def test_tasks_are_deterministic_and_distinct() -> None:
    tasks = [make_task(seed, TRAIN_FAMILIES, HARD) for seed in range(200)]
    assert tasks == [make_task(seed, TRAIN_FAMILIES, HARD) for seed in range(200)]
    assert len({task.task_id for task in tasks}) == 200
    assert all(re.fullmatch(r"repair-[a-z]+-[0-9a-f]{12}", task.task_id) for task in tasks)
    assert make_task(7, ("prices",), EASY).task_id == "repair-prices-0913a5e97ee6"


@settings(max_examples=150)
@given(st.integers(0, 2**40), st.sampled_from([EASY, HARD, Difficulty(4, 1, 3, 0.0, "line"), DRAWN, SHORT]))
def test_tasks_are_sound(seed: int, difficulty: Difficulty) -> None:
    task = make_task(seed, (*TRAIN_FAMILIES, *EVAL_FAMILIES), difficulty)
    assert all(run_cases(task.solution, (*task.visible, *task.hidden)))
    assert difficulty.bugs_min <= len(task.bugs) <= difficulty.bugs_max
    assert line_distance(task.source, task.solution) == len(task.bugs)
    source, solution = task.source.split("\n"), task.solution.split("\n")
    for bug in task.bugs:  # each bug alone is caught by the hidden tests, and by the visible ones as it says
        alone = [*solution[: bug.line - 1], source[bug.line - 1], *solution[bug.line :]]
        assert not all(run_cases("\n".join(alone), task.hidden))
        assert all(run_cases("\n".join(alone), task.visible)) != bug.visible
    assert difficulty.p_visible != 1.0 or all(bug.visible for bug in task.bugs)


def test_hidden_tests_catch_any_single_mutation() -> None:
    for seed in range(30):
        task = make_task(seed, TRAIN_FAMILIES, HARD)
        by_name = {function.name: function for function in FAMILIES[task.family]}
        for name in {case.function for case in task.hidden}:
            function = by_name[name]
            cases = tuple(case for case in task.hidden if case.function == name)
            for mutation in mutations(function):
                body = list(function.body)
                body[mutation.body_line] = mutation.apply(body[mutation.body_line])
                text = "\n".join([function.lines()[0], *body])
                inputs = [eval(f"({case.args},)") for case in (*task.visible, *task.hidden) if case.function == name]
                alive = evaluate(text.split("\n"), name, inputs) != evaluate(function.lines(), name, inputs)
                assert not alive or not all(run_cases(text, cases))


def test_impossible_difficulties_are_refused() -> None:
    for arguments in ((3, 0, 1, 0.5), (3, 2, 1, 0.5), (2, 1, 3, 0.5), (3, 1, 1, 1.5), (9, 1, 1, 0.5)):
        with pytest.raises(UsageError):
            Difficulty(*arguments, "line")
    with pytest.raises(UnknownName):
        make_task(0, ("nothing",), EASY)
    with pytest.raises(UsageError):
        make_task(0, (), EASY)


def test_the_tools() -> None:
    task = make_task(3, ("prices",), EASY)
    bug = task.bugs[0]
    line = task.source.split("\n")[bug.line - 1]
    with RepairEnvironment(task, sandbox()) as env:
        viewed = env.execute("view").raw
        assert viewed == "".join(f"{n}: {text}\n" for n, text in enumerate(task.source.splitlines(), 1))
        failing = env.execute("check")
        assert failing.exit_code == 1
        assert re.match(rf"FAIL {bug.function}\(.*\) gave .*, want .* at line \d+\n\d+: ", failing.raw)
        assert f"\n{bug.line}: {line.strip()}\n" in failing.raw
        last = len(task.source.splitlines())
        for command, said in {
            "sub": "usage: sub LINE 'OLD' 'NEW'\n",
            "sub 99 a b": f"error: no line 99, last is {last}\n",
            f"sub {bug.line} zzz b": f"error: 'zzz' is 0 times on line {bug.line}\n",
            f"sub {bug.line} '' b": f"error: '' is 0 times on line {bug.line}\n",
            f"sub {bug.line} ' ' b": f"error: ' ' is {line.partition('  #')[0].count(' ')} times on line {bug.line}\n",
            f"sub {bug.line} return 'return ('": "error: does not parse, not changed\n",
        }.items():
            before = env.state
            seen = env.execute(command)
            assert (seen.raw, seen.exit_code, env.state) == (said, 1, before)
        right = task.solution.split("\n")[bug.line - 1]
        code, want = (shlex.quote(text.partition("  #")[0]) for text in (line, right))
        before = env.state
        fixed = env.execute(f"sub {bug.line} {code} {want}")
        assert (fixed.raw, fixed.exit_code) == (f"{bug.line}: {right}\n", 0)
        assert env.state != before
        assert env.execute("check").raw == f"ok: {len(task.visible)} passed\n"
        assert env.distance() == 0
        done = env.execute("submit")
        assert is_submission(done.raw, done.exit_code)
        assert env.grade().resolved


@pytest.mark.parametrize(("report", "pattern"), [("name", r"want \S+\n$"), ("line", r" at line \d+\n$")])
def test_check_reports_as_asked(report: str, pattern: str) -> None:
    task = make_task(3, TRAIN_FAMILIES, Difficulty(3, 1, 1, 1.0, report))  # type: ignore[arg-type]
    with RepairEnvironment(task, sandbox()) as env:
        assert re.search(pattern, env.execute("check").raw)
        env.execute("echo 'def (' > mod.py")
        assert env.execute("check").raw == "FAIL mod.py does not parse at line 1\n"
        env.execute("echo 'import sys; sys.exit(0)' > mod.py")
        assert env.execute("check").exit_code == 1
        env.execute("rm mod.py; mkdir mod.py")
        assert env.execute("check").raw == "FAIL cannot read mod.py\n"
        assert env.execute("ls").exit_code == 0
        assert not env.grade().resolved


def test_hidden_tests_are_not_in_the_jail() -> None:
    task = make_task(5, TRAIN_FAMILIES, HARD)
    shown = {case.name for case in task.visible}
    secret = next(case for case in task.hidden if case.name not in shown)
    with RepairEnvironment(task, sandbox()) as env:
        text = env.execute("cat /opt/tools/* /work/* /tmp/* /proc/*/cmdline /proc/*/environ 2>/dev/null").raw
    assert repr((secret.function, secret.args, secret.want))[1:-1] not in text
    assert repr((task.visible[0].function, task.visible[0].args, task.visible[0].want))[1:-1] in text


TAMPERING = {
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "always equal": "class E:\n def __eq__(s, o): return True\n def __repr__(s): return 'True'\n"
    "import builtins\nbuiltins.repr = lambda x: 'True'\nbuiltins.eval = lambda *a: ()",
    "write results": "import os\nfor fd in range(3, 9):\n"
    " try: os.write(fd, b''.join(b'%d\\tTrue\\n' % i for i in range(99)))\n except OSError: pass",
    "print ok": "print('ok: 8 passed')\nimport atexit, os\natexit.register(lambda: os._exit(0))",
    "rewrite the grader": "import os\nfor p in ('/opt/tools/grade', 'calls.txt', 'cases.txt'):\n"
    " try: open(p, 'w').write('')\n except OSError: pass",
    "loop": "while True: pass",
    "recurse": "def f(): f()\nf()",
    "kill": "import os\nos.kill(0, 9)",
    "raise": "raise BaseException",
    "flood": "import sys\nwhile True: sys.stdout.write('x' * 9999)",
    "not utf-8": "\udcff",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_does_not_resolve(name: str) -> None:
    quick = Sandbox(sandbox().mode, dataclasses.replace(sandbox().limits, wall_s=1.0))
    task = make_task(11, TRAIN_FAMILIES, EASY)
    with RepairEnvironment(task, quick) as env:
        text = TAMPERING[name].encode("utf-8", "surrogateescape")
        for whole in (text + b"\n" + task.source.encode(), task.source.encode() + text + b"\n"):
            assert env._jail is not None
            env._jail.write("mod.py", whole)
            env.execute("true")
            assert env.state != env.task.source
            grade = env.grade()
            assert not grade.resolved
            assert len(grade.tests) == len(task.visible) + len(task.hidden)


def test_tampering_with_the_tools_does_not_resolve() -> None:
    task = make_task(11, TRAIN_FAMILIES, EASY)
    with RepairEnvironment(task, sandbox()) as env:
        for command in (
            "echo 'echo ok: 6 passed' > /opt/tools/check; echo > /opt/tools/cases.txt",
            "rm -rf /opt/tools /work/*; echo 'echo ok: 6 passed' > check; PATH=/work:$PATH; chmod +x check; check",
            "ln -sf /opt/tools/cases.txt mod.py",
            "rm mod.py; mkfifo mod.py",
            "rm mod.py; mkdir -p mod.py/mod.py; chmod 000 mod.py",
            "echo SUBMITTED",
        ):
            env.execute(command)
            assert not env.grade().resolved


def test_the_untouched_module_does_not_resolve_and_the_solution_does() -> None:
    for seed in range(12):
        task = make_task(seed, (*TRAIN_FAMILIES, *EVAL_FAMILIES), HARD)
        with RepairEnvironment(task, sandbox()) as env:
            grade = env.grade()
            assert not grade.resolved
            assert any(not test.passed for test in grade.tests if test.group == "hidden")
            env.execute(f"cat > mod.py <<'EOF'\n{task.solution}EOF")
            assert env.grade().resolved


def test_instructions_are_short() -> None:
    brief = RepairEnvironment(make_task(0, TRAIN_FAMILIES, EASY), sandbox()).brief
    system, user = (message["content"] for message in BashScaffold().instruct(brief))
    assert len(system.splitlines()) <= 3
    assert len(user.splitlines()) == 1


def test_one_block_is_an_action() -> None:
    assert parse_action(format_action("Look.", "view")).command == "view"
    assert parse_action("THOUGHT: x\n\n```bash\na\nb\n```\nmore").command == "a\nb"
    for text, count in (("no", 0), (format_action("x", "a", "b"), 2), ("```bash\n\n```", 0), ("```python\na\n```", 0)):
        assert parse_action(text).error == f"FORMAT ERROR: {count} bash blocks, want exactly 1."


@given(st.text(), st.one_of(st.none(), st.integers(-255, 255)))
def test_rendering_keeps_both_ends(raw: str, code: int | None) -> None:
    shown = render(Observation(raw, code, 0.1))
    assert shown.elided == max(0, len(raw) - 2 * KEEP)
    assert shown.text.startswith(f"<returncode>{-1 if code is None else code}</returncode>\n<output>\n")
    assert shown.text.endswith("</output>")


def test_long_output_is_elided() -> None:
    shown = render(Observation("a" * 6_000 + "b" * 6_000, 0, 0.1))
    assert shown.elided == 2_000
    assert "a" * KEEP + "\n<elided 2000 characters>\n" + "b" * KEEP in shown.text


@given(st.text(alphabet="ab\n", max_size=30), st.text(alphabet="ab\n", max_size=30))
def test_distance_is_a_distance(one: str, other: str) -> None:
    assert line_distance(one, one) == 0
    assert line_distance(one, other) == line_distance(other, one) <= max(one.count("\n"), other.count("\n")) + 1


def test_a_huge_module_has_a_distance() -> None:
    task: RepairTask = make_task(0, TRAIN_FAMILIES, EASY)
    assert line_distance("x\n" * 100_000, task.solution) == 100_000
