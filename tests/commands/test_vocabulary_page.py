"""The vocabulary as a page of documentation, printed by `verifier list hooks --markdown`."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Verifier

PAGE = Path(__file__).parent.parent.parent / "docs" / "vocabulary.md"


def test_it_is_printed_as_it_stands_in_the_documentation(verifier: Verifier) -> None:
    assert verifier("list", "hooks", "--markdown").out == PAGE.read_text()


@pytest.mark.parametrize("arguments", [("hooks", "falcon"), ("checks",)])
def test_there_is_no_page_of_anything_else(verifier: Verifier, arguments: tuple[str, ...]) -> None:
    ended = verifier("list", *arguments, "--markdown")
    assert (ended.status, ended.line) == (
        2,
        "verifier: there is a page of all hook points alone: `list hooks --markdown`",
    )
