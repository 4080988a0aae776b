"""A failure is run again alone before its reproduce line is printed, and replayed with what it needs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys

import pytest
from user_adapters import FEW

from verifier import record
from verifier.record.confirmation import Alone
from verifier.report import terminal

CAVEAT = "alone in a fresh process it passes: what ran before it in the same process matters"
NEEDS = {
    "AfterMask": ({"history": "masked", "rows": "one"}, "when history is masked"),
    "HalfMasked": ({"dtype": "bfloat16", "mask": "left", "rows": "one"}, "when dtype is bfloat16 or float16 or mixed"),
}


def _failures(place):
    return [entry for entry in record.read(place).entries if entry.outcome.verdict.gates]


def _words(text):
    return " ".join(text.split())


def test_a_failure_that_comes_again_alone_is_told_as_ever(verifier, tmp_path):
    ended = verifier(
        "run", "falcon", "--adapter", "mine:Silent", "--where", FEW, "--only", "forward.logits", "--out", tmp_path
    )
    (found,) = record.read(tmp_path).confirmations.values()
    assert found.alone is Alone.FAILS
    assert "running 1 failure again, each alone" in ended.err
    assert "alone" not in ended.out


def test_a_failure_that_needs_what_ran_before_says_so(verifier, tmp_path):
    arguments = ("run", "falcon", "--adapter", "mine:Second", "--where", FEW, "--workers", 1)
    ended = verifier(*arguments, "--only", "forward.logits", "--out", tmp_path, "--junit", tmp_path / "junit.xml")
    assert ended.status == 1
    assert CAVEAT in _words(ended.out)
    assert CAVEAT in _words((tmp_path / "junit.xml").read_text())
    assert CAVEAT.removeprefix("alone ") in (tmp_path / "report.html").read_text()
    assert verifier("report", tmp_path, "--out", tmp_path / "report.md").status == 0
    assert CAVEAT.removeprefix("alone ") in (tmp_path / "report.md").read_text()
    again = verifier("repro", _failures(tmp_path)[0].fingerprint, tmp_path)
    assert again.status == 0
    assert CAVEAT in _words(again.out)
    assert again.out.splitlines()[-1] == "it does not fail here"


def test_what_is_not_run_again_is_said(verifier, tmp_path):
    arguments = ("run", "falcon", "--adapter", "mine:Silent", "--where", FEW, "--only", "forward.logits")
    ended = verifier(*arguments, "--no-isolation", "--out", tmp_path)
    assert [one.alone for one in record.read(tmp_path).confirmations.values()] == [Alone.NOT_TRIED]
    assert "Note: 1 failure was not run again alone in a fresh process" in ended.out


@pytest.fixture(scope="module", params=NEEDS)
def circumstantial(request, folder, tmp_path_factory):
    """The name of an adapter that is wrong in circumstances, and its record."""
    from verifier import cli

    place = tmp_path_factory.mktemp("circumstantial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first = ["run", "falcon", "--where", FEW, "--only", "forward.logits"]
        assert cli.main([*first, "--adapter", "mine:Right", "--out", str(place / "right")]) == 0
        spec = next(spec for spec in record.read(place / "right").cases.values() if spec.valid)
        dealt = ({"grad": "grad"}, NEEDS[request.param][0])
        case = dataclasses.replace(spec, circumstances=dealt).to_json()
        (place / "cases.jsonl").write_text(json.dumps(case) + "\n")
        run = ["run", "falcon", "--cases", str(place / "cases.jsonl"), "--only", "forward.outputs"]
        assert cli.main([*run, "--adapter", f"mine:{request.param}", "--out", str(place / "wrong")]) == 1
    return request.param, place / "wrong"


@pytest.mark.slow
def test_a_failure_is_replayed_in_its_plainest_circumstance(verifier, circumstantial):
    adapter, place = circumstantial
    (failure,) = _failures(place)
    (found,) = record.read(place).confirmations.values()
    assert (found.alone, found.narrowed) == (Alone.FAILS, True)
    told = terminal.headline("1", failure.outcome, "", "").plain
    assert NEEDS[adapter][1] in told
    again = verifier("repro", failure.fingerprint, place)
    assert again.status == 1
    shown = f"FAIL {told.partition('FAIL')[0].split()[-1]} {' '.join(told.partition('FAIL')[2].split())}"
    assert shown in _words(again.out)
    assert failure.outcome.circumstance is not None
    assert "rows" not in failure.outcome.circumstance
    assert again.out.splitlines()[-1] == "it still fails"
    assert shown in _words(verifier("repro", failure.case, place).out)


@pytest.mark.slow
def test_a_failure_in_a_circumstance_becomes_a_file_that_fails_until_it_is_mended(
    verifier, circumstantial, in_folder, tmp_path, capsys
):
    adapter, place = circumstantial
    (failure,) = _failures(place)
    tests = []
    for library, is_wrong in ((f"mine:{adapter}", True), ("mine:Right", False)):
        script, test = tmp_path / f"shown_{is_wrong}.py", tmp_path / f"test_shown_{is_wrong}.py"
        arguments = ("--adapter", library, "--script", script, "--pytest", test)
        assert verifier("repro", failure.fingerprint, place, *arguments).status == 0
        assert '"rows"' not in script.read_text()
        namespace: dict[str, object] = {"__name__": "shown"}
        exec(compile(script.read_text(), "shown.py", "exec"), namespace)
        with pytest.raises(AssertionError, match="it fails") if is_wrong else contextlib.nullcontext():
            namespace["reproduce"]()  # type: ignore[operator]
        assert "ids: tensor(" in capsys.readouterr().out
        tests.append(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=in_folder, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in ran.stdout
