"""Share the cases of a run among several machines; each machine computes the same division on its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.cases.spec import CaseSpec, Depth
from verifier.errors import UsageError

_WRITTEN = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The `number`-th of `of`; the first is 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """Parse the text of a shard: `2/4` is the second of four.

    Raises:
        UsageError: the text is no `I/N` of whole numbers from 1, or I is larger than N.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"must be I/N, both whole numbers from 1, as 2/4 for the second of four, not {text!r}")
    number, of = int(found[1]), int(found[2])
    if number > of:
        raise UsageError(f"must be one of the {of} shards, the last of which is {of}/{of}, not {text!r}")
    return Shard(number=number, of=of)


def select_shard(specs: Sequence[CaseSpec], shard: Shard) -> tuple[CaseSpec, ...]:
    """Select the cases of a shard, in their given order.

    All shards of the same cases have each case once, and about the same to do: the cases lie by what they cost, as far
    as that is known without running them, and are dealt in turns. Among those that cost the same the id decides, which
    is a hash, so that no shard gets all cases with one value of a flag.

    Args:
        specs: the cases of the whole run.
        shard: which shard, and of how many.
    """
    by_cost = sorted(specs, key=lambda spec: (-list(Depth).index(spec.depth), not spec.valid, spec.id))
    chosen = {spec.id for spec in by_cost[shard.number - 1 :: shard.of]}
    return tuple(spec for spec in specs if spec.id in chosen)
