"""Write a failure as a Python file: what `verifier repro --script` gives.

If the adapter says how its library is used (`adapter.Scripted`), and the wrapping, the logits or an activation at a
hook point is wrong, the file needs only Hugging Face and that library, so that the library's authors can run it. Any
other failure becomes a file that runs the failing check itself, and says that it needs the harness for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verifier import adapter, family
from verifier.adapter import Adapter, Scripted, ScriptedHooks
from verifier.cases.spec import CaseSpec
from verifier.family import Family, ShowsPoints
from verifier.judging import wording
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.record import RunLine
from verifier.scripts.alone import ACTIVATIONS, LOGITS, WRAPPING, find_reading, write_alone
from verifier.scripts.templating import render, write_literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A Python file.

    Attributes:
        source: its text.
        why_harness: why it needs the harness; None if it does not.
    """

    source: str
    why_harness: str | None


def write(spec: CaseSpec, reference: str, outcomes: Sequence[Outcome], run: RunLine, *, pytest: bool) -> Script:
    """Write the file that shows again what failed on a case.

    Args:
        spec: the case.
        reference: the adapter, by name or as `module:object`.
        outcomes: the recorded outcomes of the case; the first failure that needs no harness is shown.
        run: the first line of the record.
        pytest: whether the file is a test; otherwise it is run.

    Raises:
        UsageError: there is no such family or adapter, or the case holds what cannot be written as code.
        ImportFailed: one of them raised at import.
    """
    write_literal(spec.config)  # before the case's id, which only what JSON can spell has
    chosen = [outcome for outcome in outcomes if outcome.verdict.is_finding] or list(outcomes)
    library, of = adapter.load(reference), family.load(spec.family)
    why = _why_harness(spec, of, library)
    standing = [] if why else [outcome for outcome in chosen if _stands_alone(outcome, spec, of, library)]
    if why is None and not standing:
        why = _why_check(chosen, of, library)
    shown = chosen if why else standing[:1]
    name = re.sub(r"\W+", "_", shown[0].check if shown else "case", flags=re.ASCII)
    needs = (
        f"`verifier` (pip install adapter-verifier): {why}"
        if why
        else "torch, transformers and the adapter's library alone"
    )
    version = f" {run.adapter_version}" if reference == run.adapter else ""
    common = {
        "function": f"test_{name}" if pytest else "reproduce",
        "pytest": pytest,
        "comments": [
            f"Needs {needs}.",
            f"Case {spec.id}, {reference}{version}, {text.versions(run.versions, ('torch', 'transformers'))}.",
            *(f"{one.check} ({one.verdict}): {wording.outcome_message(one) or 'it said nothing'}" for one in shown[:5]),
        ],
    }
    if why is None and isinstance(library, Scripted):
        source = write_alone(spec, of, library, shown[0], **common)
    else:
        checks = [outcome.check for outcome in shown]
        source = render("harness.py.j2", case=spec.to_json(), checks=checks, adapter=reference, **common)
    return Script(source=source, why_harness=why)


# --- whether the file needs the harness ------------------------------------------------------------------------------


def _stands_alone(outcome: Outcome, spec: CaseSpec, of: Family, library: object) -> bool:
    if outcome.verdict is Verdict.UPSTREAM:
        return False
    if outcome.check == WRAPPING:
        # That what it gave is no subject is said in the harness's own words.
        return outcome.verdict is not Verdict.FAIL or outcome.where == "refused"
    if outcome.check == ACTIVATIONS:
        return outcome.verdict is Verdict.FAIL and find_reading(spec, of, library, outcome) is not None
    return outcome.check in LOGITS


def _why_harness(spec: CaseSpec, of: Family, library: Adapter) -> str | None:
    import transformers  # lazy itself: this imports no torch

    if not spec.valid:
        return "it is about a config that Hugging Face refuses"
    if spec.checkpoint is not None:
        return "it is about a checkpoint's weights"
    if not isinstance(library, Scripted):
        return "the adapter does not say how its library is used without it (`verifier.adapter.Scripted`)"
    if not of.architecture.isidentifier() or of.architecture not in dir(transformers):
        return f"{text.line(of.architecture)} is no class of transformers"
    return None


def _why_check(outcomes: Sequence[Outcome], of: Family, library: Adapter) -> str:
    if not outcomes:
        return "nothing was checked on this case"
    if all(outcome.verdict is Verdict.UPSTREAM for outcome in outcomes):
        return "it is about Hugging Face, which disagrees with itself"
    first = outcomes[0]
    if first.check == ACTIVATIONS and first.verdict is Verdict.FAIL:
        if not isinstance(of, ShowsPoints):
            return "the family does not say where its model shows an activation (`verifier.family.ShowsPoints`)"
        if not isinstance(library, ScriptedHooks):
            return "the adapter does not say how a hook is read without it (`verifier.adapter.ScriptedHooks`)"
        return f"no line of plain torch or of the adapter's library reads {text.line(first.where)}"
    return f"what {text.line(first.check)} proves is more than a comparison of logits"
