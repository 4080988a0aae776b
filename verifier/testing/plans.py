"""What a test function stands for: cases and checks, as the command would run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from verifier import family as families
from verifier.cases.spec import CaseSpec
from verifier.engine import catalogue
from verifier.engine.events import CheckInfo
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan, applicable
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict, short_id
from verifier.output.text import value
from verifier.record.known_failure import Baseline, KnownFailure

if TYPE_CHECKING:
    from verifier.requests.python import Wishes

Per = Literal["area", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlan:
    """Everything that a test function runs.

    Attributes:
        family: reference.
        adapter: reference.
        specs: the cases, refused ones too.
        checks: those selected, in the order in which they run.
        per: whether an item is a case and an area, or a case and a check.
        limits: what a case may take.
        isolated: whether cases run in a process of their own.
        is_object: whether the adapter is an object of this process, and not one that any process finds by its name.
        baseline: what is known to fail.
        gate: the verdicts that fail besides those that always do.
        header: the fields of a record's first line that are known before anything runs.
        only: the globs that selected the checks.
        id: the same in every process that collects it.
    """

    __test__ = False  # pytest looks for tests by name

    family: str
    adapter: str
    specs: tuple[CaseSpec, ...]
    checks: tuple[CheckInfo, ...]
    per: Per
    limits: Limits
    isolated: bool
    is_object: bool = False
    baseline: Baseline | None = None
    gate: frozenset[Verdict] = frozenset()
    header: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    id: str

    @property
    def plan(self) -> Plan:
        """What the engine is given; cases come one by one."""
        device = self.specs[0].device
        return Plan(
            family=self.family, adapter=self.adapter, specs=(), only=self.only, device=device, limits=self.limits
        )

    def today(self, spec: CaseSpec) -> CaseSpec:
        """A case that was written down, as Hugging Face takes it now, on this plan's device."""
        return replace(spec.accepted_by(families.load(self.family).refusal), device=self.plan.device)


def planned(family: str, adapter: object, *, per: Per = "area", **wishes: Unpack[Wishes]) -> TestPlan:
    """The plan of these wishes, which are those of `verifier.run`.

    Args:
        family: the family's name.
        adapter: an adapter's name, `module:object`, or the adapter itself, which then runs in this process.
        per: whether an item is a case and an area, or a case and a check.
        wishes: what `verifier.run` takes besides, but for `workers`: pytest decides how many processes there are.

    Raises:
        UsageError: something of it is wrong.
        Inconclusive: no case is like that.
        ImportFailed: code from outside raised at import.
    """
    from verifier.requests.header import header_of, limits_of
    from verifier.requests.python import asked_for

    if per not in ("area", "check"):
        raise UsageError(f"per={per!r}: an item is per 'area' or per 'check'")
    if wishes.get("workers") is not None:
        raise UsageError("workers are pytest's here: pytest -n 2")
    asked = asked_for(family, adapter, wishes, what="these tests")
    options = replace(asked.options, workers=1)
    limits = limits_of(options, asked.specs)
    header = header_of(options, asked.reference, asked.specs, asked.baseline)
    header["asked"] = {**header["asked"], "pytest": True}
    checks = catalogue.select(options.only)
    told_apart = [
        header["asked"],
        [spec.id for spec in asked.specs],
        [check.id for check in checks],
        per,
        options.isolation,
        asdict(limits),
    ]
    return TestPlan(
        id=short_id([family, asked.reference, *told_apart]),
        family=family,
        adapter=asked.reference,
        specs=asked.specs,
        checks=checks,
        per=per,
        limits=limits,
        isolated=options.isolation,
        is_object=asked.is_object,
        baseline=asked.baseline,
        gate=frozenset(map(Verdict, options.gate)),
        header={**header, "limits": {"timeout": limits.seconds, "memory": limits.bytes}},
        only=options.only,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What one test item looks at.

    Attributes:
        name: readable, the same in every run, and in the signs that `-k` takes: `alibi+num_kv_heads:4-gjei7dt5-qkv`;
            `spreading` reads the case off it.
        spec: the case.
        checks: the ids of its checks.
        known: the known failure whose own case this is; None for an item of the matrix.
    """

    name: str
    spec: CaseSpec
    checks: tuple[str, ...]
    known: KnownFailure | None = None


def items(plan: TestPlan) -> list[Item]:
    """The items of a plan: first the known failures, then the cases in the order of the matrix."""
    found = []
    if plan.baseline is not None:
        for failure in plan.baseline.failures:
            if failure.check in {check.id for check in plan.checks}:
                spec = plan.today(failure.spec)
                name = f"known-{failure.fingerprint}-{spec.id}-{failure.check}"
                found.append(Item(name=name, spec=spec, checks=(failure.check,), known=failure))
    names = _names(plan)
    for spec in plan.specs:
        looked = applicable(spec, plan.checks)
        groups = (
            {check: (check,) for check in looked}
            if plan.per == "check"
            else {
                area: tuple(check for check in looked if check.partition(".")[0] == area)
                for area in dict.fromkeys(check.partition(".")[0] for check in looked)
            }
        )
        found += [
            Item(name=f"{names[spec.id]}-{spec.id}-{group}", spec=spec, checks=some) for group, some in groups.items()
        ]
    return found


def _names(plan: TestPlan) -> dict[str, str]:
    """What each case is called in words: its label, or the flags that are not plainest."""
    flags = families.load(plan.family).flags()
    named = {}
    for spec in plan.specs:
        strange = [
            name if spec.config[name] is True else f"{name}:{value(spec.config[name])}"
            for name, values in flags.items()
            if name in spec.config and repr(spec.config[name]) != repr(values[0])
        ]
        words = spec.label or "+".join(strange) or "plainest"
        named[spec.id] = words if spec.valid else f"refused+{words}"
    return named
