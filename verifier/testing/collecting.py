"""The door without a test file: `pytest --verifier-family falcon --verifier-adapter module:object`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from verifier.baseline.file import read as known_in
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.requests import configuration
from verifier.requests.option import Door
from verifier.requests.request import RunRequest, options
from verifier.testing.parametrizing import MARK, CaseUnderTest, ChecksUnderTest, params
from verifier.testing.plans import plan_tests


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
    plan = plan_tests(_request(session.config))
    family = plan.run.request.family

    @pytest.mark.usefixtures("subtests")
    @pytest.mark.parametrize(("case", "check"), params(plan))
    def test_conforms(case: CaseUnderTest, check: ChecksUnderTest) -> None:
        check(case)

    module = ModuleType(family)
    module.test_conforms = getattr(pytest.mark, MARK)(test_conforms)  # type: ignore[attr-defined]
    node: Any = Matrix.from_parent(session, path=session.config.rootpath / family, name=family)
    node.made = module
    found = [item for item in session.genitems(node) if isinstance(item, pytest.Item)]
    return _named(found, session.config.getoption("verifier_items"))


def _request(config: pytest.Config) -> RunRequest:
    """What the command line asks for, and where it is silent what the project's configuration does."""
    given: dict[str, Any] = {}
    for name, option in options(Door.PYTEST).items():
        value = config.getoption(option.pytest_name)
        if value is not None:
            try:
                given[name] = option.read(value, strict=False)
            except UsageError as error:
                raise UsageError(f"--verifier-{option.flag} {error}") from error
    request = RunRequest(**configuration.read(config.rootpath).complete(given, Door.PYTEST))
    if "baseline" in request.configured:
        paths = (config.rootpath / path for path in request.baseline)
        mine = (request.family, request.adapter)
        request = replace(request, baseline=tuple(path for path in paths if _of(path) == mine)[:1])
    return request


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
