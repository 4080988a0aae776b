"""What every check says of itself, whatever its area."""

from __future__ import annotations

import pytest

from verifier import checks
from verifier.checks import Check

EVERY = checks.registered()


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.id)
def test_its_documentation_says_what_a_failure_means(check: Check) -> None:
    assert "A failure" in check.doc or (check.area == "reference" and "Upstream means" in check.doc)


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.id)
def test_it_stands_in_the_area_of_its_id(check: Check) -> None:
    assert check.area in checks.AREAS
    assert check.run.__module__.startswith(("verifier.checks.", "verifier_"))


def test_areas_come_in_their_order() -> None:
    assert list(dict.fromkeys(check.area for check in EVERY)) == list(checks.AREAS)
