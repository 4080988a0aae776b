"""End a test item with words from outside, of which pytest prints every character as it is: none of them is obeyed."""

from __future__ import annotations

from typing import NoReturn

import pytest

from verifier.output.text import visible


def fail(message: str) -> NoReturn:
    """Fail the item.

    Args:
        message: why, in one line or several; it stands in the place of a traceback.
    """
    __tracebackhide__ = True
    pytest.fail(visible(message), pytrace=False)


def skip(reason: str) -> NoReturn:
    """Skip the item."""
    __tracebackhide__ = True
    pytest.skip(visible(reason))


def expect_failure(reason: str) -> NoReturn:
    """End the item as an expected failure."""
    __tracebackhide__ = True
    pytest.xfail(visible(reason))
