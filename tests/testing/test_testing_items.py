"""An item passes, fails, is skipped or dies by itself, and takes no other one along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from session_adapters import FEW, LOGITS, ONE, decorated, wishes
from sessions import Ended

from verifier.requests.cases import select_cases
from verifier.requests.request import RunRequest
from verifier.testing.parametrizing import CaseUnderTest, ChecksUnderTest
from verifier.testing.plans import list_items, plan_decorated


@pytest.fixture
def mood(folder: Path):
    """Sets what `mine:Wrong` does, for one test."""
    yield (folder / "mood").write_text
    (folder / "mood").unlink(missing_ok=True)


def test_one_failing_check_does_not_hide_the_others(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=ONE))
    done = session("-v", "test_it.py")
    assert done.counts == {"failed": 2, "passed": 1, "skipped": 1, "subtests passed": 2}
    assert f"SUBFAILED[forward.logits {LOGITS}]" in done.out
    assert "SUBPASSED[forward.causality]" in done.out
    assert "SUBSKIPPED[build.tied]" in done.out


@pytest.mark.slow
def test_an_item_for_each_check(session) -> None:
    done = session("-v", *wishes("mine:Wrong", where=ONE), "--verifier-per", "check", "--ignore-glob", "test_*")
    assert done.counts == {"failed": 1, "passed": 2, "skipped": 1}
    assert "-forward.logits] FAILED" in done.out
    assert "-forward.causality] PASSED" in done.out
    assert "-build.tied] SKIPPED (not applicable: " in done.out


@pytest.mark.slow
def test_an_item_whose_checks_were_all_skipped_is_skipped_and_nothing_of_that_is_green(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=ONE, only=("qkv",)))
    done = session("test_it.py")
    assert done.counts == {"skipped": 1}
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "INCONCLUSIVE (no check that looks at the adapter ran: not applicable" in done.out


@pytest.mark.slow
def test_a_failure_of_what_nobody_selected_is_told(session, folder: Path, mood) -> None:
    mood("raises")
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=ONE, only=("forward.causality",)))
    done = session("test_it.py")
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "SUBFAILED[build.adapter " in done.out
    assert "RuntimeError: cannot" in done.out


@pytest.mark.slow
def test_what_the_adapter_says_cannot_write_to_the_terminal(session, folder: Path, mood) -> None:
    mood("raises")
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=ONE, only=("build.adapter",)))
    done = session("test_it.py", "--color=no")
    assert "cannot" in done.out
    assert "\x1b" not in done.out


@pytest.mark.slow
def test_a_crash_and_a_hang_fail_their_items_and_nothing_else(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Deadly"', only=("build.adapter",), more=", timeout=3"))
    done = session("test_it.py")
    assert done.counts == {"failed": 2, "passed": 2}
    assert "build.adapter CRASH" in done.out
    assert "SIGSEGV" in done.out
    assert "build.adapter TIMEOUT" in done.out
    assert "DOES NOT CONFORM (2 bugs in 2 cases)" in done.out


@pytest.mark.slow
def test_an_adapter_that_raises_at_import_is_told_once(session, folder: Path) -> None:
    (folder / "broken.py").write_text('raise ValueError("this cannot be imported")')
    done = session(*wishes("broken:Adapter", where=FEW, only=("build",)), "--ignore-glob", "test_*")
    assert done.counts == {"failed": 1, "skipped": 3}
    assert "adapter 'broken:Adapter' raised at import: ValueError: this cannot be imported" in done.out
    assert "Traceback" not in done.out
    assert done.out.count("SKIPPED [") == 1


@pytest.mark.slow
def test_a_thing_that_is_no_adapter_is_told_once(session) -> None:
    done = session(*wishes("mine:Unnamed", where=FEW, only=("build",)), "--ignore-glob", "test_*")
    assert done.counts == {"failed": 1, "skipped": 3}
    assert "'mine:Unnamed' is no adapter: it has no `name` and no `version`" in done.out


def wrapped_in(folder: Path) -> set[int]:
    """The processes in which something was wrapped since this was last asked."""
    place = folder / "wrapped.txt"
    found = {int(line.split()[1]) for line in place.read_text().splitlines()} if place.exists() else set()
    place.unlink(missing_ok=True)
    return found


@pytest.mark.slow
def test_an_adapter_object_runs_in_this_process(session, folder: Path) -> None:
    source = "import mine\n" + decorated("mine.Threads()", where=ONE, only=("build.adapter",))
    (folder / "test_it.py").write_text(source)
    before = torch.get_num_threads()
    wrapped_in(folder)
    torch.set_num_threads(2)
    try:
        done = session("test_it.py", "--verifier-out", "here")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert done.counts == {"passed": 1}
    assert wrapped_in(folder) == {os.getpid()}
    assert "falcon × mine:Threads (right 1.0): CONFORMS" in done.out
    assert (folder / "here" / "falcon-mine-Threads" / "report.html").exists()


@pytest.mark.slow
def test_a_named_adapter_runs_in_this_process_where_that_is_asked_for(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=ONE, only=("forward.logits",)))
    wrapped_in(folder)
    asked = ("--verifier-no-isolation", "--verifier-out", "here")
    by_decorator = session("test_it.py", *asked)
    assert wrapped_in(folder) == {os.getpid()}
    by_command_line = session(
        *wishes("mine:Wrong", where=ONE, only=("forward.logits",)), *asked, "--ignore", "test_it.py"
    )
    assert wrapped_in(folder) == {os.getpid()}
    # One check alone is no subtest.
    assert by_decorator.counts == by_command_line.counts == {"failed": 1}
    assert LOGITS in (folder / "here" / "falcon-mine-Wrong" / "report.html").read_text()


@pytest.mark.slow
def test_without_the_plugin_what_fails_is_told_all_the_same(session, folder: Path) -> None:
    """There are neither subtests nor a record."""
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=ONE))
    done = session("test_it.py", "-p", "no:verifier", "-W", "ignore")
    assert done.counts == {"failed": 1, "passed": 1}
    assert f"forward.logits FAIL {LOGITS}" in done.out


def test_checks_are_of_the_case_that_they_came_with() -> None:
    plan = plan_decorated("falcon", "bridge", only="build", where=FEW)
    first, second = list_items(plan)[:2]
    assert first.spec != second.spec
    with pytest.raises(ValueError, match=f"these checks came with case {first.spec.id}, not with {second.spec.id}"):
        ChecksUnderTest(plan, first)(CaseUnderTest(second.spec))


def test_an_axis_and_a_quick_run_are_asked_for_as_of_the_command() -> None:
    plan = plan_decorated("falcon", "bridge", only="forward", where={"dtype": "bfloat16"}, quick=True)
    assert plan.run.specs == select_cases(RunRequest(family="falcon", where=("dtype=bfloat16",), quick=True))
    assert (plan.header["asked"]["where"], plan.header["asked"]["quick"]) == (["dtype=bfloat16"], True)
    assert {one["dtype"] for spec in plan.run.specs for one in spec.circumstances} == {"bfloat16"}


def test_an_object_cannot_be_isolated() -> None:
    from verifier import adapter

    with pytest.raises(adapter.UsageError, match="name it as 'module:object' to have it isolated"):
        plan_decorated("falcon", adapter.load("bridge"), isolation=True)


@pytest.mark.slow
def test_what_differs_in_anything_is_another_plan(tmp_path: Path) -> None:
    def made(**wishes: object) -> str:
        return plan_decorated("falcon", "bridge", **{"only": "build", "where": FEW} | wishes).id

    assert made() == made()
    others: list[dict[str, object]] = [
        {"only": "qkv"}, {"where": ONE}, {"seed": 1}, {"dtypes": ["bfloat16"]}, {"everywhere": True},
        {"where": "alibi=true"}, {"where": "alibi=true", "quick": True},
        {"timeout": 3}, {"memory": 10**9}, {"isolation": False}, {"per": "check"}, {"gate": ["reduced"]},
    ]  # fmt: skip
    assert len({made(), *(made(**one) for one in others)}) == 1 + len(others)


def gates(done: Ended) -> int:
    return done.counts.get("failed", 0)


@pytest.mark.slow
def test_a_verdict_gates_where_that_is_asked_for(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=ONE, only=("build.adapter", "build.tied")))
    assert gates(session("test_it.py")) == 0
    (folder / "test_it.py").write_text(
        decorated('"mine:Right"', where=ONE, only=("build.adapter", "build.tied"), more=", gate=['skip']")
    )
    done = session("test_it.py")
    assert gates(done) == 2  # the subtest, and what contains it
    assert "build.tied" in done.out
    assert "DOES NOT CONFORM (1 not applicable outcome, which gates here)" in done.out
