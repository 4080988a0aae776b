"""`parametrize_with_checks`: run a test function for every case and each group of checks that look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack

import pytest

from verifier.cases.spec import CaseSpec
from verifier.errors import VerifierError
from verifier.judging import wording
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.record.case_description import config_difference
from verifier.record.known_failure import EntryState, Settled
from verifier.requests.python import PythonOptions
from verifier.testing import conclusions
from verifier.testing.plans import Item, TestPlan, list_items, plan_decorated
from verifier.testing.running import Share, share_of

Function = TypeVar("Function", bound=Callable[..., Any])

MARK = "verifier"
CASE, CHECK = "case", "check"

# The item that is being run. The plugin sets it, and its subtests are reported through it.
running_item: ContextVar[pytest.Item | None] = ContextVar("running_item", default=None)


@dataclass(frozen=True, slots=True)
class CaseUnderTest:
    """A case, as a test function is given it.

    Attributes:
        spec: everything about it, as plain data.
    """

    spec: CaseSpec

    @property
    def id(self) -> str:
        """The case's id, the same in the terminal, the record and the reports; `verifier repro` takes it."""
        return self.spec.id

    def __repr__(self) -> str:
        return f"<case {self.spec.id}>"


class ChecksUnderTest:
    """The checks of one test item: call the object with the case that came with it.

    Attributes:
        plan: the plan that the item is of.
        item: the item.
        ids: the ids of the checks.
    """

    def __init__(self, plan: TestPlan, item: Item) -> None:
        self.plan, self.item = plan, item
        self.ids = item.checks

    def __repr__(self) -> str:
        return f"<checks {', '.join(self.ids)}>"

    def __call__(self, case: CaseUnderTest) -> None:
        """Run the checks on the case; if there are several, each is a subtest.

        Raises:
            ValueError: the case is not the one that came with these checks.
        """
        __tracebackhide__ = True
        if case.spec != self.item.spec:
            raise ValueError(f"these checks came with case {self.item.spec.id}, not with {case.spec.id}")
        share = share_of(self.plan)
        if share.unusable is not None:  # one failure, not a thousand
            conclusions.skip(f"blocked: {share.unusable}")
        result = _run_item(share, self.item)
        if isinstance(result, VerifierError):
            parts = [text.line(str(result)), *([text.detail(result.detail)] if result.detail else [])]
            conclusions.fail("\n\n".join(parts))
        if isinstance(result, Settled):
            _conclude_known(share, result)
            return
        outcomes = result
        if all(outcome.verdict is Verdict.SKIP and not share.plan.gates(outcome) for outcome in outcomes):
            conclusions.skip("; ".join(dict.fromkeys(outcome.message or "no reason given" for outcome in outcomes)))
        if len(outcomes) == 1:
            _conclude(share, self.item, outcomes[0])
            return
        excused = _conclude_each(share, self.item, outcomes)
        if excused:
            conclusions.expect_failure("; ".join(excused))


def _run_item(share: Share, item: Item) -> tuple[Outcome, ...] | Settled | VerifierError:
    """Give the outcomes of an item, or what became of its known failure, or the error that kept it from running."""
    try:
        return share.outcomes(item) if item.known is None else share.settled(item.known, whole=True)
    except VerifierError as error:
        return error


def _conclude_each(share: Share, item: Item, outcomes: Sequence[Outcome]) -> list[str]:
    """Report each check as a subtest.

    This function is not hidden from tracebacks: pytest names the place where a subtest was skipped, and it needs one.

    Returns:
        Why each excused failure is excused.
    """
    running = running_item.get()
    subtests = getattr(running, "funcargs", {}).get("subtests")
    excused, failed = [], []
    for outcome in outcomes:
        failure = share.excused(item.spec, outcome)
        if failure is not None:
            excused.append(f"{outcome.check} {failure.fingerprint}: {failure.reason}")
        if subtests is None:
            failed += [] if failure or not share.plan.gates(outcome) else [_describe_failure(share, item, outcome)]
            continue
        # The short summary shows this text too.
        with subtests.test(msg=text.visible(" ".join(filter(None, (outcome.check, outcome.fingerprint))))):
            _conclude(share, item, outcome)
    if failed:
        conclusions.fail("\n\n".join(failed))
    return excused


