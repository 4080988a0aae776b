"""The moment in which an adapter is given a model: what it gave back, and what stood there before."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from verifier.adapter import Adapter, Subject, subject_fault
from verifier.errors import one_line
from verifier.reference import models
from verifier.reference.snapshots import ModelState, Surroundings


class Wrapping:
    """What happened when the adapter was given a model."""

    def __init__(self, adapter: Adapter, model: Any) -> None:
        # Taken before the adapter may replace any of it.
        self.tied = models.is_tied(model)
        self.surroundings = Surroundings(model)
        self.state = ModelState(model)
        self.subject: Subject | None = None
        self.error: Exception | None = None
        try:
            self.subject = adapter.wrap(model)
        except SystemExit as error:  # a process is not an adapter's to end
            self.error = RuntimeError(f"wrap raised {one_line(error)}").with_traceback(error.__traceback__)
        except Exception as error:
            self.error = error

    @cached_property
    def fault(self) -> str | None:
        """Why what it gave back is no subject, in one line; None where it is one."""
        return subject_fault(self.subject)

    @property
    def is_subject(self) -> bool:
        """Whether what it gave back is a subject."""
        return self.fault is None
