"""Conformance harness for the adapters through which interpretability research looks into language models.

`run` is the command from Python, `parametrize_with_checks` the same matrix as tests, and `FAMILY_configs` (of every
registered family: `falcon_configs`, for one) a strategy for Hypothesis. Each is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.api import Result, run
    from verifier.testing.parametrizing import parametrize_with_checks

__all__ = ["Result", "parametrize_with_checks", "run"]

_WHERE = {
    "run": "verifier.api",
    "Result": "verifier.api",
    "parametrize_with_checks": "verifier.testing.parametrizing",
}
_STRATEGY = "_configs"


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name.endswith(_STRATEGY):
        from verifier import family

        if name.removesuffix(_STRATEGY) in family.registered():
            from verifier.fuzz.strategies import configs_of

            return configs_of(name.removesuffix(_STRATEGY))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
