"""What a session selects is what is run, and its record says that it was not everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from session_adapters import ONE, ONLY, decorated, wishes
from sessions import Ended

from verifier import record
from verifier.engine.events import Stop
from verifier.record.known_failure import narrowing

WHERE = ONE.replace(",bias=true", "")  # two cases, of which the one with a bias fails
PLACE = "kept/falcon-mine-Wrong"


@pytest.fixture(scope="module")
def everything(session, folder: Path) -> Ended:
    """Everything that can be selected, collected and not run."""
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=WHERE))
    return session("--collect-only", "-q", "test_it.py", *wishes("mine:Wrong", where=WHERE))


def names(out: str) -> list[str]:
    return re.findall(r"^\S+::test_conforms\[\S+\]$", out, flags=re.MULTILINE)


@pytest.mark.slow
def test_collecting_runs_nothing(everything: Ended, folder: Path) -> None:
    assert everything.status == 0
    assert len(names(everything.out)) == 2 * 4  # either door, two cases with two areas
    assert not (folder / "wrapped.txt").exists()
    assert "CONFORM" not in everything.out


@pytest.mark.slow
def test_a_word_selects(session, everything: Ended, folder: Path) -> None:
    done = session("test_it.py", "-k", "bias and forward", "--verifier-out", "kept")
    assert done.counts == {"failed": 2, "deselected": 3}
    kept = record.read(folder / PLACE)
    assert len(kept.cases) == 1
    assert {entry.outcome.check for entry in kept.entries} == {"forward.logits", "forward.causality"}
    assert kept.run.planned == {"valid": 1, "refused": 0}


@pytest.mark.slow
def test_the_record_says_what_was_not_selected(session, everything: Ended, folder: Path) -> None:
    session("test_it.py", "-k", "forward", "--verifier-out", "kept")
    asked = record.read(folder / PLACE).run.asked
    assert asked["items"] == "4 of 8 outcomes"
    assert narrowing(asked) != narrowing({name: wish for name, wish in asked.items() if name != "items"})


@pytest.mark.slow
@pytest.mark.parametrize("door", ["test_it.py", "falcon"])
def test_a_test_is_run_by_the_name_that_it_fails_with(session, everything: Ended, door: str) -> None:
    (name,) = [one for one in names(everything.out) if one.startswith(door) and "bias" in one and "forward" in one]
    done = session(name, *(wishes("mine:Wrong", where=WHERE) if door == "falcon" else ()))
    assert done.counts == {"failed": 2}
    assert f"FAILED {name}" in done.out


@pytest.mark.slow
def test_a_name_that_is_nobodys_is_told(session, everything: Ended) -> None:
    (name,) = [one for one in names(everything.out) if one.startswith("falcon") and "bias" in one and "forward" in one]
    done = session(name.replace("forward", "forwards"), *wishes("mine:Wrong", where=WHERE))
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert f"there is no test {name.replace('forward', 'forwards')!r} (did you mean {name!r}?)" in done.out
    assert "Traceback" not in done.out


@pytest.mark.slow
def test_what_failed_is_run_again(session, everything: Ended) -> None:
    first = session("test_it.py", plain=("-rA",))
    again = session("test_it.py", "--lf", plain=("-rA",))
    assert first.counts == {"failed": 2, "passed": 3}
    assert again.counts["failed"] == 2
    assert "passed" not in again.counts


@pytest.mark.slow
def test_a_session_that_stops_at_the_first_failure_keeps_what_was_finished(session, folder: Path) -> None:
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', where=WHERE.replace("parallel_attn=true", "")[:-1]))
    done = session("test_it.py", "-x", "--verifier-out", "kept")
    kept = record.read(folder / PLACE)
    assert done.counts["failed"] <= 2
    assert len(kept.done) == 2  # of four
    assert kept.end is not None
    assert kept.end.stop == Stop.INTERRUPTED
    assert "INTERRUPTED" in done.out


@pytest.mark.slow
def test_what_is_selected_of_the_checks_is_what_is_named(session, everything: Ended) -> None:
    for name in names(everything.out):
        assert re.search(r"-[a-z0-9]{8}-(build|forward)\]$", name)
    assert {glob.partition(".")[0] for glob in ONLY} == {"build", "forward"}
