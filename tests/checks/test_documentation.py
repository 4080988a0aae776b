"""What every check says of itself, whatever its area."""

from __future__ import annotations

from verifier import checks
from verifier.checks import Check

EVERY = checks.registered()


def test_the_documentation_of_each_says_what_a_failure_means() -> None:
    def says(check: Check) -> bool:
        return "A failure" in check.doc or (check.area == "reference" and "Upstream means" in check.doc)

    assert [check.id for check in EVERY if not says(check)] == []


def test_each_stands_in_the_area_of_its_id() -> None:
    assert {check.area for check in EVERY} <= set(checks.AREAS)
    modules = {check.id: check.run.__module__ for check in EVERY}
    assert [name for name, module in modules.items() if not module.startswith(("verifier.checks.", "verifier_"))] == []


def test_areas_come_in_their_order_and_what_is_looked_at_in_circumstances_last() -> None:
    assert {check.area for check in EVERY} == set(checks.AREAS)
    *others, at_the_end = EVERY
    assert at_the_end.id == checks.LAST
    last = [check.run.__module__.endswith(".in_circumstances") for check in others]
    plain = [check.area for check, is_last in zip(others, last, strict=True) if not is_last]
    assert sorted(last) == last
    assert sorted(plain, key=checks.AREAS.index) == plain
