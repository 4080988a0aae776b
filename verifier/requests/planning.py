"""Plan the run of one adapter for a request: its cases, its limits, its known failures, and the head of its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from verifier import adapter as adapters
from verifier import family
from verifier.baseline.file import read as read_baseline
from verifier.baseline.file import require_of
from verifier.cases.spec import CaseSpec
from verifier.engine import catalogue
from verifier.engine.environment import usable_cores, versions
from verifier.engine.events import RunStarted
from verifier.engine.limits import Limits, default_limits
from verifier.engine.plan import Plan
from verifier.record import RunLine
from verifier.record.known_failure import Baseline
from verifier.requests.cases import select_cases
from verifier.requests.request import RunRequest, options


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """The run of one adapter.

    Attributes:
        request: what was asked for.
        adapter: the adapter, by name or as `module:object`.
        specs: the cases, also those that Hugging Face refuses.
        baseline: the known failures; None if there is no baseline.
    """

    request: RunRequest
    adapter: str
    specs: tuple[CaseSpec, ...]
    baseline: Baseline | None

    @property
    def workers(self) -> int:
        """The number of processes that run cases."""
        return self.request.workers or usable_cores()

    @cached_property  # what is free changes
    def limits(self) -> Limits:
        """How much time and memory a case may take."""
        large = self.request.preset is not None or any(spec.checkpoint for spec in self.specs)
        usual = default_limits(large=large, workers=self.workers)
        return usual.with_asked(self.request.timeout, self.request.memory)

    def plan(self, specs: tuple[CaseSpec, ...] = (), known: Mapping[str, float] | None = None) -> Plan:
        """Make the plan that the engine is given.

        Args:
            specs: the cases to run.
            known: the seconds that cases took in an earlier run, by id.
        """
        return Plan(
            family=self.request.family,
            adapter=self.adapter,
            specs=specs,
            only=self.request.only,
            device=self.specs[0].device,
            limits=self.limits,
            known=known or {},
        )

    def header(self) -> dict[str, Any]:
        """Make the fields of the record's first line that are known before anything is loaded."""
        described = family.load(self.request.family)
        return {
            "family": self.request.family,
            "adapter": self.adapter,
            "versions": versions(self.adapter),
            "seed": self.specs[0].seed,
            "flags": {name: list(values) for name, values in described.flags().items()},
            "dims": dict(described.dims()),
            "planned": {
                "valid": sum(spec.valid for spec in self.specs),
                "refused": sum(not spec.valid for spec in self.specs),
            },
            "asked": self._asked(),
        }

    def _asked(self) -> dict[str, Any]:
        """Select what the record keeps of the request: what was asked for, and neither how fast nor where it runs."""
        asked = {option.key: getattr(self.request, name) for name, option in options().items() if option.recorded}
        if self.request.cases is not None:  # each of the cases in a file has its own
            del asked["dtype"], asked["device"]
        if self.baseline is not None:
            asked["baseline"] = f"{self.baseline.path} ({self.baseline.digest})"
        return {name: _plain(one) for name, one in asked.items() if one}


def make_first_line(header: Mapping[str, Any], started: RunStarted, limits: Limits) -> RunLine:
    """Make the first line of a record.

    Args:
        header: the fields that are known before anything is loaded.
        started: what the workers have loaded.
        limits: what a case may take.
    """
    return RunLine(
        **header,
        adapter_name=started.adapter_name,
        adapter_version=started.adapter_version,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        checks=[check.to_json() for check in started.checks],
        workers=started.workers,
        limits={"timeout": limits.seconds, "memory": limits.bytes},
    )


def _plain(asked: Any) -> Any:
    if isinstance(asked, tuple):
        return list(asked)
    return asked if isinstance(asked, bool) else str(asked)


def require_known(request: RunRequest) -> None:
    """Make sure, without importing torch, that what a request names exists, and that its options go together.

    Raises:
        UsageError: something does not exist, or two options contradict each other.
    """
    request.require_consistent()
    catalogue.require_known(request.only)
    for reference in request.adapters:
        if not adapters.is_registered_instance(reference):
            adapters.require_findable(reference)


def plan_run(request: RunRequest, what: str) -> PlannedRun:
    """Plan the run of a request that has one adapter, and one baseline or none.

    Args:
        request: what was asked for.
        what: what is run, in words for a message: `this run`.

    Raises:
        UsageError: an option is wrong.
        Inconclusive: no case is selected.
        ImportFailed: code from outside raised at import.
    """
    require_known(request)
    specs = select_cases(request)
    baseline = None
    for path in request.baseline:
        baseline = read_baseline(path)
        require_of(baseline, request.family, request.adapter, what)
    return PlannedRun(request=request, adapter=request.adapter, specs=specs, baseline=baseline)
