"""Close subjects where closing is not what is looked at."""

from __future__ import annotations

from verifier.adapter import Subject
from verifier.errors import all_but_interrupts


def close_quietly(subject: Subject) -> None:
    """Close a subject; whatever that raises is reported by `build.close`, and by no other check."""
    try:
        subject.close()
    except all_but_interrupts():
        return
