"""Import the family, the adapter and the checks by name, whatever outside code does at its import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.engine.catalogue import describe_checks
from verifier.engine.events import CheckInfo, RunStarted
from verifier.engine.plan import Plan
from verifier.errors import UsageError, one_line
from verifier.output import text

if TYPE_CHECKING:
    from verifier.adapter import Adapter
    from verifier.checks import Check
    from verifier.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The imported family, adapter and checks that cases are run with."""

    family: Family
    adapter: Adapter
    checks: tuple[Check, ...]

    @property
    def infos(self) -> tuple[CheckInfo, ...]:
        """The checks without their functions."""
        return describe_checks(self.checks)

    def started(self, *, expected: int = 0) -> RunStarted:
        """Make the first event of a run.

        Args:
            expected: how many outcomes the run gives.
        """
        # As they stand in a record, which is refused where they hold what a terminal might obey.
        name, version = text.line(str(self.adapter.name)), text.line(str(self.adapter.version))
        return RunStarted(adapter_name=name, adapter_version=version, checks=self.infos, expected=expected, workers=1)


def load(plan: Plan, *, about_to: Callable[[str], None] = lambda what: None) -> Loaded:
    """Import the family, the adapter and the checks of a plan.

    Torch has one thread from here on, because the cores are shared out by process.

    Args:
        plan: names them, and the device.
        about_to: is told what is imported next.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised at import.
    """
    import torch

    from verifier import adapter, checks, family
    from verifier.reference.snapshots import remember

    torch.set_num_threads(1)
    selected = checks.select(plan.only)
    about_to(f"family {plan.family!r}")
    reference = family.load(plan.family)
    remember(reference)
    about_to(f"adapter {plan.adapter!r}")
    subject = adapter.load(plan.adapter)
    _require_device(plan.device)
    return Loaded(family=reference, adapter=subject, checks=selected)


def _require_device(name: str) -> None:
    import torch

    refused = f"device {name!r} cannot be used here"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(refused) from error  # torch would name every type that was ever thought of
    if device.type == "meta":
        raise UsageError(f"{refused}: it holds no values")
    try:
        torch.empty(1, device=device)
    except Exception as error:
        raise UsageError(f"{refused}: {one_line(error)}") from error
