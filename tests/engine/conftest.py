"""A user's folder with hostile adapters in it, and plans that run them on a few cases."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import SOURCE

from verifier import family
from verifier.cases import matrix
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan

ONLY = ("reference.acceptance", "build.adapter", "build.refusal")

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "subjects.py").write_text(SOURCE)
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path[:] = before


@pytest.fixture
def plan(place: Path) -> MakePlan:
    """Makes plans: the first valid cases of the matrix, which alternate in `bias`, and the first refused ones."""

    def make(
        adapter: str,
        *,
        count: int = 3,
        only: tuple[str, ...] = ONLY,
        refused: bool = False,
        seconds: float | None = None,
        megabytes: int | None = None,
    ) -> Plan:
        specs = matrix.cases(family.load("falcon"), "falcon")
        valid = [spec for spec in specs if spec.valid and spec.label is None]
        plain = [spec for spec in valid if not spec.config["bias"]]
        biased = [spec for spec in valid if spec.config["bias"]]
        alternating = [spec for pair in zip(plain, biased, strict=False) for spec in pair]
        chosen = alternating[:count] + [spec for spec in specs if not spec.valid][:refused]
        limits = Limits(seconds=seconds, bytes=None if megabytes is None else megabytes * 2**20)
        return Plan(family="falcon", adapter=f"subjects:{adapter}", specs=tuple(chosen), only=only, limits=limits)

    return make
