"""Cases whose process died: what is made of that, and when it is believed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verifier.cases.spec import CaseSpec
from verifier.engine import last_words
from verifier.engine.crew import Death
from verifier.engine.worker import bounded
from verifier.judging.outcome import Outcome, Verdict

# A death that came again so often when its case was run alone needs no more proof.
CONVINCED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A case in which a process died.

    Attributes:
        spec: the case.
        culprit: the check that was running, or the last one, if the process died in what it left behind.
        blocked: the checks that were still to run.
        death: how the process ended.
        by_itself: whether it died, and was not ended.
        seconds: how long it had been at the case.
    """

    spec: CaseSpec
    culprit: str
    blocked: tuple[str, ...]
    death: Death
    by_itself: bool
    seconds: float

    @classmethod
    def of(
        cls,
        spec: CaseSpec,
        checks: Sequence[str],
        seen: Sequence[str],
        death: Death,
        *,
        by_itself: bool,
        seconds: float,
    ) -> Suspect:
        """Of a case that `checks` look at, in their order, of which `seen` had ended."""
        culprit, *blocked = [check for check in checks if check not in seen] or seen[-1:]
        return cls(
            spec=spec, culprit=culprit, blocked=tuple(blocked), death=death, by_itself=by_itself, seconds=seconds
        )

    @property
    def outcomes(self) -> Iterator[Outcome]:
        """What the case's checks came to, once it is believed."""
        death = self.death
        yield bounded(
            Outcome(
                check=self.culprit,
                verdict=death.verdict,
                message=f"the process {death.how}",
                exception=death.word,
                # One that was ended was met by chance where it was: that does not make two failures the same.
                site=last_words.site(death.detail) if self.by_itself else None,
                detail=death.detail,
            )
        )
        for check in self.blocked:
            yield Outcome(check=check, verdict=Verdict.SKIP, message=f"blocked: the process died in {self.culprit}")


class Suspects:
    """Those that are to be run again, each alone in a process of its own."""

    def __init__(self) -> None:
        self._waiting: deque[Suspect] = deque()
        self._confirmed: Counter[tuple[str, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def specs(self) -> list[CaseSpec]:
        """The cases that wait."""
        return [suspect.spec for suspect in self._waiting]

    def add(self, suspect: Suspect) -> None:
        self._waiting.append(suspect)

    def confirm(self, suspect: Suspect) -> None:
        """It died again, alone."""
        self._confirmed[suspect.culprit, suspect.death.word] += 1

    def believed(self, suspect: Suspect) -> bool:
        """Whether the same death has come again often enough in other cases."""
        return self._confirmed[suspect.culprit, suspect.death.word] >= CONVINCED

    def take_believed(self) -> Iterator[Suspect]:
        """Those that need not be run again any more."""
        for suspect in [one for one in self._waiting if self.believed(one)]:
            self._waiting.remove(suspect)
            yield suspect

    def take(self) -> CaseSpec:
        """The next one that is to be run again."""
        return self._waiting.popleft().spec
