"""The door without a test file: `pytest --verifier-family falcon --verifier-adapter module:object`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from verifier.baseline.file import read as known_in
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.requests import configuration
from verifier.testing.parametrizing import MARK, CaseUnderTest, ChecksUnderTest, params
from verifier.testing.plans import planned


class Matrix(pytest.Module):
    """A module that stands in no file: one function, and its parameters."""

    def _getobj(self) -> ModuleType:
        return self.made

    made: ModuleType


def collected(session: pytest.Session) -> list[pytest.Item]:
    """The items that the command line asks for.

    Raises:
        VerifierError: something of it is wrong.
    """
    option = session.config.getoption
    family = option("verifier_family")
    plan = planned(
        family, everywhere=option("verifier_everywhere"), per=option("verifier_per"), **_wishes(session.config, family)
    )

    @pytest.mark.usefixtures("subtests")
    @pytest.mark.parametrize(("case", "check"), params(plan))
    def test_conforms(case: CaseUnderTest, check: ChecksUnderTest) -> None:
        check(case)

    module = ModuleType(family)
    module.test_conforms = getattr(pytest.mark, MARK)(test_conforms)  # type: ignore[attr-defined]
    node: Any = Matrix.from_parent(session, path=session.config.rootpath / family, name=family)
    node.made = module
    found = [item for item in session.genitems(node) if isinstance(item, pytest.Item)]
    return _named(found, option("verifier_items"))


def _wishes(config: pytest.Config, family: str) -> dict[str, Any]:
    """What the command line says, and where it is silent what the project's configuration does."""
    option = config.getoption
    asked: dict[str, Any] = {
        "adapter": option("verifier_adapter"),
        "only": option("verifier_only"),
        "where": option("verifier_where"),
        "seed": option("verifier_seed"),
        "baseline": option("verifier_baseline"),
        "timeout": None,
        "memory": None,
        "gate": (),
        "isolation": False if option("verifier_no_isolation") else None,
    }
    given = {name for name, wish in asked.items() if wish not in (None, [], ())}
    found = configuration.read(config.rootpath)
    wishes, _ = configuration.fill(asked, given, found)
    wishes["seed"] = wishes["seed"] or 0
    if "baseline" not in given and wishes["baseline"] is not None:
        paths: Sequence[Path] = [config.rootpath / path for path in wishes["baseline"]]
        of = (family, wishes["adapter"])
        wishes["baseline"] = next((path for path in paths if _of(path) == of), None)
    return wishes


def _of(path: Path) -> tuple[str, str]:
    found = known_in(path)
    return found.family, found.adapter


def _named(items: list[pytest.Item], names: Sequence[str]) -> list[pytest.Item]:
    """The items that are named on the command line, as pytest names what failed; all where none is."""
    chosen = {
        name: [item for item in items if item.nodeid == name or item.nodeid.startswith(f"{name}[")] for name in names
    }
    for name, some in chosen.items():
        if not some:
            close = nearest(name, [item.nodeid for item in items])
            raise UsageError(f"there is no test {name!r}{close}")
    return [item for item in items if not names or any(item in some for some in chosen.values())]
