"""An adapter of which there is no record: it was asked for and could not be run."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.errors import ExitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """An adapter that was asked for and could not be run.

    Attributes:
        family: the family's reference.
        adapter: the adapter's reference.
        status: the exit status that the command has because of it.
        reason: why it could not be run, in a line.
    """

    family: str
    adapter: str
    status: ExitStatus
    reason: str
