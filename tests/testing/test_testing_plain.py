"""A session that uses nothing of ours pays nothing for the plugin, and needs nothing that the plugin can do without."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import ended

PLAIN = """\
import sys

def test_that_nothing_was_imported():
    heavy = {"torch", "transformers", "rich", "jinja2", "verifier.testing.plans", "verifier.checks.qkv"}
    assert sorted(heavy & sys.modules.keys()) == []
    assert "verifier.pytest_plugin" in sys.modules or WITHOUT

WITHOUT = "no:verifier" in sys.argv
"""


@pytest.mark.parametrize("options", [(), ("-p", "no:xdist"), ("-p", "no:verifier")], ids=lambda words: " ".join(words))
def test_a_plain_session(process, folder: Path, options: tuple[str, ...]) -> None:
    (folder / "test_plain.py").write_text(PLAIN)
    done = ended(process("test_plain.py", *options))
    assert done.counts == {"passed": 1}, done.out
    assert "verifier:" not in done.out


@pytest.mark.slow
def test_a_plain_session_of_two_processes(process, folder: Path) -> None:
    (folder / "test_plain.py").write_text(PLAIN)
    done = ended(process("-n", 2, "test_plain.py"))
    assert done.counts == {"passed": 1}, done.out


def test_the_mark_is_known(process, folder: Path) -> None:
    done = ended(process("--markers"))
    assert "@pytest.mark.verifier: a case of a model family and what is checked of it" in done.out
