"""A run in shards: each case is in one of them, all have about the same to do, and together they are the run."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from verifier import record
from verifier.analysis.bugs import find_bugs
from verifier.analysis.summary import summarize
from verifier.cases import matrix
from verifier.cases.shards import Shard, parse_shard, select_shard
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError
from verifier.family import load
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.known_failure import BaselineState

COUNTS = (1, 2, 3, 4, 7, 16)
CASES = [
    CaseSpec(family="toy", config={"alibi": alibi, "kv": kv}, valid=kv != 3) for alibi in (0, 1) for kv in range(4)
]
LINE = record.RunLine(
    family="toy",
    adapter="mine",
    adapter_name="mine",
    adapter_version="1",
    versions={"torch": "2"},
    seed=0,
    started="2024-01-01T00:00:00+00:00",
    flags={"alibi": [0, 1], "kv": [0, 1, 2, 3]},
    dims={},
    checks=[{"id": "a.b", "doc": "", "applies": "always"}],
    planned={},
    asked={"only": ["a"]},
    workers=1,
)


@pytest.fixture(scope="module")
def specs():
    return matrix.cases(load("falcon"), "falcon")


def _shards(specs, of):
    return [select_shard(specs, Shard(number=number, of=of)) for number in range(1, of + 1)]


def _written(tmp_path, number, of, verdict=Verdict.PASS, *, stop="complete", cut=None, **line):
    """The record of a shard, in a folder of its own; of one that is cut the first cases alone."""
    specs = select_shard(CASES, Shard(number=number, of=of))
    line.setdefault("asked", {**LINE.asked, "shard": f"{number}/{of}"})
    planned = {"valid": sum(spec.valid for spec in specs), "refused": sum(not spec.valid for spec in specs)}
    with record.Writer(tmp_path / f"{number}-of-{of}-{len(list(tmp_path.iterdir()))}") as writer:
        writer.run(replace(LINE, planned=planned, **line))
        for spec in specs[:cut]:
            writer.case(spec)
            writer.outcome(spec.id, Outcome(check="a.b", verdict=verdict, where="x"))
            writer.done(spec.id, 0.5)
        status = ExitStatus.DIFFERS if verdict.gates else ExitStatus.CONFORMS
        if stop is not None:
            writer.end(status=ExitStatus.INTERRUPTED if stop == "interrupted" else status, stop=stop, seconds=2.0)
    return record.read(writer.path)


def _all(tmp_path, of=3, **line):
    return [_written(tmp_path, number, of, **line) for number in range(1, of + 1)]


# --- dealing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", COUNTS)
def test_each_case_is_in_one_shard(specs, of):
    found = Counter(spec.id for shard in _shards(specs, of) for spec in shard)
    assert found == Counter(spec.id for spec in specs)


@pytest.mark.parametrize("of", COUNTS)
def test_every_shard_has_as_much_of_everything(specs, of):
    def counts(kind):
        return [sum(kind(spec) for spec in shard) for shard in _shards(specs, of)]

    for kind in (
        lambda spec: True,
        lambda spec: spec.depth == "sampled",
        lambda spec: spec.depth == "pairwise",
        lambda spec: spec.depth == "all" and spec.valid,
    ):
        # One kind ends in the midst of a turn, and the next goes on from there.
        assert max(counts(kind)) - min(counts(kind)) <= 1


def test_no_shard_has_every_case_with_one_value_of_a_flag(specs):
    for flag in load("falcon").flags():
        for shard in _shards(specs, 4):
            assert len({spec.config[flag] for spec in shard if spec.label is None}) > 1, flag


def test_the_order_of_the_cases_does_not_count_and_is_kept(specs):
    shuffled = random.Random(0).sample(specs, len(specs))
    shard = Shard(number=2, of=4)
    assert {spec.id for spec in select_shard(shuffled, shard)} == {spec.id for spec in select_shard(specs, shard)}
    places = [shuffled.index(spec) for spec in select_shard(shuffled, shard)]
    assert places == sorted(places)


def test_it_is_the_same_on_every_machine():
    dealt_out = [[CASES.index(spec) for spec in shard] for shard in _shards(CASES, 3)]
    assert dealt_out == [[2, 3, 4], [0, 1, 7], [5, 6]]


def test_there_may_be_more_shards_than_cases():
    assert [len(shard) for shard in _shards(CASES, 10)] == [1] * 8 + [0, 0]


def test_a_shard_is_written_as_it_is_read():
    assert parse_shard("2/4") == Shard(number=2, of=4)
    assert str(parse_shard(" 12/12 ")) == "12/12"


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/4", "0/4", "1/0", "-1/4", "1.5/4", "1/4/4", "a/b", "01/4", "1/" + "9" * 50]
)
def test_what_is_no_shard_is_told_with_how_it_is_written(text):
    with pytest.raises(UsageError, match="2/4 for the second of four"):
        parse_shard(text)


def test_a_shard_beyond_the_last_is_told():
    with pytest.raises(UsageError, match="must be one of the 4 shards, the last of which is 4/4"):
        parse_shard("5/4")


# --- putting together ------------------------------------------------------------------------------------------------


def test_shards_are_the_run_that_they_were_dealt_from(tmp_path):
    (found,) = record.join_shards(_all(tmp_path)[::-1])
    assert set(found.cases) == {spec.id for spec in CASES}
    assert found.run.planned == {"valid": 6, "refused": 2}
    assert found.run.asked == LINE.asked
    assert found.run.workers == 3
    assert found.missing == ()
    summary = summarize(found)
    assert (summary.status, summary.valid, summary.refused, summary.not_started) == (ExitStatus.CONFORMS, 6, 2, 0)
    assert [note.partition(":")[0] for note in found.notes] == ["put together of 3 records"]


def test_the_only_shard_of_one_is_the_run(tmp_path):
    (found,) = record.join_shards(_all(tmp_path, 1))
    assert "shard" not in found.run.asked
    assert (found.missing, found.notes) == ((), ())


def test_other_records_stand_beside_them_in_their_order(tmp_path):
    alone = _written(tmp_path, 1, 1, asked={})
    other = _all(tmp_path, 2, adapter="other")
    shards = _all(tmp_path, 2)
    found = record.join_shards([shards[0], alone, other[0], other[1], shards[1]])
    assert [one.run.adapter for one in found] == ["mine", "mine", "other"]
    assert [len(one.cases) for one in found] == [8, 8, 8]
    assert found[1] is alone


@pytest.mark.parametrize("line", [{"adapter_version": "2"}, {"seed": 1}, {"versions": {"torch": "3"}}])
def test_two_runs_are_two_records(tmp_path, line):
    found = record.join_shards([*_all(tmp_path, 2), *_all(tmp_path, 2, **line)])
    assert [len(one.cases) for one in found] == [8, 8]


def test_what_runs_were_asked_for_keeps_them_apart(tmp_path):
    other = [_written(tmp_path, number, 2, asked={"only": ["b"], "shard": f"{number}/2"}) for number in (1, 2)]
    assert len(record.join_shards([*_all(tmp_path, 2), *other])) == 2


def test_a_missing_shard_leaves_no_verdict(tmp_path):
    (found,) = record.join_shards([_written(tmp_path, 1, 4), _written(tmp_path, 3, 4)])
    assert found.missing == ("2/4", "4/4")
    summary = summarize(found)
    assert (summary.status, summary.hollow) == (ExitStatus.INCONCLUSIVE, "shards 2/4 and 4/4 are missing")
    assert "shards 2/4 and 4/4 are missing: this is of the cases of the others alone" in summary.notes
    # It is not the whole run, so no baseline of one is held against it.
    assert found.run.asked["shard"] == "1/4 3/4"


def test_what_fails_fails_although_a_shard_is_missing(tmp_path):
    (found,) = record.join_shards([_written(tmp_path, 1, 2, Verdict.FAIL)])
    summary = summarize(found)
    assert summary.status is ExitStatus.DIFFERS
    assert "shard 2/2 is missing" in summary.notes[0]


def test_of_many_missing_shards_the_first_are_named(tmp_path):
    (found,) = record.join_shards([_written(tmp_path, 8, 20)])
    assert summarize(found).hollow == ("shards 1/20, 2/20, 3/20, 4/20, 5/20, 6/20, 7/20 and 12 more are missing")


def test_a_shard_that_was_cut_off_keeps_the_run_from_conforming(tmp_path):
    (found,) = record.join_shards([_written(tmp_path, 1, 2), _written(tmp_path, 2, 2, stop=None, cut=1)])
    summary = summarize(found)
    assert summary.status is ExitStatus.INTERRUPTED
    assert summary.not_started == 3
    (found,) = record.join_shards([_written(tmp_path, 1, 2), _written(tmp_path, 2, 2, stop="interrupted", cut=2)])
    assert (summarize(found).status, summarize(found).not_started) == (ExitStatus.INTERRUPTED, 2)


def test_a_failure_is_reproduced_from_the_shard_that_has_it(tmp_path):
    shards = [_written(tmp_path, 1, 2), _written(tmp_path, 2, 2, Verdict.FAIL)]
    (found,) = record.join_shards(shards)
    (finding,) = find_bugs(found, upstream=False)
    assert finding.reproduce.endswith(str(shards[1].path.parent))
    assert found.end.exit == ExitStatus.DIFFERS


def test_the_same_shard_twice_is_told(tmp_path):
    one, two = _written(tmp_path, 1, 2), _written(tmp_path, 1, 2)
    with pytest.raises(UsageError, match="are both shard 1/2 of the same run"):
        record.join_shards([one, two])


def test_two_ways_of_dealing_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"is shard 2/3 and .* shard 1/2 of the same run"):
        record.join_shards([_written(tmp_path, 1, 2), _written(tmp_path, 2, 3)])


def test_a_record_whose_shard_is_none_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"record\.jsonl: its shard must be I/N, .* not 'nonsense'"):
        record.join_shards([_written(tmp_path, 1, 2, asked={"shard": "nonsense"})])


def test_shards_that_were_run_with_something_else_are_told(tmp_path):
    found = record.join_shards([_written(tmp_path, 1, 2), _written(tmp_path, 2, 2, versions={"torch": "3"})])
    assert [one.missing for one in found] == [("2/2",), ("1/2",)]
    for one in found:
        (note,) = (note for note in one.notes if record.OF_ANOTHER_RUN in note)
        assert "their versions differ" in note


@pytest.mark.parametrize(("then", "status"), [(8, ExitStatus.CONFORMS), (9, ExitStatus.INCONCLUSIVE)])
def test_the_whole_is_held_against_a_baseline_and_no_shard_alone(tmp_path, then, status):
    held = BaselineState(path="known.toml", asked=LINE.asked, ran={"a.b": then})
    shards = [replace(one, held=held) for one in _all(tmp_path, 2)]
    assert {summarize(one).status for one in shards} == {ExitStatus.CONFORMS}
    (found,) = record.join_shards(shards)
    assert summarize(found).status is status
