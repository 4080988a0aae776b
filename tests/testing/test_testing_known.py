"""Known failures are expected to fail, strictly, and excuse what they say and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from session_adapters import FEW, LOGITS, decorated, essence, wishes
from sessions import Ended

from verifier import record
from verifier.analysis.summary import summarize
from verifier.errors import ExitStatus
from verifier.record.known_failure import EntryState

pytestmark = pytest.mark.slow  # its sessions run for ten seconds

CHECKS = ("build.adapter", "forward.logits")
PLACE = "kept/falcon-mine-Wrong"
COMMAND = ("run", "falcon", "--adapter", "mine:Wrong", "--where", FEW, "--only", CHECKS[0], "--only", CHECKS[1])

Try = Callable[..., Ended]


@pytest.fixture(scope="module")
def written(command, folder: Path) -> str:
    """A baseline as the command writes it, which nobody has put a reason into."""
    command(*COMMAND, "--out", "ran")
    assert command("baseline", "ran", "--out", "unfinished.toml").status == 0
    return (folder / "unfinished.toml").read_text()


@pytest.fixture
def tried(session, written: str, folder: Path) -> Try:
    """A session that is held against the baseline, in which something is replaced."""
    finished = re.sub(r'^reason = ""', 'reason = "zeros are known"', written, flags=re.MULTILINE)
    finished = re.sub(r'^issue = ""', 'issue = "#7"', finished, flags=re.MULTILINE)

    def run(*more: object, mood: str = "zeros", change: tuple[str, str] = ("", "")) -> Ended:
        text = finished.replace(*change) if change[0] else finished
        assert text != finished or not change[0]
        (folder / "known.toml").write_text(text)
        (folder / "mood").write_text(mood)
        (folder / "test_it.py").write_text(decorated('"mine:Wrong"', only=CHECKS, more=', baseline="known.toml"'))
        done = session("test_it.py", "--verifier-out", "kept", *more)
        (folder / "mood").unlink()
        return done

    return run


def states(folder: Path) -> dict[str, EntryState]:
    held = record.read(folder / PLACE).held
    assert held is not None
    return {one.failure.fingerprint: one.state for one in held.settled}


@pytest.fixture(scope="module")
def by_command_line(session, written: str, folder: Path) -> Ended:
    finished = written.replace('reason = ""', 'reason = "zeros are known"').replace('issue = ""', 'issue = "#7"')
    (folder / "known.toml").write_text(finished)
    where = ("--verifier-baseline", "known.toml", "--verifier-out", "kept")
    return session(*wishes("mine:Wrong", only=CHECKS), *where, "--ignore-glob", "test_*")


def test_what_is_known_is_expected(by_command_line: Ended, folder: Path) -> None:
    assert by_command_line.status == 0
    # The entry's own case, and the two items in which it is seen.
    assert by_command_line.counts == {"passed": 6, "xfailed": 3}
    assert f"XFAIL falcon::test_conforms[known-{LOGITS}-" in by_command_line.out
    assert f"known {LOGITS}: zeros are known" in by_command_line.out
    assert "looked at (1 known failure)" in by_command_line.out
    assert states(folder) == {LOGITS: EntryState.KNOWN}


@pytest.mark.slow
def test_the_command_says_the_same_of_it(by_command_line: Ended, command, folder: Path) -> None:
    done = command(*COMMAND, "--baseline", "known.toml", "--out", "held")
    assert done.status == ExitStatus.CONFORMS
    assert essence(folder / PLACE) == essence(folder / "held")
    mine, theirs = (summarize(record.read(folder / place)) for place in (PLACE, "held"))
    assert (mine.status, mine.counts) == (theirs.status, theirs.counts)
    assert mine.baselined is not None
    assert theirs.baselined is not None
    assert mine.baselined.reasons == theirs.baselined.reasons
    assert mine.run.asked["baseline"] == theirs.run.asked["baseline"]


@pytest.mark.slow
def test_a_known_case_that_is_selected_is_run_once(tried: Try, folder: Path) -> None:
    (folder / "wrapped.txt").unlink(missing_ok=True)
    tried()
    wrapped = [line.split()[0] for line in (folder / "wrapped.txt").read_text().splitlines()]
    assert {wrapped.count(kind) for kind in set(wrapped)} == {wrapped.count(wrapped[0])}


@pytest.mark.slow
def test_what_is_fixed_must_go(tried: Try, folder: Path) -> None:
    done = tried(mood="right")
    assert done.counts == {"failed": 1, "passed": 8}
    assert f"[XPASS(strict)] known failure {LOGITS} of forward.logits is fixed" in done.out
    assert f"take it out: verifier baseline --remove {LOGITS} --out known.toml" in done.out
    assert states(folder) == {LOGITS: EntryState.FIXED}


@pytest.mark.slow
def test_a_failure_outside_the_rule_fails(tried: Try) -> None:
    done = tried(mood="everywhere")
    assert done.counts == {"failed": 2, "passed": 4, "xfailed": 3}
    assert "DOES NOT CONFORM" in done.out


@pytest.mark.slow
def test_another_failure_of_its_case_is_a_change(tried: Try, folder: Path) -> None:
    done = tried(mood="raises")
    assert f"known failure {LOGITS} of forward.logits is changed: n/a: blocked by build.adapter" in done.out
    assert "build.adapter ERROR" in done.out
    assert states(folder) == {LOGITS: EntryState.CHANGED}


@pytest.mark.slow
def test_what_has_expired_fails_and_excuses_nothing(tried: Try, folder: Path) -> None:
    done = tried(change=('issue = "#7"', "expires = 2020-01-31"))
    assert f"known failure {LOGITS} of forward.logits is expired: it was accepted until 2020-01-31" in done.out
    assert "xfailed" not in done.counts
    assert states(folder) == {LOGITS: EntryState.EXPIRED}


@pytest.mark.slow
def test_a_drop_against_the_baselines_counts_fails_the_session(tried: Try) -> None:
    done = tried(change=('"forward.logits" = 4', '"forward.logits" = 9'))
    assert "failed" not in done.counts
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "forward.logits" in done.out
    assert "DOES NOT CONFORM" in done.out or "INCONCLUSIVE" in done.out


@pytest.mark.slow
def test_a_narrowed_session_is_not_held_against_them(tried: Try, folder: Path) -> None:
    done = tried("-k", "forward and not bias and not known", change=('"forward.logits" = 4', '"forward.logits" = 9'))
    assert done.counts == {"passed": 2, "deselected": 7}
    assert done.status == 0
    assert states(folder) == {LOGITS: EntryState.NOT_RUN}


@pytest.mark.slow
def test_a_check_that_is_not_selected_is_not_looked_at(tried: Try, session, folder: Path) -> None:
    tried()
    (folder / "test_it.py").write_text(decorated('"mine:Wrong"', only=CHECKS[:1], more=', baseline="known.toml"'))
    assert session("test_it.py", "--verifier-out", "kept").counts == {"passed": 4}
    assert states(folder) == {LOGITS: EntryState.NOT_RUN}


@pytest.mark.slow
def test_an_entry_without_a_reason_is_a_wrong_command_line(session, written: str) -> None:
    done = session(
        *wishes("mine:Wrong", only=CHECKS), "--verifier-baseline", "unfinished.toml", "--ignore-glob", "test_*"
    )
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: 'unfinished.toml': failure {LOGITS} has no reason: write why it is accepted" in done.out
    assert "Traceback" not in done.out


@pytest.mark.slow
def test_a_baseline_of_another_adapter_is_refused(session, written: str, by_command_line: Ended) -> None:
    done = session(*wishes("mine:Right", only=CHECKS), "--verifier-baseline", "known.toml", "--ignore-glob", "test_*")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert (
        "the baseline 'known.toml' is of falcon × mine:Wrong, and not of falcon × mine:Right, as these tests"
        in done.out
    )
