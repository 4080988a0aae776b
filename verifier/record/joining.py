"""Put the shards of a run together, and say which are missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from verifier.cases.shards import Shard, parse_shard
from verifier.errors import UsageError
from verifier.record.lines import Record, RunLine
from verifier.record.merging import combine_records

# What the shards of one run have alike, besides what was asked for; they may have been run by different machines.
_ALIKE = ("family", "adapter", "adapter_name", "adapter_version", "versions", "seed", "flags", "dims", "checks")
_ASKED = "shard"
OF_ANOTHER_RUN = "a shard of another run"  # in a note on a record that has what this one lacks, and differs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    record: Record
    shard: Shard


def join_shards(records: Sequence[Record]) -> tuple[Record, ...]:
    """Join the shards of each run into one record, which stands where the first of them stood.

    A record that lacks shards names them in `missing`.

    Raises:
        UsageError: a shard is there twice, one is of another number of shards, or what a record says of its shard is
            not readable.
    """
    runs: dict[str, list[_Part]] = {}
    made: list[Record | str] = []
    for record in records:
        if _ASKED not in record.run.asked:
            made.append(record)
            continue
        key = json.dumps(_alike(record.run), sort_keys=True)
        if key not in runs:
            made.append(key)
        runs.setdefault(key, []).append(_part(record))
    whole = {key: _whole(parts) for key, parts in runs.items()}
    return tuple(_hinted(whole[one], list(whole.values())) if isinstance(one, str) else one for one in made)


def _part(record: Record) -> _Part:
    try:
        return _Part(record=record, shard=parse_shard(str(record.run.asked[_ASKED])))
    except UsageError as error:
        raise UsageError(f"{record.path}: its shard {error}") from error


def _alike(run: RunLine) -> dict[str, object]:
    asked = {name: value for name, value in run.asked.items() if name != _ASKED}
    return {**{name: getattr(run, name) for name in _ALIKE}, "asked": asked}


def _whole(parts: Sequence[_Part]) -> Record:
    by_number: dict[int, _Part] = {}
    for part in parts:
        first = parts[0]
        if part.shard.of != first.shard.of:
            raise UsageError(
                f"{str(part.record.path)!r} is shard {part.shard} and {str(first.record.path)!r} shard {first.shard} "
                f"of the same run: run all its shards with the same N of --shard I/N"
            )
        if part.shard.number in by_number:
            raise UsageError(
                f"{str(by_number[part.shard.number].record.path)!r} and {str(part.record.path)!r} are both shard "
                f"{part.shard} of the same run: name each shard once"
            )
        by_number[part.shard.number] = part
    of = parts[0].shard.of
    records = [by_number[number].record for number in sorted(by_number)]
    missing = tuple(str(Shard(number=number, of=of)) for number in range(1, of + 1) if number not in by_number)
    found = combine_records(records, _run(records, missing), word="put together")
    return replace(found, missing=missing)


def _hinted(record: Record, others: Sequence[Record]) -> Record:
    """Add a note where a missing shard is there, but differs in what it was run with."""
    run, notes = record.run, []
    for other in others:
        is_near = (other.run.family, other.run.adapter) == (run.family, run.adapter)
        if record.missing and other.missing and is_near and not set(record.missing) <= set(other.missing):
            mine, its = _alike(run), _alike(other.run)
            apart = [name.replace("_", " ") for name in mine if mine[name] != its[name]]
            if other is not record and apart:
                notes.append(
                    f"{str(other.path)!r} is {OF_ANOTHER_RUN}: their {' and '.join(apart)} differ, and what the "
                    f"shards of a run were run with must be the same"
                )
    return replace(record, notes=(*record.notes, *notes))


def _run(records: Sequence[Record], missing: Sequence[str]) -> RunLine:
    """The first line that the run would have had in one piece; it names its shards if some are missing."""
    runs = [record.run for record in records]
    planned: Counter[str] = Counter()
    for run in runs:
        planned.update(run.planned)
    asked = {name: value for name, value in runs[0].asked.items() if name != _ASKED}
    if missing:
        asked[_ASKED] = " ".join(str(run.asked[_ASKED]) for run in runs)
    return replace(
        runs[0],
        started=min(run.started for run in runs),
        planned=dict(planned),
        asked=asked,
        workers=sum(run.workers for run in runs),
    )
