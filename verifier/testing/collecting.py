"""Collect tests without a test file: `pytest --verifier-family falcon --verifier-adapter module:object`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from verifier.baseline.file import read as read_baseline
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.requests import configuration
from verifier.requests.option import Door
from verifier.requests.request import RunRequest, options
from verifier.testing.parametrizing import MARK, CaseUnderTest, ChecksUnderTest, make_parameters
from verifier.testing.plans import plan_tests


class Matrix(pytest.Module):
    """A test module without a file: one function, and its parameters."""

    def _getobj(self) -> ModuleType:
        return self.made

    made: ModuleType


def collect_items(session: pytest.Session) -> list[pytest.Item]:
    """Collect the items that the command line asks for.

    Raises:
        VerifierError: an option is wrong, or code from outside failed at its import.
    """
    plan = plan_tests(_request(session.config))
    family = plan.run.request.family

    @pytest.mark.usefixtures("subtests")
    @pytest.mark.parametrize(("case", "check"), make_parameters(plan))
    def test_conforms(case: CaseUnderTest, check: ChecksUnderTest) -> None:
        check(case)

    module = ModuleType(family)
    module.test_conforms = getattr(pytest.mark, MARK)(test_conforms)  # type: ignore[attr-defined]
    node: Any = Matrix.from_parent(session, path=session.config.rootpath / family, name=family)
    node.made = module
    items = [item for item in session.genitems(node) if isinstance(item, pytest.Item)]
    return _select_named(items, session.config.getoption("verifier_items"))


def _request(config: pytest.Config) -> RunRequest:
    """Make the request of the command line and, for what it leaves out, of the project's configuration."""
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
        subject = (request.family, request.adapter)
        request = replace(request, baseline=tuple(path for path in paths if _read_subject(path) == subject)[:1])
    return request


def _read_subject(path: Path) -> tuple[str, str]:
    """Read of which family and adapter a baseline is."""
    baseline = read_baseline(path)
    return baseline.family, baseline.adapter


def _select_named(items: list[pytest.Item], names: Sequence[str]) -> list[pytest.Item]:
    """Select the items that the command line names as pytest names what failed; all if it names none."""
    if not names:
        return items
    selected: list[pytest.Item] = []
    for name in names:
        matching = [item for item in items if item.nodeid == name or item.nodeid.startswith(f"{name}[")]
        if not matching:
            raise UsageError(f"there is no test {name!r}{nearest(name, [item.nodeid for item in items])}")
        selected += matching
    return [item for item in items if item in selected]
