"""The record of a session: one for each plan, with what was finished, whatever becomes of the session."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from session_adapters import FEW, ONE, decorated, essence
from sessions import ended

from verifier import record
from verifier.engine.events import Stop
from verifier.engine.plan import Plan
from verifier.errors import VerifierError
from verifier.testing import keeping
from verifier.testing.running import Introduction, News

ONLY = ("build.adapter",)


def several(*sources: str) -> str:
    """One file of several decorated functions."""
    return "\n".join(source.replace("test_conforms", f"test_{place}") for place, source in enumerate(sources))


@pytest.mark.slow
def test_each_adapter_has_a_folder_of_its_own(session, folder: Path) -> None:
    both = (decorated(f'"mine:{name}"', where=ONE, only=ONLY) for name in ("Right", "Wrong"))
    (folder / "test_it.py").write_text(several(*both))
    done = session("test_it.py", "--verifier-out", "two")
    assert done.counts == {"passed": 2}
    for name in ("Right", "Wrong"):
        assert {place.name for place in (folder / "two" / f"falcon-mine-{name}").iterdir()} == {
            "record.jsonl",
            "report.html",
        }
        assert f"falcon × mine:{name} ({name.lower()} 1.0): CONFORMS" in done.out


@pytest.mark.slow
def test_two_plans_of_one_adapter_do_not_overwrite_each_other(session, folder: Path) -> None:
    first = decorated('"mine:Right"', where=ONE, only=ONLY)
    second = decorated('"mine:Right"', where=ONE.replace("bias=true", "bias=false"), only=ONLY)
    (folder / "test_it.py").write_text(several(first, second))
    done = session("test_it.py", "--verifier-out", "plans")
    places = list((folder / "plans").iterdir())
    assert len(places) == 2
    cases = [set(record.read(place).cases) for place in places]
    assert [len(some) for some in cases] == [1, 1]
    assert not cases[0] & cases[1]
    assert done.out.count("record and report  plans/falcon-mine-Right-") == 2


@pytest.mark.slow
def test_two_functions_with_one_plan_share_its_cases(session, folder: Path) -> None:
    source = decorated('"mine:Right"', where=ONE, only=ONLY)
    (folder / "test_it.py").write_text(several(source, source))
    (folder / "wrapped.txt").unlink(missing_ok=True)
    assert session("test_it.py", "--verifier-out", "one").counts == {"passed": 2}
    assert len((folder / "wrapped.txt").read_text().splitlines()) == 1
    assert len(essence(folder / "one" / "falcon-mine-Right")) == 1


@pytest.mark.slow
def test_the_record_of_another_run_is_left_alone_and_the_tests_are_run(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=ONE, only=ONLY))
    session("test_it.py", "--verifier-out", "taken")
    place = folder / "taken" / "falcon-mine-Right" / record.FILE
    other = place.read_text().replace('"adapter": "mine:Right"', '"adapter": "mine:Other"')
    place.write_text(other)
    done = session("test_it.py", "--verifier-out", "taken")
    assert done.counts == {"passed": 1}
    assert done.status == pytest.ExitCode.TESTS_FAILED
    complaints = [line for line in done.out.splitlines() if line.startswith("verifier: ")]
    assert len(complaints) == 1
    assert "is the record of another run, of falcon × mine:Other" in complaints[0]
    assert complaints[0].endswith("name another folder with --verifier-out")
    assert "falcon × mine:Right (right 1.0): CONFORMS" in done.out
    assert place.read_text() == other


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_told(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=ONE, only=ONLY))
    (folder / "file").write_text("")
    done = session("test_it.py", "--verifier-out", "file")
    assert done.counts == {"passed": 1}
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "verifier: cannot write a record into 'file/falcon-mine-Right'" in done.out
    assert "Traceback" not in done.out


@pytest.mark.slow
def test_nothing_stays_where_nothing_was_asked_for(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=ONE, only=ONLY))
    before = set(folder.iterdir())
    assert session("test_it.py").counts == {"passed": 1}
    assert {place.name for place in set(folder.iterdir()) - before} <= {"__pycache__", "wrapped.txt"}


@pytest.mark.slow
def test_an_adapter_that_goes_elsewhere_takes_the_record_nowhere(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Wanders"', where=ONE, only=ONLY))
    done = session("test_it.py", "--verifier-no-isolation", "--verifier-out", "wandered")
    assert done.counts == {"failed": 2}, done.out  # the test and its subtest
    assert "state.process FAIL" in done.out
    assert (folder / "wandered" / "falcon-mine-Wanders" / "report.html").exists()


@pytest.mark.slow
def test_half_a_character_reaches_the_process_that_keeps_the_record(process, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Mumbles"', where=ONE, only=ONLY))
    done = ended(process("test_it.py", "-n", "1", "--verifier-out", "mumbled"))
    assert done.counts == {"failed": 1}, done.out
    (entry,) = record.read(folder / "mumbled" / "falcon-mine-Mumbles").entries
    assert entry.outcome.message == "RuntimeError: cannot wrap \\ud800 this"


def test_a_disk_that_is_full_from_the_first_line_on_fails_no_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: record.Writer, line: record.RunLine) -> None:
        raise VerifierError("cannot write to it: the disk is full")

    monkeypatch.setattr(record.Writer, "run", full)
    texts: dict[str, Any] = dict.fromkeys(("family", "adapter", "adapter_name", "adapter_version", "started"), "x")
    many: dict[str, Any] = {name: {} for name in ("versions", "flags", "dims", "planned", "asked")}
    introduction = Introduction(
        line=record.RunLine(**texts, **many, seed=0, checks=[], workers=1),
        plan=Plan(family="x", adapter="x", specs=()),
        baseline=None,
        folder="kept",
        isolated=False,
        is_object=False,
    )
    keeper = keeping.Keeper(tmp_path)
    for introduced in (introduction, None, None):
        keeper.note(News(plan="p", introduction=introduced, events=()))
    assert keeper.complaints == ["cannot write to it: the disk is full"]
    assert keeper.finish(Stop.COMPLETE, 1.0) == []


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_finished(process, folder: Path) -> None:
    (folder / "test_slow.py").write_text(decorated('"mine:Slow"', only=ONLY))
    (folder / "sleep").write_text("")
    place = folder / "slow" / "falcon-mine-Slow" / record.FILE
    started = process("test_slow.py", "--verifier-out", "slow")
    deadline = time.monotonic() + 120
    while not place.exists() or place.read_text().count('"kind": "done"') < 1:
        assert time.monotonic() < deadline
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    time.sleep(1)  # into the second case, which sleeps
    os.kill(started.pid, signal.SIGINT)
    done = ended(started, 30)
    (folder / "sleep").unlink()
    assert done.status == pytest.ExitCode.INTERRUPTED, done.out
    kept = record.read(place)
    assert kept.end is not None
    assert kept.end.stop == Stop.INTERRUPTED
    assert kept.run.planned == {"valid": 4, "refused": 0}
    assert 1 <= len(kept.done) < 4
    assert "INTERRUPTED" in done.out
    assert place.with_name("report.html").exists()


@pytest.mark.slow
def test_an_interrupt_in_a_test_of_others_is_theirs(session, folder: Path) -> None:
    """Between two cases a worker is kept, and Ctrl-C is not its run's."""
    ours = decorated('"mine:Right"', where=FEW + ",bias=true", only=ONLY)
    (folder / "test_it.py").write_text(
        "import os, signal, pytest\n"
        + ours
        + "\n    with pytest.raises(KeyboardInterrupt):\n        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = session("test_it.py")
    assert done.counts == {"passed": 2}, done.out


@pytest.mark.slow
def test_the_record_has_a_line_for_each_circumstance(session, folder: Path) -> None:
    where = f"{ONE},dtype=float64"
    (folder / "test_it.py").write_text(decorated('"mine:Right"', where=where, only=("forward.outputs",)))
    assert session("test_it.py", "--verifier-out", "rows").counts == {"passed": 1}
    kept = record.read(folder / "rows" / "falcon-mine-Right")
    (spec,) = kept.cases.values()
    assert [row.circumstance for row in kept.rows] == list(spec.circumstances)
    assert kept.rows
