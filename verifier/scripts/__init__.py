"""A failure as a Python file that stands alone: what `verifier repro --script` writes.

Where the adapter says how its library is used (`adapter.Scripted`) and what fails is the wrapping, the logits or what
is read at a hook point, the file needs Hugging Face and that library alone, so that whoever mends the library can run
it. Anything else becomes a file that runs the failing check itself, and says that it needs the harness for that.

What comes from a record is text from outside: it gets into a file as a literal, or into a comment on one line.
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
from verifier.scripts import alone
from verifier.scripts.alone import ACTIVATIONS, WRAPPING, Code
from verifier.scripts.inputs import INPUTS
from verifier.scripts.literals import INDENT, comment, laid_out, literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A Python file.

    Attributes:
        source: what stands in it.
        why_harness: why it needs the harness; None where it does not.
    """

    source: str
    why_harness: str | None


def write(spec: CaseSpec, reference: str, outcomes: Sequence[Outcome], run: RunLine, *, pytest: bool) -> Script:
    """What shows again what failed on a case.

    Args:
        spec: the case.
        reference: of the adapter.
        outcomes: what checks said of it; of those that failed the first is shown that can stand alone.
        run: what the record says of its run.
        pytest: whether it is a test, or a file to be run.

    Raises:
        UsageError: the family or the adapter is not there, or the case holds what cannot be written as code.
        ImportFailed: one of them raised at import.
    """
    chosen = [outcome for outcome in outcomes if outcome.verdict.is_finding] or list(outcomes)
    library, of = adapter.load(reference), family.load(spec.family)
    why = _why_harness(spec, of, library)
    standing = [] if why else [outcome for outcome in chosen if _stands_alone(outcome, spec, of, library)]
    if why is None and not standing:
        why = _why_check(chosen, of, library)
    shown = chosen if why else standing[:1]
    name = re.sub(r"\W+", "_", shown[0].check if shown else "case", flags=re.ASCII)
    function = f"test_{name}" if pytest else "reproduce"
    if why is None and isinstance(library, Scripted):
        code = alone.code(spec, of, library, shown[0], function)
        needs = "Needs torch, transformers and the adapter's library alone."
    else:
        code = _with_harness(spec, reference, shown, function)
        needs = f"Needs `verifier` (pip install adapter-verifier): {why}."
    version = f" {run.adapter_version}" if reference == run.adapter else ""
    seen = f"Case {spec.id}, {reference}{version}, {text.versions(run.versions, ('torch', 'transformers'))}."
    lines = [*_heading(needs, seen, shown), "", *code.imports, "", "", *code.body]
    if not pytest:
        lines += ["", "", 'if __name__ == "__main__":', f"{INDENT}{function}()"]
    return Script(source="\n".join(lines) + "\n", why_harness=why)


# --- which of the two it is ------------------------------------------------------------------------------------------


def _stands_alone(outcome: Outcome, spec: CaseSpec, of: Family, library: object) -> bool:
    if outcome.verdict is Verdict.UPSTREAM:
        return False
    if outcome.check == WRAPPING:
        # That what it gave is no subject is said in the harness's own words.
        return outcome.verdict is not Verdict.FAIL or outcome.where == "refused"
    if outcome.check == ACTIVATIONS:
        return outcome.verdict is Verdict.FAIL and alone.reading(spec, of, library, outcome) is not None
    return outcome.check in INPUTS


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


# --- with the harness ------------------------------------------------------------------------------------------------


def _with_harness(spec: CaseSpec, reference: str, outcomes: Sequence[Outcome], function: str) -> Code:
    imports = [
        "from verifier import adapter, checks, family",
        "from verifier.cases.spec import CaseSpec",
        "from verifier.checks.runner import run_case",
    ]
    body = [
        *laid_out("CASE = ", spec.to_json()),
        *laid_out("CHECKS = ", [outcome.check for outcome in outcomes]),
        "",
        "",
        f"def {function}():",
        "    spec = CaseSpec.from_json(CASE)",
        f"    library = adapter.load({literal(reference)})",
        "    wanted = [check for check in checks.registered() if check.id in CHECKS]",
        "    ran, failed = [], []",
        "    for outcome in run_case(spec, family.load(spec.family), library, wanted):",
        "        print(outcome.check, outcome.verdict, outcome.where, outcome.message)",
        '        print(f"    error {outcome.measured}, bound {outcome.bound}")',
        '        ran += [outcome.check] if outcome.verdict != "skip" else []',
        "        failed += [outcome.check] if outcome.verdict.is_finding else []",
        '    assert ran, "nothing ran"',
        '    assert not failed, f"it fails: {failed}"',
    ]
    return Code(imports=imports, body=body)


# --- what it says of itself ------------------------------------------------------------------------------------------


def _heading(needs: str, seen: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Comments. The first line is ours, and so is the second: Python looks for an encoding there."""
    said = [
        f"{outcome.check} ({outcome.verdict}): {wording.outcome_message(outcome) or 'it said nothing'}"
        for outcome in outcomes[:5]
    ]
    return [
        "# It fails as long as what an adapter gives is not what Hugging Face's model gives.",
        *(line for one in (needs, seen, *said) for line in comment(one)),
    ]
