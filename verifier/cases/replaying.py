"""Narrow a case to the one circumstance in which a failure is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from verifier.cases.circumstances import complete, differences, meaning, needs_of
from verifier.cases.spec import CaseSpec


def narrow(spec: CaseSpec, check: str, needed: Mapping[str, Sequence[str]] | None) -> CaseSpec | None:
    """Narrow a case to the plainest circumstance in which a check fails.

    Args:
        spec: the case.
        check: the id of the check.
        needed: by axis, the values of which a circumstance must have one for the check to fail; None for no such axis.

    Returns:
        The case, which keeps its id; None if it has no circumstances, or none has such values.
    """
    if not spec.circumstances:
        return None
    plainest = complete({axis: values[0] for axis, values in (needed or {}).items()}, needs_of(check))
    return None if plainest is None else replace(spec, circumstances=(differences(plainest),))


def explain_circumstance(circumstances: Sequence[Mapping[str, str]]) -> list[str]:
    """Say what is not plain in the one circumstance of a case: `mask is left: padding on the left`.

    Args:
        circumstances: those of the case; nothing is said of several.
    """
    if len(circumstances) != 1:
        return []
    return [f"{axis} is {value}: {meaning(axis, value)}" for axis, value in circumstances[0].items()]
