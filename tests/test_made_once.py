"""What tests share over processes is made once, and made again by the next one where the first could not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_once import MadeOnce

MAKING = """
import sys, time
from pathlib import Path
from made_once import MadeOnce

def make():
    with (place / "calls").open("a") as calls:
        calls.write("made\\n")
    time.sleep(0.2)
    return {"one": 1}

place = Path(sys.argv[1])
print(MadeOnce(place=place).value("it", make))
"""


def test_processes_share_what_one_of_them_made(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKING, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate()[0] for process in running] == ["{'one': 1}\n"] * 3
    assert (tmp_path / "calls").read_text() == "made\n"


def test_what_could_not_be_made_is_made_by_the_next_one(tmp_path: Path) -> None:
    once = MadeOnce(place=tmp_path)

    def fail(_folder: Path) -> None:
        raise LookupError("not today")

    with pytest.raises(LookupError):
        once.folder("it", fail)
    assert (once.folder("it", lambda folder: (folder / "file").touch()) / "file").exists()
    assert once.folder("it", fail) == tmp_path / "it"
