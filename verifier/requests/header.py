"""The first line of a record, as far as it is known before anything is loaded, and the limits of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from verifier import family
from verifier.cases.spec import CaseSpec
from verifier.engine.environment import usable_cores, versions
from verifier.engine.limits import Limits, defaults
from verifier.record.known_failure import Baseline
from verifier.requests.request import RunOptions


def now() -> str:
    """As a record's first line has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def limits_of(options: RunOptions, specs: Sequence[CaseSpec]) -> Limits:
    """What was asked for, 0 standing for no limit, and defaults elsewhere."""
    large = options.preset is not None or any(spec.checkpoint for spec in specs)
    usual = defaults(large=large, workers=options.workers or usable_cores())
    return usual.or_as_asked(options.timeout, options.memory)


def header_of(
    options: RunOptions, reference: str, specs: Sequence[CaseSpec], baseline: Baseline | None
) -> dict[str, Any]:
    """The fields of the record's first line that are known before anything is loaded."""
    described = family.load(options.family)
    asked = {
        "only": list(options.only),
        "where": list(options.where),
        "preset": options.preset,
        "checkpoint": options.checkpoint,
        "cases": None if options.cases is None else str(options.cases),
        "everywhere": options.everywhere,
        # Each of the cases in a file has its own.
        "dtype": [] if options.cases is not None else list(options.dtypes),
        "device": None if options.cases is not None else options.device,
        "baseline": None if baseline is None else f"{baseline.path} ({baseline.digest})",
        "shard": None if options.shard is None else str(options.shard),
        "gate": list(options.gate),
    }
    return {
        "family": options.family,
        "adapter": reference,
        "versions": versions(reference),
        "seed": specs[0].seed,
        "flags": {name: list(values) for name, values in described.flags().items()},
        "dims": dict(described.dims()),
        "planned": {
            "valid": sum(spec.valid for spec in specs),
            "refused": sum(not spec.valid for spec in specs),
        },
        "asked": {name: value for name, value in asked.items() if value},
    }
