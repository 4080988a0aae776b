"""Join the shards of a run into one record, and say which are missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from verifier.cases.shards import Shard, parse_shard
from verifier.errors import UsageError
from verifier.record.lines import Record, RunLine
from verifier.record.merging import combine_records

# What the shards of one run have alike, besides what was asked for; they may have been run by different machines.
_ALIKE = ("family", "adapter", "adapter_name", "adapter_version", "versions", "seed", "flags", "dims", "checks")
_ASKED = "shard"
OF_ANOTHER_RUN = "a shard of another run"  # in a note on a record that has what this one lacks, and differs


def join_shards(records: Sequence[Record]) -> tuple[Record, ...]:
    """Join the shards of each run into one record, which stands where the first of them stood.

    A record that lacks shards names them in `missing`.

    Raises:
        UsageError: a shard is there twice, one is of another number of shards, or what a record says of its shard is
            not readable.
    """
    runs: dict[str, list[Record]] = {}
    places: list[Record | str] = []
    for record in records:
        if _ASKED not in record.run.asked:
            places.append(record)
            continue
        key = json.dumps(_shared_settings(record.run), sort_keys=True)
        if key not in runs:
            places.append(key)
        runs.setdefault(key, []).append(record)
    whole = {key: _join(parts) for key, parts in runs.items()}
    return tuple(_with_hints(whole[one], whole.values()) if isinstance(one, str) else one for one in places)


def _parse_shard(record: Record) -> Shard:
    """Read which shard a record is of."""
    try:
        return parse_shard(str(record.run.asked[_ASKED]))
    except UsageError as error:
        raise UsageError(f"{record.path}: its shard {error}") from error


def _shared_settings(run: RunLine) -> dict[str, object]:
    """Collect what all shards of a run have alike, by name."""
    asked = {name: value for name, value in run.asked.items() if name != _ASKED}
    return {**{name: getattr(run, name) for name in _ALIKE}, "asked": asked}


def _join(parts: Sequence[Record]) -> Record:
    """Join the shards of one run."""
    first = _parse_shard(parts[0])
    by_number: dict[int, Record] = {}
    for part in parts:
        shard = _parse_shard(part)
        if shard.of != first.of:
            raise UsageError(
                f"{str(part.path)!r} is shard {shard} and {str(parts[0].path)!r} shard {first} of the same run: run "
                f"all its shards with the same N of --shard I/N"
            )
        if shard.number in by_number:
            raise UsageError(
                f"{str(by_number[shard.number].path)!r} and {str(part.path)!r} are both shard {shard} of the same run: "
                f"name each shard once"
            )
        by_number[shard.number] = part
    every = [Shard(number=number, of=first.of) for number in range(1, first.of + 1)]
    records = [by_number[shard.number] for shard in every if shard.number in by_number]
    missing = tuple(str(shard) for shard in every if shard.number not in by_number)
    return replace(combine_records(records, _run(records, missing), word="put together"), missing=missing)


def _with_hints(record: Record, others: Iterable[Record]) -> Record:
    """Add a note where a missing shard is there, but was run with other settings."""
    run, notes = record.run, []
    for other in others:
        is_near = (other.run.family, other.run.adapter) == (run.family, run.adapter)
        if record.missing and other.missing and is_near and not set(record.missing) <= set(other.missing):
            settings, its = _shared_settings(run), _shared_settings(other.run)
            apart = [name.replace("_", " ") for name in settings if settings[name] != its[name]]
            if other is not record and apart:
                notes.append(
                    f"{str(other.path)!r} is {OF_ANOTHER_RUN}: their {' and '.join(apart)} differ, and what the "
                    f"shards of a run were run with must be the same"
                )
    return replace(record, notes=(*record.notes, *notes))


def _run(records: Sequence[Record], missing: Sequence[str]) -> RunLine:
    """Make the first line that the run would have had in one piece; it names its shards if some are missing."""
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
