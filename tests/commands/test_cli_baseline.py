"""`verifier baseline` and `run --baseline` as a user has them: what was broken before is no news, and all else is."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from test_cli_interrupt import _wait_for
from user_adapters import FEW, verdicts

from verifier import record
from verifier.baseline.file import read
from verifier.checks.superseded import SUPERSEDED
from verifier.judging.outcome import Outcome, Verdict

# The file `bugs` says of which cases it is wrong, and how: `bias raises`. The first line that fits counts.
ADAPTERS = """
import os, pathlib, time
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeSubject
from mine import Right

class Blind(BridgeSubject):
    weights = None

class Changing(Right):
    bugs = "bugs"
    def wrap(self, model):
        for flag, how in map(str.split, pathlib.Path(self.bugs).read_text().splitlines()):
            if getattr(model.config, flag):
                if how == "raises":
                    raise RuntimeError("cannot wrap")
                if how == "errs":
                    raise KeyError("query")
                if how == "dies":
                    os._exit(7)
                if how == "sleeps":
                    pathlib.Path("asleep").touch()
                    time.sleep(60)
        return super().wrap(model)

class Other(Changing):
    bugs = "others"

class Seeing(BridgeAdapter):
    def wrap(self, model):
        subject = super().wrap(model)
        if pathlib.Path("blind").exists() and model.config.bias:
            subject.__class__ = Blind
        return subject
