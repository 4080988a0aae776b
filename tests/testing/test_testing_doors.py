"""A decorated test and the command line of pytest say what `verifier run` says, whoever spreads the items."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from session_adapters import FEW, LOGITS, ONLY, decorated, essence, wishes
from sessions import Ended, ended

from verifier import record
from verifier.analysis.summary import summarize
from verifier.errors import ExitStatus

SPREADS = ("load", "worksteal")
OTHERS = """\
import os, pytest, time

@pytest.mark.parametrize("number", range(8))
def test_other(number):
    with open("others.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    # The other process may be at a case: those that are left wait for it, whatever a case takes.
    until = time.monotonic() + 60
    while len(set(open("others.txt").read().split())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def ran(command, folder: Path) -> Path:
    """What the command says."""
    only = [word for glob in ONLY for word in ("--only", glob)]
    done = command("run", "falcon", "--adapter", "mine:Wrong", "--where", FEW, *only, "--workers", 1, "--out", "ran")
    assert done.status == ExitStatus.DIFFERS
    return folder / "ran"


@pytest.fixture(scope="module")
def by_decorator(session, folder: Path) -> Ended:
    (folder / "test_decorated.py").write_text(decorated('"mine:Wrong"'))
    return session("test_decorated.py", "--verifier-out", "decorated")


@pytest.fixture(scope="module")
def by_command_line(session) -> Ended:
    return session(*wishes("mine:Wrong"), "--ignore-glob", "test_*", "--verifier-out", "written")


@pytest.fixture(scope="module")
def spread(process, folder: Path) -> dict[str, Ended]:
    """Sessions of two processes, by how xdist spreads them, with tests of others in them."""
    (folder / "test_spread.py").write_text(decorated('"mine:Wrong"'))
    (folder / "test_others.py").write_text(OTHERS)
    done = {}
    for how in SPREADS:
        for name in ("wrapped.txt", "others.txt"):
            (folder / name).unlink(missing_ok=True)
        done[how] = ended(
            process("-n", 2, "--dist", how, "test_spread.py", "test_others.py", "--verifier-out", f"spread-{how}")
        )
        for name in ("wrapped.txt", "others.txt"):
            (folder / name).rename(folder / f"{how}-{name}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize("door", ["decorated", "written"])
def test_the_outcomes_are_those_of_the_command(ran, by_decorator, by_command_line, folder: Path, door: str) -> None:
    assert essence(folder / door / "falcon-mine-Wrong") == essence(ran)


@pytest.mark.slow
def test_the_record_has_everything_that_the_commands_has(ran, by_decorator, folder: Path) -> None:
    mine, theirs = (record.read(place) for place in (folder / "decorated" / "falcon-mine-Wrong", ran))
    assert mine.end is not None
    assert theirs.end is not None
    assert (mine.end.counts, mine.end.exit, mine.end.stop) == (theirs.end.counts, theirs.end.exit, theirs.end.stop)
    assert mine.run.planned == theirs.run.planned
    assert mine.run.checks == theirs.run.checks
    assert mine.run.versions == theirs.run.versions
    assert mine.run.limits == theirs.run.limits
    assert mine.cases == theirs.cases
    assert mine.evidence.keys() == theirs.evidence.keys()
    assert mine.evidence


@pytest.mark.slow
def test_the_page_is_there_too(by_decorator, folder: Path) -> None:
    assert LOGITS in (folder / "decorated" / "falcon-mine-Wrong" / "report.html").read_text()


@pytest.mark.slow
def test_the_doors_are_alike(by_decorator: Ended, by_command_line: Ended) -> None:
    assert by_decorator.status == by_command_line.status == pytest.ExitCode.TESTS_FAILED
    assert by_decorator.counts == by_command_line.counts
    assert by_decorator.counts == {"failed": 2 + 2, "passed": 6}  # subtests that fail, and what contains them


def test_the_terminal_ends_with_the_verdict(by_decorator: Ended) -> None:
    assert "falcon × mine:Wrong (wrong 1.0): DOES NOT CONFORM (1 bug in 2 cases)" in by_decorator.out
    assert "4 valid cases, 0 refused by HF" in by_decorator.out
    assert "record and report  decorated/falcon-mine-Wrong" in by_decorator.out


def test_an_item_is_named_after_its_flags_its_case_and_its_area(by_decorator: Ended, ran: Path) -> None:
    (case,) = [one for one in record.read(ran).cases.values() if one.config["bias"] and one.config["parallel_attn"]]
    for area in ("build", "forward"):
        name = f"test_decorated.py::test_conforms[alibi+num_ln_in_parallel_attn:1+bias-{case.id}-{area}]"
        assert name in by_decorator.out


def test_a_failure_is_told_as_the_command_tells_it(by_decorator: Ended) -> None:
    story = by_decorator.out.partition(f"forward.logits FAIL {LOGITS}")[2]
    assert story.split("\n")[1].startswith("  where    logits")
    assert "  config   alibi=true num_ln_in_parallel_attn=1 bias=true" in story
    assert any(line.startswith(f"SUBFAILED[forward.logits {LOGITS}]") for line in by_decorator.summary)
    assert "Traceback" not in by_decorator.out


@pytest.mark.slow
@pytest.mark.parametrize("how", SPREADS)
def test_two_processes_say_the_same(ran: Path, spread, by_decorator: Ended, folder: Path, how: str) -> None:
    assert essence(folder / f"spread-{how}" / "falcon-mine-Wrong") == essence(ran), spread[how].out
    assert spread[how].counts == by_decorator.counts | {"passed": by_decorator.counts["passed"] + 8}
    assert "DOES NOT CONFORM (1 bug in 2 cases)" in spread[how].out
    mine, theirs = (summarize(record.read(place)) for place in (folder / f"spread-{how}" / "falcon-mine-Wrong", ran))
    assert (mine.counts, mine.looked, mine.expected) == (theirs.counts, theirs.looked, theirs.expected)


@pytest.mark.slow
def test_no_case_is_built_in_two_processes(spread, folder: Path) -> None:
    wrapped = {tuple(line.split()) for line in (folder / "load-wrapped.txt").read_text().splitlines()}
    again = {case: number for case, number in Counter(case for case, _ in wrapped).items() if number > 1}
    # The closer look at the smallest failing case, and its failure once more alone, are each in a process of their own,
    # once the session is over.
    assert again == {"True-True": 3}
    assert len({process for _, process in wrapped}) == 4


@pytest.mark.slow
def test_other_tests_are_still_spread(spread, folder: Path) -> None:
    assert len(set((folder / "load-others.txt").read_text().split())) == 2
