"""What is asked for from Python, as the command line would ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from verifier import adapter as adapters
from verifier.cases.spec import WORKING_DTYPES, CaseSpec
from verifier.engine import catalogue
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.record.known_failure import Baseline
from verifier.requests import cases, configuration
from verifier.requests.request import RunOptions, require_sense


class Wishes(TypedDict, total=False):
    """What may be asked for; `verifier.run` says what each means."""

    only: str | Sequence[str]
    where: str | Sequence[str] | Mapping[str, Any]
    preset: str | None
    checkpoint: str | None
    seed: int
    dtypes: Sequence[str]
    device: str
    everywhere: bool
    baseline: str | Path | None
    workers: int | None
    timeout: float | None
    memory: int | None
    isolation: bool | None
    gate: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run, as it was asked for.

    Attributes:
        options: as on the command line.
        reference: the adapter's.
        is_object: whether it is an object that this process alone has.
        specs: the cases.
        baseline: what is known to fail.
    """

    options: RunOptions
    reference: str
    is_object: bool
    specs: tuple[CaseSpec, ...]
    baseline: Baseline | None


def asked_for(family: str, adapter: object, wishes: Wishes, *, what: str) -> Asked:
    """The run of these wishes.

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, a class, or the adapter itself; None for the configured one.
        wishes: the others.
        what: what is asked for, for people.

    Raises:
        UsageError: something of it is wrong.
        Inconclusive: no case is like that.
        ImportFailed: code from outside raised at import.
    """
    from verifier.baseline.file import read, require_of

    for name in wishes:
        if name not in Wishes.__annotations__:
            raise UsageError(
                f"there is nothing called {name!r} to ask for{nearest(name, list(Wishes.__annotations__))}"
            )
    only = wishes.get("only", ())
    globs = (only,) if isinstance(only, str) else tuple(only)
    catalogue.require_known(globs)
    if adapter is None:
        adapter = configuration.read(Path.cwd()).adapter
    reference = adapter if isinstance(adapter, str) else adapters.register_instance(adapter)
    is_object, isolation = not isinstance(adapter, str), wishes.get("isolation")
    if is_object and isolation:
        raise UsageError("an adapter object runs in this process; name it as 'module:object' to have it isolated")
    if not is_object:
        adapters.require_findable(reference)
    options = RunOptions(
        family=family,
        adapters=(reference,),
        only=globs,
        where=cases.wishes(wishes.get("where", ())),
        preset=wishes.get("preset"),
        checkpoint=wishes.get("checkpoint"),
        dtypes=tuple(wishes.get("dtypes", WORKING_DTYPES)),
        device=wishes.get("device", "cpu"),
        seed=wishes.get("seed", 0),
        workers=wishes.get("workers"),
        everywhere=wishes.get("everywhere", False),
        timeout=wishes.get("timeout"),
        memory=wishes.get("memory"),
        isolation=not is_object if isolation is None else isolation,
        gate=configuration.gates(wishes.get("gate", ())),
    )
    require_sense(options)
    specs = cases.of(options)
    baseline = wishes.get("baseline")
    known = None if baseline is None else read(Path(baseline))
    if known is not None:
        require_of(known, family, reference, what)
    return Asked(options=options, reference=reference, is_object=is_object, specs=specs, baseline=known)
