"""Look for false alarms: random cases of a family in random circumstances, under an adapter that is right.

`python benchmarks/circumstances.py falcon --cases 2000 --seed 0` prints whatever is called wrong, with its
circumstance, and how near to its bound the error came by value of each axis. What is judged at once, far below its
bound, counts as 0.
"""

from __future__ import annotations

import argparse
import itertools
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch

from verifier import adapter as adapters
from verifier import family as families
from verifier.adapter import DEFAULT
from verifier.cases.circumstances import AXES, PLAIN, Circumstance, differences, is_allowed
from verifier.cases.dealing import can_be_called
from verifier.cases.spec import CaseSpec
from verifier.family import Family
from verifier.judging.outcome import Verdict
from verifier.observing.circumstances.row import Row, not_resting_on_failures
from verifier.reference.acceptance import refusal_of

_PLAIN_SHARE = 0.6


@dataclass(kw_only=True)
class Seen:
    """What a part of the cases gave.

    Attributes:
        cases: how many were run.
        wrong: what was called wrong.
        refused: how many circumstances Hugging Face refused, and how many the adapter does not offer.
        ratios: by axis and value, the largest error over its bound, and where it was.
    """

    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    ratios: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)


def draw(family: Family, drawn: random.Random) -> tuple[CaseSpec, Circumstance]:
    """Draw a case and a circumstance in which Hugging Face's model of it can be called."""
    configs = [
        {**family.dims(), **dict(zip(family.flags(), values, strict=True))}
        for values in itertools.product(*family.flags().values())
    ]
    refusal = refusal_of(family, asks=True)
    while True:
        config = drawn.choice(configs)
        row = {
            axis: next(iter(values)) if drawn.random() < _PLAIN_SHARE else drawn.choice(list(values))
            for axis, values in AXES.items()
        }
        spec = CaseSpec(family=family.name, config=config, seed=drawn.randrange(2**16))
        if refusal(config) is None and is_allowed(row) and can_be_called(family, spec, row):
            return spec, {**PLAIN, **row}


def look(family_reference: str, adapter_reference: str, seed: str, cases: int) -> Seen:
    """Run so many random cases."""
    torch.set_num_threads(1)
    family, adapter = families.load(family_reference), adapters.load(adapter_reference)
    drawn, seen = random.Random(seed), Seen()
    for _ in range(cases):
        spec, row = draw(family, drawn)
        result = Row(spec, family, row).run(adapter)
        seen.cases += 1
        seen.refused += result.refused is not None or result.not_offered is not None
        for observable, error in result.errors.items():
            seen.wrong.append(f"{spec.id} seed {spec.seed} {dict(differences(row))}: {observable} raises {error!r}")
        for observable, findings in not_resting_on_failures(result).items():
            failed = [one for one in findings if one.verdict is Verdict.FAIL]
            if failed:
                words = f"{observable} at {failed[0].where}: {failed[0].message}"
                seen.wrong.append(f"{spec.id} seed {spec.seed} {dict(differences(row))}: {words}")
            nearest = max(findings, key=lambda one: one.ratio if one.bound else 0.0)
            ratio = nearest.ratio if nearest.bound else 0.0
            for item in row.items():
                if ratio > seen.ratios.get(item, (0.0, ""))[0]:
                    seen.ratios[item] = ratio, f"{observable} at {nearest.where}"
    return seen


def main() -> None:
    """Run the cases in two processes, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("--adapter", default=DEFAULT)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    share = -(-given.cases // given.workers)
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        parts = [
            pool.submit(look, given.family, given.adapter, f"{given.seed}.{worker}", share)
            for worker in range(given.workers)
        ]
        seen = [part.result() for part in parts]
    wrong = [line for part in seen for line in part.wrong]
    for line in wrong:
        print(line)
    print(
        f"{sum(part.cases for part in seen):,} cases, {len(wrong)} called wrong, {sum(p.refused for p in seen)} not run"
    )
    for axis, values in AXES.items():
        for value in values:
            found = [part.ratios[axis, value] for part in seen if (axis, value) in part.ratios]
            ratio, where = max(found, default=(0.0, ""))
            print(f"{axis + '=' + value:28} {ratio:8.3f}  {where}")


if __name__ == "__main__":
    main()
