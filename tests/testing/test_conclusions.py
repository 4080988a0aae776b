"""What pytest is told of an item holds nothing that a terminal would obey."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hostile_files import TERMINAL, harmful

from verifier.testing import conclusions


@pytest.mark.parametrize("end", [conclusions.fail, conclusions.skip, conclusions.expect_failure])
def test_an_item_ends_in_harmless_words(end: Callable[[str], None]) -> None:
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception)) as caught:
        end(f"it says {TERMINAL}")
    assert "it says \\x1b[2J" in str(caught.value)
    assert not harmful(str(caught.value))
