"""What a test function stands for: cases and checks, as the command would run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from verifier import adapter as adapters
from verifier import checks as all_checks
from verifier import configuration
from verifier import family as families
from verifier.engine.environment import versions
from verifier.engine.events import CheckInfo
from verifier.engine.limits import Limits, defaults
from verifier.engine.plan import Plan, applicable
from verifier.errors import UsageError
from verifier.known.entries import Baseline, KnownFailure
from verifier.outcome import Verdict, short_id
from verifier.report.text import value
from verifier.spec import WORKING_DTYPES, CaseSpec

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
        asked: what narrowed it, as a record's first line has it.
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
    asked: Mapping[str, Any] = field(default_factory=dict)
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
        reason = families.load(self.family).refusal(spec.config)
        return replace(spec, valid=reason is None, reason=reason, device=self.plan.device)

    def header(self) -> dict[str, Any]:
        """The fields of a record's first line that are known before anything runs."""
        described = families.load(self.family)
        return {
            "family": self.family,
            "adapter": self.adapter,
            "versions": versions(self.adapter),
            "seed": self.specs[0].seed,
            "flags": {name: list(values) for name, values in described.flags().items()},
            "dims": dict(described.dims()),
            "asked": dict(self.asked),
            "limits": {"timeout": self.limits.seconds, "memory": self.limits.bytes},
        }


def planned(
    family: str,
    adapter: object,
    *,
    only: Sequence[str] = (),
    where: str | Sequence[str] | Mapping[str, Any] = (),
    preset: str | None = None,
    checkpoint: str | None = None,
    seed: int = 0,
    dtypes: Sequence[str] = WORKING_DTYPES,
    device: str = "cpu",
    everywhere: bool = False,
    baseline: str | Path | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    isolation: bool | None = None,
    gate: Sequence[str] = (),
    per: Per = "area",
) -> TestPlan:
    """The plan of these wishes, which are those of `verifier run`.

    Args:
        family: the family's name.
        adapter: an adapter's name, `module:object`, or the adapter itself, which then runs in this process.
        only: globs that select checks.
        where: `"alibi=true"`, several of these, or a mapping from flag to value.
        preset: this published checkpoint's shape instead of the matrix.
        checkpoint: the model in this folder instead of the matrix.
        seed: of weights and inputs.
        dtypes: the working dtypes in which precision is judged.
        device: where cases run.
        everywhere: whether every check looks at every case.
        baseline: the file with the known failures.
        timeout: seconds that a case may take; 0 for no limit.
        memory: bytes that a case may take; 0 for no limit.
        isolation: whether cases run in a process of their own; None for wherever that is possible.
        gate: the verdicts that fail besides those that always do: `reduced`, `upstream`, `skip`.
        per: whether an item is a case and an area, or a case and a check.

    Raises:
        UsageError: something of it is wrong.
        Inconclusive: no case is like that.
        ImportFailed: code from outside raised at import.
    """
    from verifier.commands import selection
    from verifier.commands.options import RunOptions, require_sense
    from verifier.commands.run import require_adapter
    from verifier.known.file import read, require_of

    if per not in ("area", "check"):
        raise UsageError(f"per={per!r}: an item is per 'area' or per 'check'")
    only = (only,) if isinstance(only, str) else tuple(only)
    wishes = selection.wishes(where)
    is_object = not isinstance(adapter, str)
    reference = adapter if isinstance(adapter, str) else adapters.here(adapter)
    if not is_object:
        require_adapter(reference)
    if isolation and is_object:
        raise UsageError("an adapter object runs in this process; name it as 'module:object' to have it isolated")
    isolated = not is_object if isolation is None else isolation
    require_sense(
        RunOptions(
            family=family, preset=preset, checkpoint=checkpoint, isolation=isolated, timeout=timeout, memory=memory
        )
    )
    specs = selection.from_matrix(
        family,
        seed=seed,
        dtypes=tuple(dtypes),
        device=device,
        where=wishes,
        preset=preset,
        checkpoint=checkpoint,
        everywhere=everywhere,
    )
    known = None if baseline is None else read(Path(baseline))
    if known is not None:
        require_of(known, family, reference, "these tests")
    gate = configuration.gates(gate)
    asked: dict[str, Any] = {
        "only": list(only),
        "where": list(wishes),
        "preset": preset,
        "checkpoint": checkpoint,
        "everywhere": everywhere,
        "dtype": list(dtypes),
        "device": device,
        "baseline": None if known is None else f"{known.path} ({known.digest})",
        "gate": list(gate),
        "pytest": True,
    }
    usual = defaults(large=preset is not None or checkpoint is not None, workers=1)
    limits = usual.or_as_asked(timeout, memory)
    checks = tuple(CheckInfo(id=one.id, doc=one.doc, applies=one.applies) for one in all_checks.select(only))
    narrowed = {name: wish for name, wish in asked.items() if wish}
    told_apart = [narrowed, [spec.id for spec in specs], [check.id for check in checks], per, isolated, asdict(limits)]
    return TestPlan(
        id=short_id([family, reference, *told_apart]),
        family=family,
        adapter=reference,
        specs=specs,
        checks=checks,
        per=per,
        limits=limits,
        isolated=isolated,
        is_object=is_object,
        baseline=known,
        gate=frozenset(map(Verdict, gate)),
        asked=narrowed,
        only=only,
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
