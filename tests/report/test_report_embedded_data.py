"""Every outcome of a record as columns of text."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import CHECKS, DIMS, FLAGS, outcome, rows_fail, specs
from page_data import extract_data

from verifier.analysis.error_ratios import ratio
from verifier.analysis.view import view_record
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import RECORDED, Outcome, Verdict
from verifier.output import text
from verifier.record import EndLine, Record, RecordedOutcome, RunLine
from verifier.report import html
from verifier.report.embedded_data import LETTERS, LEVELS, LIMIT, NOTHING, embed_data

FIRST, LOWEST, HIGHEST = "!", -5.0, 4.0  # as page.js reads them
VERDICTS = {letter: verdict for verdict, letter in LETTERS.items()}


class _Read:
    """Packed data as the page's script reads it."""

    def __init__(self, data):
        self.columns = extract_data(data)
        self.places = {case: place for place, case in enumerate(self.columns["ids"])}
        self.notes = {(check, case): note for check, case, *note in self.columns["notes"]}

    def text(self, number):
        return None if number < 0 else self.columns["texts"][number]

    def config(self, case):
        named = zip(self.columns["fields"], self.columns["configs"], strict=True)
        found = {name: self.text(column[self.places[case]]) for name, column in named}
        return {name: value for name, value in found.items() if value is not None}

    def verdict(self, check, case):
        letter = self.columns["verdicts"][self.columns["checks"].index(check)][self.places[case]]
        return None if letter == NOTHING else VERDICTS[letter]

    def error(self, check, case):
        """The order of magnitude of error over bound; None where there is none."""
        letters = self.columns["errors"][self.columns["checks"].index(check)]
        letter = letters[self.places[case] : self.places[case] + 1]
        if letter in ("", " "):
            return None
        return math.inf if letter == FIRST else LOWEST + (ord(letter) - ord(FIRST) - 1) / 10

    def note(self, check, case):
        """Where, what was said, fingerprint, error and bound."""
        note = self.notes.get((self.columns["checks"].index(check), self.places[case]))
        return None if note is None else tuple(map(self.text, note))


def _mixed(spec, check):
    """Each verdict, with an error where a check measures."""
    verdict = RECORDED[(CHECKS.index(check) + int(spec.id, 36)) % len(RECORDED)]
    error = 10.0 ** (int(spec.id, 36) % 9 - 20)
    return outcome(check, verdict, where=f"h.{spec.id}", message="said", measured=error, bound=1e-14)


@pytest.fixture
def mixed(make):
    corner = replace(specs()[0], label="corner", length=9, config={**specs()[0].config, "extra": "x"})
    return make([*specs(lambda config: config["kv_heads"] == 4), corner], _mixed)


# --- there and back --------------------------------------------------------------------------------------------------


def test_every_case_comes_back(mixed):
    found = _Read(embed_data(mixed).data)
    assert found.columns["ids"] == list(mixed.cases)
    for case, spec in mixed.cases.items():
        place = found.places[case]
        assert found.config(case) == {name: text.value(value) for name, value in spec.config.items()}
        assert found.text(found.columns["labels"][place]) == spec.label
        assert found.text(found.columns["reasons"][place]) == spec.reason
        assert (found.columns["valid"][place] == "v") == spec.valid


def test_every_outcome_comes_back(mixed):
    found = _Read(embed_data(mixed).data)
    outcomes = {(entry.outcome.check, entry.case): entry for entry in mixed.entries}
    assert {entry.outcome.verdict for entry in mixed.entries} == set(RECORDED)
    for check, case in itertools.product(CHECKS, mixed.cases):
        entry = outcomes.get((check, case))
        assert found.verdict(check, case) == (entry.outcome.verdict if entry else None)
        if entry is None or entry.outcome.verdict is Verdict.PASS:
            assert found.note(check, case) is None
            continue
        one = entry.outcome
        measured = text.number(one.measured), text.number(one.bound)
        assert found.note(check, case) == (one.where, one.message, entry.fingerprint, *measured)


