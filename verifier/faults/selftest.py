"""The self-test: plant faults, and see that each check catches those that it must catch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from verifier import adapter as adapters
from verifier import checks, family
from verifier.adapter import Adapter
from verifier.cases import matrix
from verifier.cases.circumstances import Circumstance
from verifier.cases.covering import covering
from verifier.cases.spec import CaseSpec, Depth
from verifier.family import Family
from verifier.judging.outcome import NotApplicable, Outcome, Verdict
from verifier.reference.acceptance import answered_by, ask_here, refusal_of

_CLEAN = (Verdict.PASS, Verdict.REDUCED)
# A fault is tried on case after case until it is caught: most show in the first, some need a rare meeting of flags,
# or one of the corners, which come after these.
MOST_VALID = 16
MOST_REFUSED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantResult:
    """The result of one check on one planted fault.

    Attributes:
        fault: its name.
        what: what is wrong, in a sentence.
        check: the check that must catch it; None for a check that has no fault, whose id is then `fault`.
        outcome: how it was caught; None where it survived or could not be tried.
        case: on which case.
        tried: how many cases it was tried on, the one that caught it included.
        unable: why it could not be tried, where no case let the check run.
    """

    fault: str
    what: str
    check: str
    outcome: Outcome | None = None
    case: CaseSpec | None = None
    tried: int = 0
    unable: str | None = None

    @property
    def survived(self) -> bool:
        """Whether the check ran on the planted fault and did not catch it."""
        return self.outcome is None and self.unable is None


def choose_trials(specs: Sequence[CaseSpec]) -> list[CaseSpec]:
    """Choose a few cases in which every two values of every two flags meet soon: valid ones, then refused ones.

    The valid ones are the first of a covering, then the corners.
    """
    valid = [spec for spec in specs if spec.valid]
    chosen = covering([spec.config for spec in valid], 2)[:MOST_VALID]
    corners = [spec for place, spec in enumerate(valid) if spec.label is not None and place not in chosen]
    refused = [spec for spec in specs if not spec.valid]
    reasons = {spec.reason: spec for spec in reversed(refused)}
    return [*(valid[place] for place in chosen), *corners, *list(reasons.values())[-MOST_REFUSED:]]


def circumstances_of(spec: CaseSpec, wanted: Sequence[Circumstance]) -> tuple[Circumstance, ...]:
    """Choose, of the circumstances that a case was dealt, those in which a fault shows.

    Args:
        spec: the case.
        wanted: where the fault shows, each as what is not plain in it. Where the case was dealt one of these it is
            chosen, else those that have its values among others.
    """
    dealt = [one for one in spec.circumstances if one in wanted]
    return tuple(dealt or [one for one in spec.circumstances if any(some.items() <= one.items() for some in wanted)])


def _is_not_applicable(outcome: Outcome) -> bool:
    """Whether the right adapter lacks what the check looks at; a fault may add it (an alias, a switch)."""
    return outcome.verdict is Verdict.SKIP and (outcome.message or "").startswith("not applicable")


def run(family_reference: str, adapter_reference: str, *, seed: int = 0, quick: bool = False) -> Iterator[MutantResult]:
    """Plant every fault of the family in the adapter, and let each check that must catch it look.

    A check catches a fault if it finds nothing in the right adapter on that case, and something in the broken one.
    A check that was not seen to catch any fault is given as a survivor of its own, unless the adapter lacks what it
    needs.

    Args:
        family_reference: the family, as on the command line.
        adapter_reference: the right adapter, as on the command line.
        seed: of the cases.
        quick: whether the faults are tried on the cases of a quick run, in the circumstances that these are dealt.

    Returns:
        One result for each fault and each check that must catch it, then one for each check that caught nothing.
    """
    # Tiny models: a second thread gives nothing, and waits for its core where others are at work there.
    torch.set_num_threads(1)
    from verifier import faults
    from verifier.checks import in_circumstances
    from verifier.checks.runner import MISSING, run_case
    from verifier.observing.circumstances.covering import told_as_met

    right_family, right_adapter = family.load(family_reference), adapters.load(adapter_reference)
    known = {check.id: check for check in checks.registered()}
    with answered_by(ask_here):
        planned = matrix.cases(right_family, family_reference, seed=seed, quick=quick)
    cases = planned if quick else choose_trials(planned)
    clean: dict[tuple[str, str, str], Outcome | None] = {}
    caught: set[str] = set()
    inapplicable: set[str] = set()  # to this adapter, which lacks a capability

    # What the right adapter shows in a circumstance is looked at once for all of these.
    of_one_row = [check.id for check in vars(in_circumstances).values() if isinstance(check, checks.Check)]

    def run_checks(
        identities: Iterable[str], spec: CaseSpec, family: Family, adapter: Adapter, where: Sequence[Circumstance]
    ) -> dict[str, Outcome]:
        depth = spec.depth if quick else Depth.SAMPLED
        sampled = replace(spec.accepted_by(refusal_of(family)), depth=depth, circumstances=tuple(where))
        with told_as_met():
            outcomes = run_case(sampled, family, adapter, [known[identity] for identity in identities])
        return {outcome.check: outcome for outcome in outcomes}

    for fault in faults.list_faults(right_family):
        broken = fault.plant(right_family, right_adapter)
        for identity in fault.caught_by:
            kill = MutantResult(fault=fault.name, what=fault.what, check=identity, unable="the check never ran")
            for spec in cases:
                where = circumstances_of(spec, fault.circumstances) if quick else fault.circumstances
                key = (spec.id, identity, str(where))
                if key not in clean:
                    identities = of_one_row if identity in of_one_row else [identity]
                    ran = run_checks(identities, spec, right_family, right_adapter, where)
                    clean |= {(spec.id, one, str(where)): ran.get(one) for one in identities}
                right = clean[key]
                # None: the check does not apply to the right adapter's case; the broken family may make it apply.
                if right is not None and right.verdict not in _CLEAN and not _is_not_applicable(right):
                    if not kill.tried and right.verdict is Verdict.SKIP:
                        kill = replace(kill, unable=right.message)
                    continue
                outcome = run_checks([identity], spec, *broken, where).get(identity)
                if outcome is None:
                    continue
                # Nothing in this model could be wrong like that.
                if outcome.verdict is Verdict.SKIP or outcome.exception == NotApplicable.__name__:
                    if not kill.tried:
                        kill = replace(kill, unable=outcome.message)
                    continue
                kill = replace(kill, tried=kill.tried + 1, unable=None)
                if outcome.verdict.is_finding and (fault.raises or outcome.verdict is not Verdict.ERROR):
                    kill = replace(kill, outcome=outcome, case=spec)
                    break
            if kill.outcome is not None:
                caught.add(identity)
            elif kill.unable is not None and kill.unable.startswith(MISSING):
                inapplicable.add(identity)
            yield kill
    for identity in known:
        if identity not in caught and identity not in inapplicable:
            yield MutantResult(fault="none", what="no fault of this check could be caught", check=identity)
