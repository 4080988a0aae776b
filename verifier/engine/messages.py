"""What a worker process says, as data: it is read into the types here, and never as code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from verifier.checks.blame import find_site, format_traceback
from verifier.engine.events import (
    CaseFinished,
    CaseRefused,
    EvidenceReady,
    LadderReady,
    OutcomeReady,
    RowReady,
    RunStarted,
)
from verifier.errors import ExitStatus, ImportFailed, UsageError, VerifierError, one_line, type_name
from verifier.judging.outcome import as_text

# What one text of an outcome may take in pipes, files and reports; a repr of 10 MB helps nobody.
DETAIL_LIMIT = 16_000
# No message is nearly as long, and what a case writes into the pipe must not fill the coordinator's memory.
MOST_BYTES = 2**26


class Loading(Struct, frozen=True, kw_only=True, tag=True):
    """The worker is about to import code from outside; if it dies, the import is to blame."""

    what: str


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """No case can be run: what was asked for cannot be loaded.

    Attributes:
        status: the exit status of the command.
        said: why, in one line.
    """

    status: ExitStatus
    said: str

    @property
    def error(self) -> VerifierError:
        """The error that the coordinator raises."""
        return (UsageError if self.status is ExitStatus.USAGE else ImportFailed)(self.said)


class CaseFailed(Struct, frozen=True, kw_only=True, tag=True):
    """A case broke what runs it, outside its checks: these are the last words of the process at that case.

    Attributes:
        case: the id of the case.
        exception: the type of what was raised.
        said: the type and the message, in one line.
        site: `file:function` of the innermost frame in the adapter; None where there is none.
        detail: the traceback.
    """

    case: str
    exception: str
    said: str
    site: str | None
    detail: str

    @classmethod
    def from_error(cls, case: str, error: BaseException) -> CaseFailed:
        """Describe what was raised at a case."""
        return cls(
            case=case,
            exception=str(as_text(type_name(error))),
            said=str(as_text(one_line(error))),
            site=as_text(find_site(error)),
            detail=str(as_text(format_traceback(error)))[-DETAIL_LIMIT:],
        )


class Answer(Struct, frozen=True, kw_only=True, tag=True):
    """What came of a question.

    Attributes:
        status: `CONFORMS` if the question could be answered, else the exit status that a run would have because of it.
        said: the answer in words, or why there is none.
        seconds: how long the question took.
        found: the figures that were asked for; empty if there is no answer, or one in words.
    """

    status: ExitStatus
    said: str
    seconds: float
    found: Mapping[str, int] = {}


class Accepted(Struct, frozen=True, kw_only=True, tag=True):
    """Whether Hugging Face accepts a config that it was asked about.

    Attributes:
        known: whether that is known.
        reason: why it is refused; None where it is accepted, or nothing is known.
    """

    known: bool
    reason: str | None


# The events of a case, which the coordinator passes on, and what a process says of itself.
CaseEvent = CaseRefused | OutcomeReady | RowReady | EvidenceReady | LadderReady | CaseFinished
Message = Loading | Refused | RunStarted | CaseFailed | CaseEvent

encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message | Answer | Accepted)


def decode(data: bytes) -> Message:
    """Read a message.

    Raises:
        msgspec.MsgspecError: the data is none.
    """
    message: Message = _decoder.decode(data)
    return message


def case_of(message: Message) -> str | None:
    """The id of the case that a message is about; None for one about the process."""
    match message:
        case CaseRefused(case=case) | OutcomeReady(case=case) | CaseFinished(case=case) | CaseFailed(case=case):
            return case
        case RowReady(row=about) | EvidenceReady(evidence=about) | LadderReady(evidence=about):
            return about.case
    return None