def test_every_error_comes_back_to_a_tenth_of_an_order_of_magnitude(mixed):
    found = _Read(embed_data(mixed).data)
    for entry in mixed.entries:
        wanted = min(max(math.log10(ratio(entry.outcome)), LOWEST), HIGHEST)
        assert found.error(entry.outcome.check, entry.case) == pytest.approx(wanted, abs=0.05 + 1e-9)


@pytest.mark.parametrize(
    ("measured", "bound", "magnitude"),
    [
        (1.0, 1.0, 0.0),
        (0.0, 1.0, LOWEST),
        (1e-300, 1.0, LOWEST),
        (1e300, 1.0, HIGHEST),
        (math.inf, 1.0, math.inf),
        (math.nan, 1.0, math.inf),
        (1.0, 0.0, None),
        (None, None, None),
        *((10.0 ** (tenth / 10), 1.0, tenth / 10) for tenth in range(-50, 41)),
    ],
)
def test_an_error_is_a_letter(make, measured, bound, magnitude):
    record = make(specs()[:1], lambda spec, check: outcome(check, measured=measured, bound=bound))
    assert _Read(embed_data(record).data).error("qkv.rows", specs()[0].id) == pytest.approx(magnitude)


def test_seconds_are_of_cases_that_came_to_their_end(make):
    record = make(specs())
    one, *_ = record.cases
    columns = extract_data(embed_data(replace(record, done={one: 1.23456})).data)
    assert columns["seconds"] == [1.235] + [None] * 11


def test_a_check_that_the_record_does_not_name_has_a_column_too(make):
    record = make(specs(), rows_fail, checks=[{"id": "build.adapter"}])
    columns = extract_data(embed_data(record).data)
    assert columns["checks"] == ["build.adapter", "forward.logits", "qkv.rows", "reference.acceptance"]


def test_each_text_is_kept_once(make):
    def fails(spec, check):
        return outcome(check, Verdict.SKIP, message="no weights") if check == "qkv.rows" else None

    columns = extract_data(embed_data(make(specs(), fails)).data)
    assert columns["texts"].count("no weights") == 1
    assert len(columns["texts"]) == len(set(columns["texts"]))


def test_texts_are_on_one_line_cut_and_harmless(hostile):
    assert max(map(len, (entry.outcome.message or "" for entry in hostile.entries))) > 1_000_000
    columns = extract_data(embed_data(hostile).data)
    assert all(len(one) <= text.LINE_LIMIT for one in columns["texts"])
    assert not set("".join(columns["texts"])) & set("\x1b\x07\u202e\ud800\n")
    assert any(one.startswith("<script>alert(1)</script> \\x1b]0;title") for one in columns["texts"])


def test_data_is_of_letters_that_no_page_reads(hostile):
    assert set(embed_data(hostile).data) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def test_equal_records_give_equal_data(make):
    assert embed_data(make(specs(), _mixed)) == embed_data(make(specs(), _mixed))


# --- what is left out ------------------------------------------------------------------------------------------------


def _shrunk(record):
    """What is packed as the limit shrinks, each time by as little as makes a difference."""
    made = [embed_data(record)]
    while made[-1].data:
        made.append(embed_data(record, limit=len(made[-1].data) - 1))
    return made


@pytest.fixture
def long(make):
    """Many errors, many reasons for skips, few failures."""
    errors = random.Random(0)
    cases = [replace(spec, config={**spec.config, "hidden_size": 8 * size}) for size in range(1, 9) for spec in specs()]

    def fails(spec, check):
        if check == "forward.logits":
            return outcome(check, Verdict.SKIP, message=f"no weights for {spec.id}")
        if check == "qkv.rows" and spec.config["hidden_size"] == 8:
            return rows_fail(spec, check)
        return outcome(check, measured=10 ** errors.uniform(-18, -15), bound=1e-14)

    return make(cases, fails)


def test_as_the_limit_shrinks_parts_are_left_out_in_order_and_said(long):
    assert [one.left_out for one in _shrunk(long)] == [*LEVELS, "every case and outcome"]


def test_nothing_is_left_out_that_has_room(long):
    made = _shrunk(long)
    for one in made[:-1]:
        assert embed_data(long, limit=len(one.data)) == one
    assert made[0] == embed_data(long)
    assert made[0].left_out == ""


