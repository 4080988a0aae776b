"""What is to be run: which cases, and which checks on each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from verifier.cases.spec import CaseSpec, applies_to
from verifier.engine.events import CheckInfo
from verifier.engine.limits import Limits
from verifier.judging.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One case for a worker, and what to do with it.

    Attributes:
        spec: the case.
        checks: the ids of the checks that are wanted; None for all that the plan selects.
        diagnose: whether to tell what the checks compare on the case, and not to run them.
        told: by the id of the check, the failures of the case that were told before.
    """

    spec: CaseSpec
    checks: tuple[str, ...] | None = None
    diagnose: bool = False
    told: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run in plain data, from which a worker can load what it needs by itself.

    Attributes:
        family: the family, by name or as `module:object`.
        adapter: the adapter, by name or as `module:object`.
        specs: the cases, each id once.
        only: globs that select checks; all where there is none.
        device: the device that tensors are on, as torch names it.
        limits: how much time and memory one case may take.
        known: how many seconds each case took in an earlier run, by id; the order is made of these.
        wanted: the ids of the checks that are wanted, by the id of the case; None for all that are selected.
        diagnose: whether to tell what the wanted checks compare, and not to run them.
        told: by the id of the case and of the check, the failures that were told before.
    """

    family: str
    adapter: str
    specs: tuple[CaseSpec, ...]
    only: tuple[str, ...] = ()
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    known: Mapping[str, float] = field(default_factory=dict)
    wanted: Mapping[str, tuple[str, ...]] | None = None
    diagnose: bool = False
    told: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)

    def task(self, spec: CaseSpec) -> Task:
        """Make the task that a worker is given for a case."""
        wanted = None if self.wanted is None else self.wanted.get(spec.id)
        return Task(spec=spec, checks=wanted, diagnose=self.diagnose, told=self.told.get(spec.id, {}))

    def applicable(self, spec: CaseSpec, checks: Sequence[CheckInfo]) -> tuple[str, ...]:
        """List the ids of the checks that run on a case of the plan, in their order.

        Args:
            spec: the case.
            checks: the selected checks.
        """
        return applicable(spec, checks, self.task(spec).checks)


def drop_repeated(specs: Iterable[CaseSpec]) -> tuple[CaseSpec, ...]:
    """Drop each case whose id came before: the same case under another name is run once."""
    first: dict[str, CaseSpec] = {}
    for spec in specs:
        first.setdefault(spec.id, spec)
    return tuple(first.values())


def applicable(spec: CaseSpec, checks: Sequence[CheckInfo], wanted: Collection[str] | None = None) -> tuple[str, ...]:
    """List the ids of the checks that run on the case, in their order; capabilities are known only once it is built.

    Args:
        spec: the case.
        checks: the selected checks.
        wanted: the ids of the checks that are wanted; None for all that are selected.
    """
    return tuple(
        check.id for check in checks if (wanted is None or check.id in wanted) and applies_to(check.applies, spec)
    )


def count_outcomes(specs: Iterable[CaseSpec], checks: Sequence[CheckInfo]) -> int:
    """Count the outcomes that the cases give.

    Args:
        specs: the cases.
        checks: the selected checks; each that runs on a case gives one outcome there.
    """
    return sum(len(applicable(spec, checks)) for spec in specs)
