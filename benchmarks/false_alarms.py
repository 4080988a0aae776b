"""Look for false alarms: run random Falcons under a right adapter, and print how near to its bounds it comes.

    python benchmarks/false_alarms.py --cases 1000 --seeds 0 1 2

Every valid case is run with every check, in every dtype. The script prints, for each check, the distribution of the
largest error of a case over its bound: a failure begins at 1.

Residual streams narrower than `--least-width` are left out. A norm over two numbers keeps little more than their order,
and over six or eight numbers one token with a small norm outweighs all others. Rounding errors are then too uneven to
be measured once, and a right adapter is sometimes off by twice the noise in a working dtype.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from verifier.adapter import DEFAULT
from verifier.cases.spec import CaseSpec, Depth
from verifier.engine.events import OutcomeReady, RunFinished
from verifier.engine.limits import default_limits
from verifier.engine.plan import Plan
from verifier.engine.run import run
from verifier.families.falcon_configs import FLAGS
from verifier.families.falcon_refusals import refusal
from verifier.judging.outcome import Outcome, Verdict

LEAST_WIDTH = 12
SAMPLED_EVERY = 20  # one case in so many also runs the checks that are too expensive for each case


def random_config(draw: random.Random, least_width: int = LEAST_WIDTH) -> dict[str, Any]:
    """Draw a config that Hugging Face accepts: flags, heads, widths, depth, activation, epsilon and rotary base."""
    while True:
        heads, d_head = draw.choice((1, 2, 3, 4, 5, 6, 8, 9, 12, 16)), draw.choice((2, 3, 4, 6, 8, 10))
        found: dict[str, Any] = {
            **{name: draw.choice(values) for name, values in FLAGS.items()},
            "num_kv_heads": draw.choice((None, 1, heads, *(n for n in range(2, heads) if heads % n == 0))),
            "hidden_size": heads * d_head,
            "num_attention_heads": heads,
            "num_hidden_layers": draw.choice((1, 2, 2, 3)),
            "ffn_hidden_size": draw.choice((None, 7, 40, 80, 130)),
            "vocab_size": draw.choice((23, 61, 89, 131)),
            "max_position_embeddings": 64,
            "layer_norm_epsilon": draw.choice((1e-5, 1e-5, 1e-3)),
            "activation": draw.choice(("gelu", "gelu", "gelu", "gelu_pytorch_tanh", "silu")),
            "tie_word_embeddings": draw.choice((True, True, False)),
        }
        if draw.random() < 0.3:
            found["rope_parameters"] = {"rope_type": "default", "rope_theta": draw.choice((1e3, 1e4, 5e5))}
        if found["hidden_size"] >= least_width and refusal(found) is None:
            return found


def random_cases(cases: int, seeds: Sequence[int], least_width: int = LEAST_WIDTH) -> Iterator[CaseSpec]:
    """Draw a number of random cases for each seed."""
    for seed in seeds:
        draw = random.Random(seed)
        for number in range(cases):
            yield CaseSpec(
                family="falcon",
                config=random_config(draw, least_width),
                seed=seed,
                batch=draw.choice((2, 3, 5)),
                length=draw.choice((6, 9, 11, 14)),
                long=draw.choice((33, 97, 150)),
                depth=Depth.PAIRWISE if number % SAMPLED_EVERY else Depth.SAMPLED,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--least-width", type=int, default=LEAST_WIDTH, help="of the residual stream")
    parser.add_argument("--adapter", default=DEFAULT)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="globs of checks")
    asked = parser.parse_args()
    plan = Plan(
        family="falcon",
        adapter=asked.adapter,
        specs=tuple({spec.id: spec for spec in random_cases(asked.cases, asked.seeds, asked.least_width)}.values()),
        only=tuple(asked.only),
        limits=default_limits(large=False, workers=asked.workers),
    )
    cases = {spec.id: spec for spec in plan.specs}
    verdicts: Counter[Verdict] = Counter()
    ratios: dict[str, list[float]] = defaultdict(list)
    alarms: list[tuple[CaseSpec, Outcome]] = []
    seconds = 0.0
    for event in run(plan, workers=asked.workers):
        if isinstance(event, RunFinished):
            seconds = event.seconds
        if not isinstance(event, OutcomeReady):
            continue
        outcome = event.outcome
        verdicts[outcome.verdict] += 1
        if outcome.verdict.gates:
            alarms.append((cases[event.case], outcome))
        elif outcome.bound and outcome.measured is not None and outcome.verdict is Verdict.PASS:
            ratios[outcome.check].append(outcome.measured / outcome.bound)
    print(f"{len(cases)} random cases, seeds {asked.seeds}, {seconds:.0f} s")
    print(", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common()))
    print(f"{'error / bound':28} {'outcomes':>8} {'median':>8} {'99%':>8} {'largest':>8}")
    for check, found in ratios.items():
        ordered = sorted(found)
        high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        print(f"{check:28} {len(found):8,} {statistics.median(found):8.3f} {high:8.3f} {ordered[-1]:8.3f}")
    for spec, outcome in alarms:
        print(f"ALARM {outcome.check} {outcome.verdict} at {outcome.where}: {outcome.message}")
        print(f"      {spec.to_json()}")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
