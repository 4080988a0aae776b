"""JUnit XML: a test case for each check that says what the report says, in the structure that build servers read."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from made_records import CHECKS, HOSTILE, hostile_fails, of_every_verdict, outcome, rows_fail, specs

from verifier import record
from verifier.analysis.view import view_record
from verifier.judging.outcome import Verdict
from verifier.record.known_failure import EVERY_CASE, BaselineState, EntryState, KnownFailure, Settled
from verifier.report import junit

# What Jenkins' junit-10.xsd lets stand where: attributes (those with a star must be there), and elements.
SCHEMA = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name*", "tests*", "failures*", "errors*", "time", "skipped", "timestamp"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name*", "value*"}, set()),
    "testcase": ({"name*", "time", "classname"}, {"skipped", "error", "failure", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}
SUREFIRE_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


def _require_schema(element):
    attributes, children = SCHEMA[element.tag]
    assert set(element.attrib) <= {name.rstrip("*") for name in attributes}, element.tag
    assert {name.rstrip("*") for name in attributes if name.endswith("*")} <= set(element.attrib), element.tag
    if "time" in element.attrib:
        assert SUREFIRE_TIME.fullmatch(element.attrib["time"])
    if element.tag not in ("failure", "error", "skipped", "system-out"):
        assert not (element.text or "").strip()
    for child in element:
        assert child.tag in children, (element.tag, child.tag)
        _require_schema(child)


def _read(*records):
    root = ElementTree.fromstring(junit.render([view_record(one) for one in records]).encode())
    _require_schema(root)
    for suite in root:
        counted = {"tests": "testcase", "failures": "*/failure", "errors": "*/error", "skipped": "*/skipped"}
        assert {name: int(suite.attrib[name]) for name in counted} == {
            name: len(suite.findall(path)) for name, path in counted.items()
        }
    return root


def _case(root, check):
    (case,) = (one for one in root.iter("testcase") if one.attrib["name"] == check)
    return case


def _held(found, state=EntryState.KNOWN, rule=EVERY_CASE, said=None):
    (fingerprint,) = {entry.fingerprint for entry in found.entries if entry.fingerprint}
    failure = KnownFailure(
        fingerprint=fingerprint,
        check="qkv.rows",
        rule=rule,
        spec=specs()[6],
        reason="the library transposes it",
        issue="https://example.com/1",
    )
    settled = Settled(failure=failure, state=state, message=said)
    return replace(found, held=BaselineState(path="known.toml", asked={}, ran={}, settled=(settled,)))


# --- the structure ---------------------------------------------------------------------------------------------------


def test_there_is_a_suite_for_an_area_and_a_case_for_a_check(make):
    root = _read(make(specs()))
    assert [suite.attrib["name"] for suite in root] == [
        f"toy × mine:Adapter: {area}" for area in ("reference", "build", "qkv", "forward")
    ]
    cases = {case.attrib["name"]: case.attrib["classname"] for case in root.iter("testcase")}
    assert tuple(cases) == CHECKS
    assert cases["qkv.rows"] == "verifier.toy.mine_Adapter.qkv"
    assert root.attrib == {"name": "verifier", "tests": "5", "failures": "0", "errors": "0", "time": "0.000"}


def test_a_suite_says_when_and_with_what_it_ran(make):
    suite = _read(make(specs(), started="2024-01-01T02:30:00+02:00", asked={"only": ["qkv", "build"]}))[0]
    assert suite.attrib["timestamp"] == "2024-01-01T00:30:00"
    assert {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")} == {
        "family": "toy",
        "adapter": "mine:Adapter (mine 1)",
        "seed": "0",
        "verdict": "CONFORMS: 36 of 36 looked at",
        "version.python": "3.11",
        "version.torch": "2.9",
        "version.transformers": "5.20",
        "asked.only": "qkv,build",
    }


def test_a_time_that_is_none_is_left_out(make):
    root = _read(make(specs()[:1], lambda _spec, check: outcome(check, seconds=1234.5678), started="yesterday"))
    assert "timestamp" not in root[0].attrib
    assert _case(root, "forward.logits").attrib["time"] == "1234.568"


def test_two_records_of_one_adapter_have_class_names_of_their_own(make):
    found = make(specs())
    root = _read(found, found, found)
    names = {case.attrib["classname"] for case in root.iter("testcase") if case.attrib["name"] == "qkv.rows"}
    assert names == {f"verifier.toy.mine_Adapter{more}.qkv" for more in ("", "-2", "-3")}


# --- what a check says -----------------------------------------------------------------------------------------------


def test_a_check_that_passes_says_on_how_many_cases_it_looked(make):
    def fails(spec, check):
        if check == "qkv.rows" and spec.config["alibi"]:
            return outcome(check, Verdict.SKIP, message="no weights offered")
        return None

    case = _case(_read(make(specs(), fails)), "qkv.rows")
    assert [child.tag for child in case] == ["system-out"]
    assert case[0].text.splitlines() == [
        "looked at 6 cases: 6 ok",
        "did not run on 6 cases:",
        "         6  no weights offered",
    ]


def test_a_failure_has_all_that_reproduces_it(make):
    case = _case(_read(make(specs(), rows_fail)), "qkv.rows")
    failure, out = case
    assert failure.tag == "failure"
    assert failure.attrib == {
        "type": "fail",
        "message": "1 failure in 6 of 12 cases; blocks.0.attn.hook_q; 0.5 against a bound of 1e-14",
    }
    lines = dict(line.split(maxsplit=1) for line in failure.text.splitlines()[1:])
    assert failure.text.startswith("1  FAIL in 6 of 12 cases, ")
    assert lines["where"] == "blocks.0.attn.hook_q"
    assert lines["rule"].startswith("bias (")
    assert lines["smallest"] == "bias=true"
    assert lines["reproduce"].startswith("verifier repro ")
    assert out.text == "looked at 12 cases: 6 ok, 6 FAIL"


def test_all_failures_of_a_check_are_one_element(make):
    def fails(spec, check):
        if check != "qkv.rows" or not spec.config["bias"]:
            return None
        if spec.config["alibi"]:
            return outcome(check, Verdict.CRASH, message="died")
        return outcome(check, Verdict.FAIL, where="x", measured=1.0, bound=0.5)

    case = _case(_read(make(specs(), fails)), "qkv.rows")
    assert [child.tag for child in case] == ["failure", "system-out"]
    assert case[0].attrib["message"].startswith("2 failures in 6 of 12 cases; ")
    assert case[0].text.count("reproduce") == 2


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT])
def test_what_is_no_difference_is_an_error(make, verdict):
    root = _read(make(specs(), lambda spec, check: outcome(check, verdict, message="m") if "rows" in check else None))
    error = _case(root, "qkv.rows")[0]
    assert (error.tag, error.attrib["type"]) == ("error", str(verdict))
    assert (root.attrib["failures"], root.attrib["errors"]) == ("0", "1")


def test_a_check_that_looked_at_nothing_is_skipped_with_its_reason(make):
    def fails(spec, check):
        return outcome(check, Verdict.SKIP, message="no weights offered") if check == "qkv.rows" else None

    (skipped,) = _case(_read(make(specs(), fails)), "qkv.rows")
    assert (skipped.tag, skipped.attrib["message"]) == ("skipped", "no weights offered")
    (unasked,) = _case(_read(make(specs())), "build.refusal")
    assert (unasked.tag, unasked.attrib["message"]) == ("skipped", "no case of this run is one that it looks at")


def test_what_is_upstream_passes_and_says_so(make):
    def fails(spec, check):
        if check == "reference.acceptance":
            return outcome(check, Verdict.UPSTREAM, where="eager", message="HF against HF")
        return None

    (out,) = _case(_read(make(specs(), fails)), "reference.acceptance")
    assert out.tag == "system-out"
    assert "U1  upstream in 12 of 12 cases" in out.text
    assert "HF against HF" in out.text


def test_of_more_failures_than_anyone_reads_the_number_is_told(make, monkeypatch):
    monkeypatch.setattr(junit, "MOST_BUGS", 2)

    places = {None: "first", 1: "second", 4: "third"}

    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=places[spec.config["kv_heads"]]) if check == "qkv.rows" else None

    text = _case(_read(make(specs(), fails)), "qkv.rows")[0].text
    assert text.count("reproduce") == 2
    assert text.endswith("… and 1 more in the report")


# --- what does not gate, and what does -------------------------------------------------------------------------------


def test_a_known_failure_is_skipped_with_why_it_is_accepted(make):
    root = _read(_held(make(specs(), rows_fail), rule="bias"))
    skipped, out = _case(root, "qkv.rows")
    assert (skipped.tag, skipped.attrib["type"]) == ("skipped", "known")
    assert skipped.attrib["message"] == "known on 6 cases: K1 the library transposes it"
    assert "https://example.com/1" in skipped.text
    assert out.text.startswith("looked at 12 cases: 6 ok, 6 known")
    assert root.attrib["failures"] == root.attrib["errors"] == "0"


@pytest.mark.parametrize("state", [EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED])
def test_a_known_failure_that_is_so_no_more_fails_its_check(make, state):
    found = make(specs(), lambda spec, check: rows_fail(spec, check) if state is not EntryState.FIXED else None)
    held = _held(make(specs(), rows_fail), state, said="it passes").held
    failure = _case(_read(replace(found, held=held)), "qkv.rows")[0]
    assert failure.tag == "failure"
    if state is EntryState.FIXED:
        assert failure.attrib == {"type": "fixed", "message": "the known failure K1 is FIXED: it passes"}


def test_what_gates_because_it_was_asked_for_fails_its_check(make):
    def fails(spec, check):
        return outcome(check, Verdict.REDUCED) if check == "qkv.rows" else None

    root = _read(make(specs(), fails, asked={"gate": ["reduced"]}))
    assert _case(root, "qkv.rows")[0].attrib == {"type": "reduced", "message": "reduced on 12 cases, which gates"}


@pytest.mark.parametrize(
    ("stop", "kind"), [(None, "interrupted"), ("interrupted", "interrupted"), ("broken", "broken")]
)
def test_a_run_that_did_not_end_well_is_not_green(make, stop, kind):
    root = _read(make(specs(), stop=stop))
    error = _case(root, "run.verdict")[0]
    assert (error.tag, error.attrib["type"]) == ("error", kind)
    assert root.attrib["errors"] == "1"


def test_a_run_in_which_nothing_looked_at_the_adapter_is_not_green(make):
    root = _read(make(specs(lambda config: True)))
    assert "INCONCLUSIVE (no valid case was selected)" in _case(root, "run.verdict")[0].attrib["message"]


def test_a_failing_check_says_enough(make):
    assert "run.verdict" not in {case.attrib["name"] for case in _read(make(specs(), rows_fail)).iter("testcase")}


# --- texts from outside ----------------------------------------------------------------------------------------------


def test_texts_from_outside_break_nothing(hostile):
    made = junit.render([view_record(hostile)])
    root = _read(hostile)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff\ufffe\uffff]", made)
    assert len(made) < 100_000
    case = _case(root, "qkv.rows")
    assert "<script>alert(1)</script> \\x1b]0;title\\x07" in case[0].text
    assert not any("." in part for part in case.attrib["classname"].split(".")[2:3])


def test_what_xml_cannot_hold_is_replaced(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, message="a\ufffeb\uffffc\x00d\U0001f600") if check == "qkv.rows" else None

    message = _case(_read(make(specs(), fails, versions={HOSTILE: "\uffff"})), "qkv.rows")[0].attrib["message"]
    assert message.endswith("a\ufffdb\ufffdc\\x00d\U0001f600")


def test_outcomes_of_every_verdict_are_readable(make):
    root = _read(make(specs(lambda config: config["kv_heads"] == 4), of_every_verdict()))
    assert int(root.attrib["tests"]) == len(CHECKS)


def test_the_same_record_gives_the_same_bytes(make):
    found = make(specs(), hostile_fails)
    again = record.read(found.path)
    assert junit.render([view_record(found)]) == junit.render([view_record(again)])
