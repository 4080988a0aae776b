"""How a session of pytest ended, and where it stands while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminals import TOLD

PLAIN = ("-p", "no:cacheprovider", "-rA")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a session ended."""

    status: int
    out: str

    @property
    def counts(self) -> dict[str, int]:
        """What the last line counts: `2 failed, 1 passed in 3.21s`."""
        words = re.findall(r"(\d+) (\w+(?: passed)?)", self.out.strip().splitlines()[-1].rpartition(" in ")[0])
        return {word: int(number) for number, word in words}

    @property
    def summary(self) -> list[str]:
        """The lines of the short summary."""
        return re.findall(r"^(?:SUB)?(?:FAILED|SKIPPED|XFAIL|ERROR|PASSED)\b.*", self.out, flags=re.MULTILINE)


def ended(one: subprocess.Popen[str], seconds: float = 240.0) -> Ended:
    """Wait for it."""
    out, _ = one.communicate(timeout=seconds)
    return Ended(status=one.returncode, out=out)


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """The process stands in the folder, and forgets what it imported there."""
    path, modules = list(sys.path), set(sys.modules)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as around:
        around.setenv("COLUMNS", "160")
        for name in TOLD:
            around.delenv(name, raising=False)
        try:
            yield
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == folder:
                    del sys.modules[name]