def _conclude(share: Share, item: Item, outcome: Outcome) -> None:
    """Pass, fail, skip or expect the failure, as the outcome says."""
    __tracebackhide__ = True
    if not share.plan.gates(outcome):
        if outcome.verdict is Verdict.SKIP:
            conclusions.skip(outcome.message or "no reason given")
        return
    failure = share.excused(item.spec, outcome)
    if failure is not None:
        conclusions.expect_failure(f"known {failure.fingerprint}: {failure.reason}")
    conclusions.fail(_describe_failure(share, item, outcome))


def _conclude_known(share: Share, settled: Settled) -> None:
    """Expect a known failure, strictly: if it is no longer one, the item fails."""
    __tracebackhide__ = True
    failure = settled.failure
    if not settled.state.gates:
        conclusions.expect_failure(f"known {failure.fingerprint}: {failure.reason}")
    baseline = share.plan.run.baseline
    assert baseline is not None
    name = f"known failure {failure.fingerprint} of {failure.check} is {settled.state}"
    message = f": {text.line(settled.message)}" if settled.message else ""
    remedy = f"; take it out: verifier baseline --remove {failure.fingerprint} --out {baseline.path}"
    conclusions.fail(f"[XPASS(strict)] {name}{message}{remedy if settled.state is EntryState.FIXED else ''}")


def _describe_failure(share: Share, item: Item, outcome: Outcome) -> str:
    """Describe a failure in a few lines, as the terminal of `verifier run` does."""
    spec = item.spec
    words = text.config(config_difference(spec.config, share.line)) or "the plainest config"
    lines = [f"{outcome.check} {outcome.verdict.word} {outcome.fingerprint}"]
    facts = {
        "where": outcome.where,
        "measured": wording.error_against_bound(outcome),
        "said": wording.outcome_message(outcome),
        "in": outcome.site,
        "config": words,
        "case": spec.id,
    }
    lines += [f"  {name:<9}{text.line(fact)}" for name, fact in facts.items() if fact]
    if outcome.detail:
        lines += ["", text.detail(outcome.detail)]
    return "\n".join(lines)


def parametrize_with_checks(
    family: str, *, adapter: object, per: str = "area", **options: Unpack[PythonOptions]
) -> Callable[[Function], Function]:
    """Run a test function for every case of a family and each area of checks that looks at it.

    ```python
    @parametrize_with_checks("falcon", adapter="my_library.adapter:FalconAdapter")
    def test_conforms(case, check):
        check(case)
    ```

    The cases, checks and verdicts are those of `verifier run`. An item is a case and an area, its checks are subtests;
    `per="check"` makes an item of each check. Every case is run once, for all of its items that are selected.

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, or the adapter itself. Named, it runs in a process of its own,
            under limits; an object runs in the process of the tests.
        per: whether an item is a case and an `area` of checks, or a case and a `check`.
        options: what `verifier.run` takes besides, except `workers`: pytest decides how many processes there are.

    Raises:
        UsageError: an option is wrong.
    """
    plan = plan_decorated(family, adapter, per=per, **options)

    def decorate(function: Function) -> Function:
        marked = pytest.mark.usefixtures("subtests")(getattr(pytest.mark, MARK)(function))
        parametrized: Function = pytest.mark.parametrize((CASE, CHECK), make_parameters(plan))(marked)
        return parametrized

    return decorate


def make_parameters(plan: TestPlan) -> list[Any]:
    """Make the parameters of a test function, one for each item of a plan."""
    items = list_items(plan)
    return [pytest.param(CaseUnderTest(item.spec), ChecksUnderTest(plan, item), id=item.name) for item in items]


def find_checks(item: pytest.Item) -> ChecksUnderTest | None:
    """Find the checks of a test item; None if the item is not of this plugin."""
    callspec = getattr(item, "callspec", None)
    checks = callspec.params.get(CHECK) if callspec is not None else None
    return checks if isinstance(checks, ChecksUnderTest) else None
