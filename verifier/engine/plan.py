"""What is to be run: which cases, and which checks on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from verifier.checks import applies_to
from verifier.engine.events import CheckInfo
from verifier.engine.limits import Limits
from verifier.engine.task import Task
from verifier.spec import CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plain data from which a worker can load what it needs by itself.

    Attributes:
        family: reference, as on the command line.
        adapter: reference, as on the command line.
        specs: the cases, each id once.
        only: globs that select checks; all where there is none.
        device: where tensors live.
        limits: what one case may take.
        known: seconds that cases took in an earlier run, by id: what the order is made of.
        look: where the cases are not to be run but looked at closely: the ids of the checks that failed, by case.
    """

    family: str
    adapter: str
    specs: tuple[CaseSpec, ...]
    only: tuple[str, ...] = ()
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    known: Mapping[str, float] = field(default_factory=dict)
    look: Mapping[str, tuple[str, ...]] | None = None

    def task(self, spec: CaseSpec) -> Task:
        """What a worker is given for one of the cases."""
        return Task(spec=spec) if self.look is None else Task(spec=spec, checks=self.look.get(spec.id), look=True)


def distinct(specs: Iterable[CaseSpec]) -> tuple[CaseSpec, ...]:
    """The specs without those whose id came before: the same case under another name is run once."""
    first: dict[str, CaseSpec] = {}
    for spec in specs:
        first.setdefault(spec.id, spec)
    return tuple(first.values())


def applicable(spec: CaseSpec, checks: Sequence[CheckInfo]) -> tuple[str, ...]:
    """The ids of the checks that run on the case, in their order; capabilities are known only once it is built."""
    return tuple(check.id for check in checks if applies_to(check.applies, spec))


def expected(specs: Iterable[CaseSpec], checks: Sequence[CheckInfo]) -> int:
    """How many outcomes the cases give."""
    return sum(len(applicable(spec, checks)) for spec in specs)
