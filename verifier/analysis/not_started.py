"""An adapter of which there is no record: it was asked for and could not be run."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.errors import ExitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """What is known of it.

    Attributes:
        family: reference.
        adapter: reference.
        status: what it made of the command.
        reason: why, in a line.
    """

    family: str
    adapter: str
    status: ExitStatus
    reason: str
