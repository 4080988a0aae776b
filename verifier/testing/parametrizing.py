"""`parametrize_with_checks`: a test function that is run for every case and what is checked of it."""

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
from verifier.testing.plans import Item, TestPlan, items, plan_decorated
from verifier.testing.running import Share, share_of

Function = TypeVar("Function", bound=Callable[..., Any])

MARK = "verifier"
CASE, CHECK = "case", "check"

# The item that is being run, which the plugin sets: its subtests are asked for there.
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
        """The same in terminal, record and reports; `verifier repro` takes it."""
        return self.spec.id

    def __repr__(self) -> str:
        return f"<case {self.spec.id}>"


class ChecksUnderTest:
    """What is checked of a case: call it with the case.

    Attributes:
        ids: of the checks.
    """

    def __init__(self, plan: TestPlan, item: Item) -> None:
        self.plan, self.item = plan, item
        self.ids = item.checks

    def __repr__(self) -> str:
        return f"<checks {', '.join(self.ids)}>"

    def __call__(self, case: CaseUnderTest) -> None:
        """Run the checks on the case; each is a subtest, where there are several.

        Raises:
            ValueError: it is another case than the one that came with these checks.
        """
        __tracebackhide__ = True
        if case.spec != self.item.spec:
            raise ValueError(f"these checks came with case {self.item.spec.id}, not with {case.spec.id}")
        share = share_of(self.plan)
        if share.unusable is not None:  # one failure, not a thousand
            pytest.skip(f"blocked: {share.unusable}")
        found = _found(share, self.item)
        if isinstance(found, VerifierError):
            parts = [text.line(str(found)), *([text.detail(found.detail)] if found.detail else [])]
            pytest.fail("\n\n".join(parts), pytrace=False)
        if isinstance(found, Settled):
            _known(share, found)
            return
        outcomes = found
        if all(outcome.verdict is Verdict.SKIP and not share.plan.gates(outcome) for outcome in outcomes):
            pytest.skip("; ".join(dict.fromkeys(outcome.message or "no reason given" for outcome in outcomes)))
        if len(outcomes) == 1:
            _conclude(share, self.item, outcomes[0])
            return
        excused = _each(share, self.item, outcomes)
        if excused:
            pytest.xfail("; ".join(excused))


def _found(share: Share, item: Item) -> tuple[Outcome, ...] | Settled | VerifierError:
    """What the item's checks say, what became of its known failure, or why neither can be told."""
    try:
        return share.outcomes(item) if item.known is None else share.settled(item.known, whole=True)
    except VerifierError as error:
        return error


def _each(share: Share, item: Item, outcomes: Sequence[Outcome]) -> list[str]:
    """Each check as a subtest; why some failures are excused.

    Not hidden from tracebacks: pytest tells where a subtest was skipped, and there must be such a place.
    """
    running = running_item.get()
    subtests = getattr(running, "funcargs", {}).get("subtests")
    excused, failed = [], []
    for outcome in outcomes:
        failure = share.excused(item.spec, outcome)
        if failure is not None:
            excused.append(f"{outcome.check} {failure.fingerprint}: {failure.reason}")
        if subtests is None:
            failed += [] if failure or not share.plan.gates(outcome) else [_story(share, item, outcome)]
            continue
        # Whose failure it is stands in the short summary too.
        with subtests.test(msg=" ".join(filter(None, (outcome.check, outcome.fingerprint)))):
            _conclude(share, item, outcome)
    if failed:
        pytest.fail("\n\n".join(failed), pytrace=False)
    return excused


def _conclude(share: Share, item: Item, outcome: Outcome) -> None:
    """Pass, fail, skip or expect the failure, as the outcome is."""
    __tracebackhide__ = True
    if not share.plan.gates(outcome):
        if outcome.verdict is Verdict.SKIP:
            pytest.skip(outcome.message or "no reason given")
        return
    failure = share.excused(item.spec, outcome)
    if failure is not None:
        pytest.xfail(f"known {failure.fingerprint}: {failure.reason}")
    pytest.fail(_story(share, item, outcome), pytrace=False)


def _known(share: Share, found: Settled) -> None:
    """A known failure must still be one, strictly."""
    __tracebackhide__ = True
    failure = found.failure
    if not found.state.gates:
        pytest.xfail(f"known {failure.fingerprint}: {failure.reason}")
    baseline = share.plan.run.baseline
    assert baseline is not None
    name = f"known failure {failure.fingerprint} of {failure.check} is {found.state}"
    said = f": {text.line(found.message)}" if found.message else ""
    todo = f"; take it out: verifier baseline --remove {failure.fingerprint} --out {baseline.path}"
    pytest.fail(f"[XPASS(strict)] {name}{said}{todo if found.state is EntryState.FIXED else ''}", pytrace=False)


def _story(share: Share, item: Item, outcome: Outcome) -> str:
    """A failure in a few lines, as the terminal of `verifier run` tells it."""
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
    `per="check"` makes an item of each. Every case is run once, for all its items that are selected.

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, or the adapter itself. Named, it runs in a process of its own,
            under limits; an object runs in this one.
        per: whether an item is a case and an `area` of checks, or a case and a `check`.
        options: what `verifier.run` takes besides, but for `workers`: pytest decides how many processes there are.

    Raises:
        UsageError: something of it is wrong.
    """
    plan = plan_decorated(family, adapter, per=per, **options)

    def decorate(function: Function) -> Function:
        marked = pytest.mark.usefixtures("subtests")(getattr(pytest.mark, MARK)(function))
        found: Function = pytest.mark.parametrize((CASE, CHECK), params(plan))(marked)
        return found

    return decorate


def params(plan: TestPlan) -> list[Any]:
    """The plan's items as parameters."""
    return [pytest.param(CaseUnderTest(item.spec), ChecksUnderTest(plan, item), id=item.name) for item in items(plan)]


def checks_of(item: pytest.Item) -> ChecksUnderTest | None:
    """What an item looks at; None where it is none of ours."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get(CHECK) if callspec is not None else None
    return found if isinstance(found, ChecksUnderTest) else None
