"""The plan of a test function: the cases and checks that `verifier run` would run, as test items."""

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
from verifier.reference.acceptance import refusal_of
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
        id: a short hash of the plan, the same in every process that collects it.
    """

    __test__ = False  # pytest looks for tests by name

    run: PlannedRun
    checks: tuple[CheckInfo, ...]
    header: Mapping[str, Any]
    id: str

    @property
    def is_object(self) -> bool:
        """Whether the adapter is an object of this process alone, which no other process finds by its name."""
        return adapters.is_registered_instance(self.run.adapter)

    def gates(self, outcome: Outcome) -> bool:
        """Whether the outcome makes its item fail, unless it is excused."""
        return outcome.verdict.gates or str(outcome.verdict) in self.run.request.gate

    def revalidate(self, spec: CaseSpec) -> CaseSpec:
        """Ask again whether Hugging Face accepts a recorded case, and put the case on this plan's device."""
        refusal = refusal_of(families.load(self.run.request.family))
        return replace(spec.accepted_by(refusal), device=self.run.specs[0].device)


def plan_decorated(family: str, adapter: object, *, per: str = "area", **asked: Unpack[PythonOptions]) -> TestPlan:
    """Make the plan of what a decorator was given; `parametrize_with_checks` says what each argument is.

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, a class or the adapter itself; None for the configured one.
        per: whether an item is a case and an `area` of checks, or a case and a `check`.
        asked: the options that were given besides.

    Raises:
        UsageError: an option is wrong.
        Inconclusive: no case is selected.
        ImportFailed: code from outside raised at import.
    """
    return plan_tests(replace(python_request(family, adapter, asked), per=read_option("per", per)))


def plan_tests(request: RunRequest) -> TestPlan:
    """Make the plan of a request.

    Raises:
        UsageError: an option is wrong.
        Inconclusive: no case is selected.
        ImportFailed: code from outside raised at import.
    """
    if request.workers is not None:
        raise UsageError("workers are pytest's here: pytest -n 2")
    run = plan_run(replace(request, workers=1), "these tests")
    header = run.header()
    header["asked"] = {**header["asked"], "pytest": True}
    checks = catalogue.select(request.only)
    identity = [
        request.family,
        run.adapter,
        header["asked"],
        [spec.id for spec in run.specs],
        [check.id for check in checks],
        request.per,
        request.isolated,
        asdict(run.limits),
    ]
    return TestPlan(id=short_id(identity), run=run, checks=checks, header=header)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One test item: a case, and the checks that look at it.

    Attributes:
        name: the item's id in pytest, the same in every run, of characters that `-k` takes:
            `alibi+num_kv_heads:4-gjei7dt5-qkv`. `spreading` reads the case off it.
        spec: the case.
        checks: the ids of its checks.
        known: the known failure whose own case this is; None for an item of the matrix.
    """

    name: str
    spec: CaseSpec
    checks: tuple[str, ...]
    known: KnownFailure | None = None


def list_items(plan: TestPlan) -> list[Item]:
    """List the items of a plan: first the known failures, then the cases in the order of the matrix."""
    items = []
    if plan.run.baseline is not None:
        for failure in plan.run.baseline.failures:
            if failure.check in {check.id for check in plan.checks}:
                spec = plan.revalidate(failure.spec)
                name = f"known-{failure.fingerprint}-{spec.id}-{failure.check}"
                items.append(Item(name=name, spec=spec, checks=(failure.check,), known=failure))
    names = _name_cases(plan)
    for spec in plan.run.specs:
        checks = applicable(spec, plan.checks)
        groups: dict[str, list[str]] = {}
        for check in checks:
            group = check if plan.run.request.per == "check" else check.partition(".")[0]
            groups.setdefault(group, []).append(check)
        items += [
            Item(name=f"{names[spec.id]}-{spec.id}-{group}", spec=spec, checks=tuple(ids))
            for group, ids in groups.items()
        ]
    return items


def _name_cases(plan: TestPlan) -> dict[str, str]:
    """Name each case in words, by its id: with its label, or the flags that are not plainest."""
    flags = families.load(plan.run.request.family).flags()
    names = {}
    for spec in plan.run.specs:
        strange = [
            name if spec.config[name] is True else f"{name}:{value(spec.config[name])}"
            for name, values in flags.items()
            if name in spec.config and repr(spec.config[name]) != repr(values[0])
        ]
        words = spec.label or "+".join(strange) or "plainest"
        names[spec.id] = words if spec.valid else f"refused+{words}"
    return names