"""

RUN = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--workers", 1)
CHANGING = (*RUN, "--adapter", "changing:Changing")


def _fingerprint(exception: str) -> str:
    """Of a `build.adapter` that raises so."""
    site = "changing.py:wrap"
    found = Outcome(check="build.adapter", verdict=Verdict.ERROR, exception=exception, site=site).fingerprint
    assert found is not None
    return found


RAISES, ERRS = _fingerprint("RuntimeError"), _fingerprint("KeyError")


@pytest.fixture
def bugs(in_folder):
    """Says which bugs the adapter has; none afterwards."""
    (in_folder / "changing.py").write_text(ADAPTERS)

    def write(*lines: str, of: str = "bugs") -> None:
        (in_folder / of).write_text("\n".join(lines))

    write()
    write(of="others")
    yield write
    for name in ("bugs", "others", "blind", "asleep"):
        (in_folder / name).unlink(missing_ok=True)


@pytest.fixture
def known(verifier, bugs, made_once, tmp_path):
    """A finished baseline of an adapter that raises where there is a bias, and the record of it in `before`."""
    bugs("bias raises")

    def make(place):
        assert verifier(*CHANGING, "--out", place / "before").status == 1
        assert verifier("baseline", place / "before", "--out", place / "known.toml").status == 0
        _fill_in(place / "known.toml")

    shutil.copytree(made_once.folder("known-of-changing", make), tmp_path, dirs_exist_ok=True)
    return tmp_path / "known.toml"


def _fill_in(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('reason = ""', 'reason = "it never could"').replace('issue = ""', 'issue = "#7"'))


def _last(ended) -> str:
    return ended.out.splitlines()[-1]


# --- from broken to green --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_broken_before_is_green_once_it_is_accepted_for_a_reason(verifier, bugs, tmp_path):
    bugs("bias raises")
    path, again = tmp_path / "known.toml", (*CHANGING, "--baseline", tmp_path / "known.toml", "--out", tmp_path / "2")
    verifier(*CHANGING, "--out", tmp_path / "1")
    made = verifier("baseline", tmp_path / "1", "--out", path)
    assert made.status == 0
    assert made.out.splitlines() == [
        f"{path}: 1 known failure (1 added, 0 removed, 0 kept)",
        "1 entry to be filled in, with a reason and an issue or a day, before `verifier run --baseline` takes it",
    ]
    refused = verifier(*again)
    assert refused.status == 2
    assert f"{str(path)!r}: failure {RAISES} has no reason" in refused.line
    assert not (tmp_path / "2").exists()
    _fill_in(path)
    ended = verifier(*again)
    assert ended.status == 0
    assert _last(ended) == "falcon × changing:Changing (right 1.0): CONFORMS: 4 of 4 looked at (1 known failure)"
    assert "they excuse 2 of 4 outcomes (50%), on 2 of 4 valid cases (50%)" in " ".join(ended.out.split())
    assert "running the cases of 1 known failure again first" in ended.err
    assert "it never could" in ended.out
    page = (tmp_path / "2" / "report.html").read_text()
    assert f'id="known-{RAISES}"' in page
    assert f'href="#known-{RAISES}"' in page


def test_the_record_says_what_happened_and_the_report_what_is_excused(verifier, known, tmp_path):
    assert verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2").status == 0
    assert verdicts(tmp_path / "2", "build.adapter") == {Verdict.PASS: 2, Verdict.ERROR: 2}
    found = record.read(tmp_path / "2")
    assert found.run.asked["baseline"] == f"{known} ({read(known).digest})"
    assert [one.state for one in found.held.settled] == ["known"]
    assert (found.end.exit, found.end.counts) == (0, {"error": 2, "pass": 2})
    assert verifier("report", tmp_path / "2", "--format", "markdown", "--out", tmp_path / "r.md").status == 0
    assert "### Known failures" in (tmp_path / "r.md").read_text()


@pytest.mark.slow
def test_a_known_crash_is_known(verifier, bugs, tmp_path):
    bugs("bias dies")
    path = tmp_path / "known.toml"
    verifier(*CHANGING, "--out", tmp_path / "1")
    verifier("baseline", tmp_path / "1", "--out", path)
    _fill_in(path)
    ended = verifier(*CHANGING, "--baseline", path, "--out", tmp_path / "2")
    assert ended.status == 0
    assert verdicts(tmp_path / "2", "build.adapter") == {Verdict.PASS: 2, Verdict.CRASH: 2}


def test_the_same_process_does_it_as_well(verifier, known, tmp_path):
    arguments = [argument for argument in CHANGING if argument not in ("--workers", 1)]
    ended = verifier(*arguments, "--no-isolation", "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 0
    assert _last(ended).endswith("looked at (1 known failure)")


# --- what is not accepted --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bug_that_spreads_to_another_flag_is_news(verifier, known, bugs, tmp_path):
    bugs("bias raises", "parallel_attn raises")
    ended = verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 1
    assert _last(ended).endswith("DOES NOT CONFORM (1 known failure, 1 bug in 1 case)")
    assert f"verifier repro {RAISES} " in ended.out
    assert "build.adapter  ERROR  1 of 4 cases" in ended.out


def test_within_its_rule_a_bug_is_no_news(verifier, known, bugs, tmp_path):
    text = known.read_text()
    entry = text[text.index("[[failure]]") :]
    head = entry[: entry.index("also = ")]
    known.write_text(text.replace(entry, head + 'rule = "bias or parallel_attn"\n' + entry[entry.index("reason = ") :]))
    assert read(known).failures[0].rule == "bias or parallel_attn"
    bugs("bias raises", "parallel_attn raises")
    assert verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2").status == 0


@pytest.mark.slow
def test_another_exception_in_its_own_case_is_a_change_and_news(verifier, known, bugs, tmp_path):
    bugs("bias errs")
    ended = verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 1
    assert _last(ended).endswith("DOES NOT CONFORM (1 known failure changed, 1 bug in 2 cases)")
    assert "CHANGED" in ended.out
    assert "ERROR: KeyError: 'query'" in ended.out
    assert f"verifier repro {ERRS} " in ended.out


@pytest.mark.slow
def test_another_exception_in_another_case_is_news_and_the_entry_still_holds(verifier, known, bugs, tmp_path):
    bugs("bias raises", "parallel_attn errs")
    ended = verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 1
    assert _last(ended).endswith("DOES NOT CONFORM (1 known failure, 1 bug in 1 case)")
    assert f"verifier repro {ERRS} " in ended.out


def test_what_is_fixed_must_go_and_the_command_that_is_printed_removes_it(verifier, known, bugs, tmp_path):
    bugs()
    arguments = (*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    ended = verifier(*arguments)
    assert ended.status == 1
    assert _last(ended).endswith("DOES NOT CONFORM (1 known failure fixed)")
    [line] = [line for line in ended.out.splitlines() if "What is fixed must go: " in line]
    program, *command = shlex.split(line.partition("must go: ")[2])
    assert program == "verifier"
    removed = verifier(*command)
    assert (removed.status, removed.out) == (0, f"{known}: 1 entry removed\n")
    ended = verifier(*arguments)
    assert (ended.status, _last(ended)) == (0, "falcon × changing:Changing (right 1.0): CONFORMS: 4 of 4 looked at")


@pytest.mark.slow
def test_what_has_expired_is_not_accepted_any_more(verifier, known, tmp_path):
    known.write_text(known.read_text().replace('issue = "#7"', "expires = 2020-01-01"))
    ended = verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 1
    assert _last(ended).endswith("DOES NOT CONFORM (1 known failure expired, 1 bug in 2 cases)")
    assert "it was accepted until 2020-01-01" in ended.out


def _selecting(check):
    return [check if argument == "build.adapter" else argument for argument in CHANGING]


def test_an_entry_of_a_check_that_is_not_selected_is_left_aside(verifier, known, tmp_path):
    ended = verifier(*_selecting("reference.config"), "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 4  # nothing looked at the adapter
    assert "1 entry of checks that were not selected" in ended.out
    assert "FIXED" not in ended.out


def test_what_is_selected_and_rests_on_a_known_failure_is_no_news(verifier, known, tmp_path):
    ended = verifier(*_selecting("build.forward"), "--baseline", known, "--out", tmp_path / "2")
    assert ended.status == 0
    assert _last(ended).endswith("looked at (1 known failure)")
    assert verdicts(tmp_path / "2", "build.adapter") == {Verdict.ERROR: 2}


@pytest.mark.slow
def test_a_check_that_no_longer_looks_is_inconclusive(verifier, bugs, in_folder, tmp_path):
    seeing = ("run", "falcon", "--where", FEW, "--only", "qkv.heads", "--adapter", "changing:Seeing", "--workers", 1)
    path = tmp_path / "known.toml"
    assert verifier(*seeing, "--out", tmp_path / "1").status == 0
    made = verifier("baseline", tmp_path / "1", "--out", path)
    assert made.out == f"{path}: 0 known failures (0 added, 0 removed, 0 kept)\n"
    assert read(path).ran == {"qkv.heads": 4}
    assert verifier(*seeing, "--baseline", path, "--out", tmp_path / "2").status == 0
    (in_folder / "blind").touch()
    ended = verifier(*seeing, "--baseline", path, "--out", tmp_path / "2")
    assert ended.status == 4
    assert "INCONCLUSIVE (fewer cases looked at than the baseline's run: qkv.heads at 2 of 4)" in _last(ended)
    # Without a baseline nobody would know.
    assert verifier(*seeing, "--out", tmp_path / "3").status == 0


# --- runs that are taken up again, and several adapters --------------------------------------------------------------


def _cut_off(place: Path) -> None:
    """As a run that was killed after its first case."""
    path = place / record.FILE
    lines = path.read_text().splitlines(keepends=True)
    kinds = [json.loads(line)["kind"] for line in lines]
    path.write_text("".join(lines[: kinds.index("done") + 1]))


@pytest.mark.slow
def test_a_run_with_a_baseline_is_taken_up_again(verifier, known, tmp_path):
    arguments = (*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    verifier(*arguments)
    _cut_off(tmp_path / "2")
    ended = verifier(*arguments, "--resume")
    assert ended.status == 0
    found = record.read(tmp_path / "2")
    assert len(found.done) == 4
    assert [one.state for one in found.held.settled] == ["known"]
    assert (found.end.exit, found.end.counts) == (0, {"error": 2, "pass": 2})
    complete = (tmp_path / "2" / record.FILE).read_bytes()
    again = verifier(*arguments, "--resume")
    assert (again.status, _last(again)) == (0, _last(ended))
    assert (tmp_path / "2" / record.FILE).read_bytes() == complete


def test_a_run_is_not_taken_up_again_with_another_baseline(verifier, known, tmp_path):
    arguments = (*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    verifier(*arguments)
    _cut_off(tmp_path / "2")
    known.write_text(known.read_text().replace("it never could", "it never should"))
    ended = verifier(*arguments, "--resume")
    assert ended.status == 2
    assert "is the record of another run: its baseline is " in ended.line


@pytest.mark.slow
def test_a_run_that_is_interrupted_at_the_known_failures_leaves_everything_as_it_was(
    verifier, started, known, bugs, in_folder, tmp_path
):
    place = tmp_path / "2"
    verifier(*CHANGING, "--baseline", known, "--out", place)
    before = (place / record.FILE).read_bytes()
    bugs("bias sleeps")
    process = started(*CHANGING, "--baseline", known, "--out", place)
    _wait_for((in_folder / "asleep").exists, "the known failure's case")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "verifier: interrupted before the first case; nothing was written"
    assert (place / record.FILE).read_bytes() == before


@pytest.mark.slow
def test_each_of_several_adapters_has_its_baseline(verifier, bugs, tmp_path):
    bugs("bias raises")
    bugs("parallel_attn errs", of="others")
    both = (*RUN, "--adapter", "changing:Changing", "--adapter", "changing:Other")
    assert verifier(*both, "--out", tmp_path / "1").status == 1
    files = []
    for name in ("Changing", "Other"):
        files.append(tmp_path / f"{name}.toml")
        verifier("baseline", tmp_path / "1" / f"falcon-changing-{name}", "--out", files[-1])
        _fill_in(files[-1])
    baselines = [argument for file in files for argument in ("--baseline", file)]
    ended = verifier(*both, *baselines, "--out", tmp_path / "2")
    assert ended.status == 0
    assert sum(line.endswith("looked at (1 known failure)") for line in ended.out.splitlines()) == 2
    assert verifier(*both, *baselines[:2], "--out", tmp_path / "2").status == 1


def test_baselines_that_do_not_fit_are_refused(verifier, known, tmp_path):
    other = verifier(*RUN, "--adapter", "changing:Other", "--baseline", known, "--out", tmp_path / "2")
    assert other.status == 2
    assert (
        f"the baseline {str(known)!r} is of falcon × changing:Changing, and this run of falcon × changing:Other"
        in other.line
    )
    twice = verifier(*CHANGING, "--baseline", known, "--baseline", known, "--out", tmp_path / "2")
    assert twice.status == 2
    assert "are both baselines of 'changing:Changing'" in twice.line
    neither = verifier(*CHANGING, "--baseline", known, "--no-baseline", "--out", tmp_path / "2")
    assert neither.status == 2
    assert "--baseline and --no-baseline contradict each other" in neither.line
    assert not (tmp_path / "2").exists()


# --- the command itself ----------------------------------------------------------------------------------------------


def test_another_baseline_keeps_the_reasons_of_what_still_fails(verifier, known, bugs, tmp_path):
    bugs("bias raises", "parallel_attn errs")
    known.write_text(known.read_text().replace("[[failure]]", "# Ada knows why\n[[failure]]"))
    verifier(*CHANGING, "--out", tmp_path / "2")
    ended = verifier("baseline", tmp_path / "2", "--out", known)
    assert ended.out.splitlines()[0] == f"{known}: 2 known failures (1 added, 0 removed, 1 kept)"
    assert "1 entry to be filled in" in ended.out
    assert "# Ada knows why\n[[failure]]" in known.read_text()
    reasons = {one.fingerprint: one.reason for one in read(known, finished=False).failures}
    assert reasons == {RAISES: "it never could", ERRS: ""}


def test_a_baseline_of_before_a_check_became_an_observable_is_refused_and_renewed(
    verifier, known, tmp_path, monkeypatch
):
    monkeypatch.setitem(SUPERSEDED, "toy.gone", [("build.adapter", {})])
    known.write_text(known.read_text().replace("build.adapter", "toy.gone").replace(RAISES, "oldentry"))
    refused = verifier(*CHANGING, "--baseline", known, "--out", tmp_path / "2")
    assert refused.status == 2
    renewing = f"`verifier baseline RECORD --out {known}`"
    assert renewing in refused.line
    assert not (tmp_path / "2").exists()
    ended = verifier("baseline", tmp_path / "before", "--out", known)
    assert ended.out.splitlines() == [
        f"{known}: 1 known failure (1 added, 1 removed, 0 kept)",
        "1 added entry has the reason given for a check that is gone",
    ]
    (entry,) = read(known).failures
    assert (entry.fingerprint, entry.check, entry.reason, entry.issue) == (
        RAISES,
        "build.adapter",
        "it never could",
        "#7",
    )


def test_a_run_that_was_cut_off_makes_no_baseline(verifier, known, tmp_path):
    _cut_off(tmp_path / "before")
    before = known.read_bytes()
    ended = verifier("baseline", tmp_path / "before", "--out", known)
    assert ended.status == 2
    assert "is not of a run that came to its end: `verifier run --resume` ends it" in ended.line
    assert known.read_bytes() == before


def test_another_adapters_baseline_is_not_written_over(verifier, known, tmp_path):
    before = known.read_bytes()
    verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path / "right")
    ended = verifier("baseline", tmp_path / "right", "--out", known)
    assert ended.status == 2
    assert "is the baseline of falcon × changing:Changing, and the record is of falcon × mine:Right" in ended.line
    assert "name another file with --out" in ended.line
    assert known.read_bytes() == before


def test_records_of_different_runs_make_no_baseline(verifier, known, tmp_path):
    verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path / "right")
    ended = verifier("baseline", tmp_path / "before", tmp_path / "right", "--out", tmp_path / "new.toml")
    assert ended.status == 2
    assert "are no shards of one run: a baseline is made of one" in ended.line
    assert not (tmp_path / "new.toml").exists()


def test_an_entry_that_is_not_there_cannot_be_removed(verifier, known):
    before = known.read_bytes()
    ended = verifier("baseline", "--remove", RAISES[:-1], "--out", known)
    assert ended.status == 2
    assert f"has no entry {RAISES[:-1]!r} (did you mean {RAISES!r}?)" in ended.line
    assert known.read_bytes() == before


@pytest.mark.parametrize("arguments", [(), ("run", "--remove", "abcdefgh")])
def test_what_is_wanted_must_be_said(verifier, arguments):
    ended = verifier("baseline", *arguments)
    assert ended.status == 2
    assert "name a RECORD to write the baseline of, or entries to take out of it with --remove ID" in ended.line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere"),
        (("--remove", "abcdefgh", "--out", "nowhere.toml"), "cannot read the baseline 'nowhere.toml'"),
    ],
)
def test_what_is_not_there_is_told(verifier, arguments, said):
    ended = verifier("baseline", *arguments)
    assert ended.status == 2
    assert said in ended.line