def test_what_is_left_out_is_what_was_said(long):
    failing = [entry.case for entry in long.entries if entry.outcome.verdict is Verdict.FAIL]
    skipped = next(entry.case for entry in long.entries if entry.outcome.check == "forward.logits")
    whole_, no_errors, no_reasons, failures = (_Read(one.data) for one in _shrunk(long)[:-1])
    assert whole_.error("build.adapter", skipped) is not None
    assert {tuple(one.columns["ids"]) for one in (whole_, no_errors, no_reasons)} == {tuple(long.cases)}
    for one in (no_errors, no_reasons):
        assert one.error("build.adapter", skipped) is None
        assert one.verdict("build.adapter", skipped) is Verdict.PASS
        assert one.verdict("forward.logits", skipped) is Verdict.SKIP
    for one in (whole_, no_errors, no_reasons, failures):
        assert {one.verdict("qkv.rows", case) for case in failing} == {Verdict.FAIL}
        assert {one.error("qkv.rows", case) for case in failing} == {HIGHEST}
        assert {one.note("qkv.rows", case)[0] for case in failing} == {"blocks.0.attn.hook_q"}
    assert no_errors.note("forward.logits", skipped)[1] == f"no weights for {skipped}"
    assert no_reasons.note("forward.logits", skipped) is None
    assert failures.columns["ids"] == sorted(failing)
    assert failures.verdict("build.adapter", failing[0]) is None


# --- size ------------------------------------------------------------------------------------------------------------


def _large(cases):
    """A record of that many cases and thirty checks, some of which are skipped, fail by a rule, or fail anyhow."""
    chance = random.Random(0)
    names = [f"{area}.check_{number}" for area in ("build", "qkv", "hooks", "cache", "forward") for number in range(6)]
    flags = itertools.cycle(itertools.product(*FLAGS.values()))
    configs = ({**DIMS, **dict(zip(FLAGS, next(flags), strict=True)), "hidden_size": 8 * n} for n in range(cases))
    specs_ = [CaseSpec(family="toy", config=config) for config in configs]
    by_id = {spec.id: spec for spec in specs_}
    entries = []
    for (case, spec), (number, check) in itertools.product(by_id.items(), enumerate(names)):
        luck = chance.random()
        error = 10 ** -(14 + 4 * luck)
        if (number == 7 and spec.config["alibi"] and spec.config["kv_heads"] == 4) or (number == 9 and luck < 0.01):
            verdict, more = Verdict.FAIL, {"where": "blocks.0.attn.hook_q", "message": f"off by {luck}"}
        elif luck < 0.05:
            verdict, error, more = Verdict.SKIP, None, {"message": f"{check} needs what is not there"}
        else:
            verdict, more = Verdict.PASS, {}
        one = Outcome(check=check, verdict=verdict, measured=error, bound=1e-14, seconds=luck, **more)
        entries.append(RecordedOutcome(case=case, outcome=one, fingerprint=one.fingerprint))
    run = RunLine(
        family="toy",
        adapter="mine:Adapter",
        adapter_name="mine",
        adapter_version="1",
        versions={"python": "3.11"},
        seed=0,
        started="2024-01-01T00:00:00+00:00",
        flags=FLAGS,
        dims=DIMS,
        checks=[{"id": name, "doc": f"What {name} proves."} for name in names],
        planned={"valid": cases, "refused": 0},
        asked={},
        workers=2,
    )
    return Record(
        path=Path("reports/toy/record.jsonl"),
        run=run,
        cases=by_id,
        entries=tuple(entries),
        done=dict.fromkeys(by_id, 0.3),
        lost=(),
        resumed=0,
        evidence={},
        ladders={},
        found={},
        end=EndLine(counts={}, exit=1, stop="complete", seconds=60.0),
        notes=(),
    )


@pytest.mark.slow
def test_ten_thousand_cases_of_thirty_checks_are_all_in_a_page_of_a_few_megabytes():
    made = view_record(_large(10_000))
    embedded = embed_data(made.record)
    assert embedded.left_out == ""
    assert len(embedded.data) < LIMIT
    assert len(html.render([made]).encode()) < 5_000_000
