"""Spread items over the workers of pytest-xdist: those of one case go to one worker, all others as usual."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling, LoadScheduling

from verifier import plugins
from verifier.checks import AREAS, GROUP
from verifier.judging.outcome import is_short_id

# The end of an item's name: the case's id, and the area or the check.
_ENDS = re.compile(r"-([^-\[\]]+)-([^-.\[\]]+)(?:\.[^-\[\]]+)?\]$")


def case_of(nodeid: str) -> str | None:
    """Read the id of an item's case off the item's name; None if the item does not seem to be of this plugin."""
    end = _ENDS.search(nodeid)
    if end is None or not is_short_id(end[1]):
        return None
    # Another project may have a test `[cpu-standard-forward]`, which then shares a process with its like.
    return end[1] if end[2] in AREAS or plugins.names(GROUP) else None


class _ByCase(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    def _split_scope(self, nodeid: str) -> str:
        case = case_of(nodeid)
        if case is None and self.config.getoption("dist") == "loadgroup":
            return str(super()._split_scope(nodeid))
        return case or nodeid


class WholeCases:
    """A scheduler that behaves as pytest-xdist's own until it sees an item of this plugin.

    Args:
        config: of the session, in which `dist` is `load` or `loadgroup`.
        log: of pytest-xdist.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        self._config, self._log = config, log
        kind = LoadScheduling if config.getoption("dist") == "load" else LoadGroupScheduling
        self._inner: Any = kind(config, log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Take in what a worker has collected; every worker collects the same.

        Args:
            node: the worker, as pytest-xdist has it.
            collection: the ids of the tests that it has collected.
        """
        if not isinstance(self._inner, _ByCase) and any(map(case_of, collection)):
            before, self._inner = self._inner, _ByCase(self._config, self._log)
            for one in before.nodes:
                self._inner.add_node(one)
        self._inner.add_node_collection(node, collection)
