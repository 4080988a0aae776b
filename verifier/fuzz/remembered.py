"""Remember the choices that shrinking ended with, so that it starts there when the same failure is met again.

They only save time: a choice that is broken, or of another space, is ignored, and without the folder every minimal case
is found again, only later. The folder is one of Hypothesis' databases, which a full disk or an unreadable file does not
break.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    InMemoryExampleDatabase,
    choices_from_bytes,
    choices_to_bytes,
)

from verifier.fuzz.fields import Choice

FOLDER = "choices"


class Remembered:
    """The smallest known choice of each failure, by its fingerprint.

    Args:
        folder: the folder that keeps choices from one campaign to the next; None to forget them after this campaign.
    """

    def __init__(self, folder: Path | None) -> None:
        self._database: ExampleDatabase = (
            InMemoryExampleDatabase() if folder is None else DirectoryBasedExampleDatabase(folder)
        )

    def of(self, fingerprint: str, sizes: Sequence[int]) -> tuple[Choice, ...]:
        """List the remembered choices of a failure that fit fields with these numbers of values.

        Args:
            fingerprint: the fingerprint of the failure.
            sizes: the number of values of each field.

        Returns:
            The choices; those that are broken or do not fit are left out.
        """
        return tuple(
            choice
            for stored in self._database.fetch(fingerprint.encode())
            if (choice := _choice(stored, sizes)) is not None
        )

    def keep(self, fingerprint: str, choice: Choice) -> None:
        """Remember this choice of a failure, and forget every other choice of it.

        Args:
            fingerprint: the fingerprint of the failure.
            choice: the smallest choice whose case fails so.
        """
        key, value = fingerprint.encode(), choices_to_bytes(choice)
        # Its own file too, which Hypothesis does not write where there is one: it may be broken.
        for stored in (*self._database.fetch(key), value):
            self._database.delete(key, stored)
        self._database.save(key, value)


def _choice(stored: bytes, sizes: Sequence[int]) -> Choice | None:
    choice = choices_from_bytes(stored)
    if choice is None or len(choice) != len(sizes):
        return None
    places = tuple(one for one, size in zip(choice, sizes, strict=True) if type(one) is int and 0 <= one < size)
    return places if len(places) == len(sizes) else None
