"""What is shown in the terminal: everything that matters, and nothing that a text could do."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace

import pytest
from made_records import FLAGS, ladder, outcome, rung, specs, with_looks, wrong

from verifier import family
from verifier.analysis.summary import summarize
from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, CaseStarted, OutcomeReady
from verifier.faults.selftest import MutantResult
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.output.console import QuietConsole
from verifier.report import kill_table, terminal
from verifier.report.progress import Meter

FALCON = family.load("falcon")


def _shown(summary, width=140):
    console = QuietConsole(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    terminal.show(summary, console)
    terminal.show_verdict(summary, console)
    return console.file.getvalue()


def test_hostile_text_is_text_in_the_terminal(hostile):
    shown = _shown(summarize(hostile))
    assert "<script>alert(1)</script> \\x1b]0;title" in shown
    assert "[bold]rich[/bold]" in shown
    assert not set(shown) & set("\x1b\x07\u202e\ud800")
    assert len(shown) < 20_000


def _fails(spec, check):
    if check == "qkv.rows" and spec.config["kv_heads"] == 4:
        return outcome(
            check, Verdict.FAIL, where="blocks.0.attn.hook_q", message="off by much", measured=0.5, bound=1e-14
        )
    if check == "reference.acceptance" and spec.config["alibi"]:
        return outcome(check, Verdict.UPSTREAM, where="eager", message="HF against HF")
    return None


@pytest.mark.parametrize("width", [70, 140])
def test_the_terminal_says_what_and_where_and_how_to_see_it(make, width):
    found = summarize(make(specs(), _fails))
    shown = _shown(found, width)
    [finding] = found.bugs
    for needed in (
        "FAIL 1",
        "qkv.rows  FAIL  4 of 12 cases",
        "blocks.0.attn.hook_q",
        "0.5 against a bound of 1e-14",
        "kv_heads=4",
        f"verifier repro {finding.fingerprint}",
        "Upstream",
        "U1",
    ):
        assert needed in shown
    assert shown.splitlines()[-1].startswith("toy × mine:Adapter (mine 1): DOES NOT CONFORM (1 bug in 4 cases")
    assert max(map(len, shown.splitlines()[:-1])) <= width  # the last one is for searching a log


def _many_flags(make):
    """Too many for a column each on a narrow terminal."""
    more = {f"another_{number}": [0] for number in range(6)}
    cases = [replace(spec, config={**spec.config, **dict.fromkeys(more, 0)}) for spec in specs()]
    return summarize(make(cases, _fails, flags={**FLAGS, **more}))


def test_a_narrow_terminal_describes_combinations_in_words(make):
    found = _many_flags(make)
    assert "kv_heads=none|1" in _shown(found, 70)
    assert "none|1" in _shown(found, 140)
    assert "kv_heads=none|1" not in _shown(found, 140)


def test_a_log_has_no_padding(make):
    shown = _shown(summarize(make(specs(lambda config: config["bias"]), _fails)))
    assert not [line for line in shown.splitlines() if line != line.rstrip()]
    assert "\n\n\n" not in shown


def test_what_stands_for_every_value_is_explained(make):
    found = _many_flags(make)
    assert "* is every value that occurs in that row's cases" in _shown(found, 140)
    assert "not named takes every value that occurs in that row's cases" in " ".join(_shown(found, 70).split())


@pytest.mark.parametrize(("count", "more"), [(3, 0), (20, 12)])
def test_of_many_reasons_for_refusals_few_are_in_the_terminal(make, count, more):
    cases = [
        CaseSpec(family="toy", config={"hidden_size": number}, valid=False, reason=f"reason {number}.")
        for number in range(count)
    ]
    found = summarize(make(cases))
    shown = _shown(found)
    assert f"Refused by HF: {count} cases" in shown
    assert len(re.findall(r"reason \d+\.", shown)) == count - more
    assert (f"and {more} more in the report" in shown) == bool(more)


def test_backticks_are_code_on_the_page_and_what_they_hold_stays_text():
    assert text.marked("`<b>` & more") == "<code>&lt;b&gt;</code> &amp; more"


def test_a_crash_says_once_how_the_process_ended():
    crash = outcome("a.b", Verdict.CRASH, message="the process ended with exit status 7", exception="exit 7")
    assert wording.outcome_message(crash) == "the process ended with exit status 7"


def test_the_kill_table_of_a_log_is_a_line_a_row(capsys):
    plain = CaseSpec(family="falcon", config={**FALCON.dims(), **{k: v[0] for k, v in FALCON.flags().items()}})
    other = CaseSpec(family="falcon", config={**plain.config, "bias": True})
    caught = outcome("qkv.rows", Verdict.FAIL, where="a place with a name that is rather long " * 4)
    found = [
        MutantResult(fault="one", what="x", check="qkv.rows", outcome=caught, case=other),
        MutantResult(fault="two", what="y", check="qkv.rows", outcome=caught, case=plain),
        MutantResult(fault="three", what="z", check="qkv.rows", tried=3),
    ]
    kill_table.show(found, "falcon", "mine")
    _, _, one, two, three, _ = capsys.readouterr().out.splitlines()
    assert one.startswith("one")
    assert one.endswith("  bias=true")
    assert two.endswith("  the plainest")
    assert re.search(r"SURVIVED +z; tried on 3 cases$", three)


def test_many_bugs_are_cut_in_the_terminal(make):
    numbers = itertools.count()
    found = summarize(make(specs(), lambda spec, check: outcome(check, Verdict.FAIL, where=f"place {next(numbers)}")))
    more = len(found.bugs) - terminal.MAX_BUGS
    assert more > 0
    assert f"and {more} more in the report" in _shown(found)


def test_what_explains_several_failures_is_said_before_them(make):
    def fails(spec, check):
        seen = check in ("qkv.rows", "forward.logits") and spec.config["bias"]
        return outcome(check, Verdict.FAIL, where="blocks.0.attn.hook_q") if seen else None

    shown = _shown(summarize(make(specs(), fails)))
    why, failures = shown.index("Why: failures with the same rule"), shown.index("Failures\n")
    assert why < failures
    assert "6 cases  at blocks.{i}.attn.hook_q  (1,2)" in shown[why:failures]
    assert "bias (fails 6 of 6, passes 6 of 6)" in shown[why:failures]
    assert "Why:" not in _shown(summarize(make(specs(), _fails)))


def test_where_a_failure_starts_is_said_if_a_closer_look_found_that(make):
    record = make(specs(), _fails)
    [finding] = summarize(record).bugs
    found = with_looks(record, ladder(finding.smallest.id, [rung("hook_embed"), wrong("blocks.0.ln1.hook_scale")]))
    assert re.search("starts +blocks.0.ln1.hook_scale, the first activation that differs\n", _shown(summarize(found)))
    assert "the first activation" not in _shown(summarize(record))


@pytest.mark.parametrize(
    ("one", "spelt"),
    [(None, "none"), (True, "true"), (False, "false"), (4, "4"), (["a", "b"], "a,b"), ("x" * 99, "x" * 79 + "…")],
)
def test_values_are_spelt_as_the_command_line_takes_them(one, spelt):
    assert text.value(one) == spelt


@pytest.mark.parametrize(
    ("seconds", "spelt"),
    [(0.04, "40 ms"), (0.14, "0.1 s"), (9.94, "9.9 s"), (48.4, "48 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_short(seconds, spelt):
    assert text.duration(seconds) == spelt


def test_plain_progress_is_a_line_every_few_seconds(monkeypatch):
    clock = itertools.count(0, 1.0)
    monkeypatch.setattr("verifier.report.progress.time.monotonic", lambda: next(clock))
    console = QuietConsole(file=io.StringIO(), width=100, force_terminal=False)
    [spec] = specs()[:1]
    with Meter(console, title="toy × mine", cases=40) as meter:
        for _ in range(10):
            meter.note(CaseStarted(spec=spec))
            meter.note(OutcomeReady(case=spec.id, outcome=outcome("a.b", Verdict.FAIL, where="x")))
            meter.note(CaseFinished(case=spec.id, seconds=0.1))
    first, *lines = console.file.getvalue().splitlines()
    assert first == "toy × mine: loading, then 40 cases"
    assert 2 <= len(lines) < 10
    assert all("of 40 cases" in line and "1 bug" in line for line in lines)


def test_plain_progress_ends_with_the_last_case():
    console = QuietConsole(file=io.StringIO(), width=100, force_terminal=False)
    with Meter(console, title="toy × mine", cases=2) as meter:
        for case in ("a", "b"):
            meter.note(CaseFinished(case=case, seconds=0.1))
    assert "2 of 2 cases" in console.file.getvalue().splitlines()[-1]


def test_progress_on_a_terminal_is_a_bar_that_goes_away():
    console = QuietConsole(file=io.StringIO(), width=100, force_terminal=True)
    with Meter(console, title="toy × mine", cases=2) as meter:
        meter.note(CaseFinished(case="abc", seconds=0.1))
    shown = console.file.getvalue()
    assert "1/2" in shown
    assert shown.endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("limits", "spelt"),
    [
        ({"timeout": 60.0, "memory": 2 * 2**30}, "1 min 0 s, and 2 GiB memory on top of what the process had"),
        ({"timeout": None, "memory": 300 * 2**20}, "any time, and 300 MiB memory on top of what the process had"),
        ({}, "any time, and any memory on top of what the process had"),
    ],
)
def test_limits_are_told_in_words(limits, spelt):
    assert text.limits(limits) == spelt
