"""What a test function stands for: cases and checks, as the command would run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

from verifier import adapter as adapters
from verifier import family as families
from verifier.cases.spec import CaseSpec
from verifier.engine import catalogue
from verifier.engine.events import CheckInfo
from verifier.engine.plan import applicable
from verifier.errors import UsageError
from verifier.judging.outcome import Outcome, short_id
from verifier.output.text import value
from verifier.record.known_failure import KnownFailure
from verifier.requests.planning import PlannedRun, plan_run
from verifier.requests.python import PythonOptions, python_request, read_option
from verifier.requests.request import RunRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlan:
    """Everything that a test function runs.

    Attributes:
        run: the run of the adapter, as the command would have it.
        checks: those selected, in the order in which they run.
        header: the fields of a record's first line that are known before anything runs.
        id: the same in every process that collects it.
    """

    __test__ = False  # pytest looks for tests by name

    run: PlannedRun
    checks: tuple[CheckInfo, ...]
    header: Mapping[str, Any]
    id: str

    @property
    def is_object(self) -> bool:
        """Whether the adapter is an object of this process, and not one that any process finds by its name."""
        return adapters.is_registered_instance(self.run.adapter)

    def gates(self, outcome: Outcome) -> bool:
        """Whether the outcome makes its item fail, unless it is excused."""
        return outcome.verdict.gates or str(outcome.verdict) in self.run.request.gate

    def revalidate(self, spec: CaseSpec) -> CaseSpec:
        """A case that was written down, as Hugging Face takes it now, on this plan's device."""
        refusal = families.load(self.run.request.family).refusal
        return replace(spec.accepted_by(refusal), device=self.run.specs[0].device)


def plan_decorated(family: str, adapter: object, *, per: str = "area", **asked: Unpack[PythonOptions]) -> TestPlan:
    """The plan of what a decorator was given; `parametrize_with_checks` says what each is."""
    return plan_tests(replace(python_request(family, adapter, asked), per=read_option("per", per)))


def plan_tests(request: RunRequest) -> TestPlan:
    """The plan of a request.

    Raises:
        UsageError: something of it is wrong.
        Inconclusive: no case is like that.
        ImportFailed: code from outside raised at import.
    """
    if request.workers is not None:
        raise UsageError("workers are pytest's here: pytest -n 2")
    run = plan_run(replace(request, workers=1), "these tests")
    header = run.header()
    header["asked"] = {**header["asked"], "pytest": True}
    checks = catalogue.select(request.only)
    told_apart = [
        request.family,
        run.adapter,
        header["asked"],
        [spec.id for spec in run.specs],
        [check.id for check in checks],
        request.per,
        request.isolated,
        asdict(run.limits),
    ]
    return TestPlan(id=short_id(told_apart), run=run, checks=checks, header=header)


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
    if plan.run.baseline is not None:
        for failure in plan.run.baseline.failures:
            if failure.check in {check.id for check in plan.checks}:
                spec = plan.revalidate(failure.spec)
                name = f"known-{failure.fingerprint}-{spec.id}-{failure.check}"
                found.append(Item(name=name, spec=spec, checks=(failure.check,), known=failure))
    names = _names(plan)
    for spec in plan.run.specs:
        looked = applicable(spec, plan.checks)
        groups = (
            {check: (check,) for check in looked}
            if plan.run.request.per == "check"
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
    flags = families.load(plan.run.request.family).flags()
    named = {}
    for spec in plan.run.specs:
        strange = [
            name if spec.config[name] is True else f"{name}:{value(spec.config[name])}"
            for name, values in flags.items()
            if name in spec.config and repr(spec.config[name]) != repr(values[0])
        ]
        words = spec.label or "+".join(strange) or "plainest"
        named[spec.id] = words if spec.valid else f"refused+{words}"
    return named
