"""What `verifier run` was asked for, and whether its options go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verifier import adapter
from verifier.cases.shards import Shard
from verifier.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for, as on the command line; empty where nothing was said.

    Of `timeout` (seconds) and `memory` (bytes) 0 stands for no limit, and None for the default one; `gate` names the
    verdicts that gate besides those that always do; `configured` the keys of the configuration that were asked for.
    """

    family: str
    adapters: tuple[str, ...] = (adapter.DEFAULT,)
    only: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    preset: str | None = None
    checkpoint: str | None = None
    dtypes: tuple[str, ...] = ()
    device: str = "cpu"
    seed: int = 0
    workers: int | None = None
    out: Path | None = None
    baseline: tuple[Path, ...] = ()
    gate: tuple[str, ...] = ()
    changed_since: str | None = None
    cases: Path | None = None
    everywhere: bool = False
    resume: bool = False
    timeout: float | None = None
    memory: int | None = None
    isolation: bool = True
    pdb: bool = False
    slowest: int = 0
    shard: Shard | None = None
    junit: Path | None = None
    github: bool = False
    configured: tuple[str, ...] = ()


def require_sense(options: RunOptions) -> None:
    """Raise what is wrong with options together."""
    if options.preset is not None and options.checkpoint is not None:
        raise UsageError("--preset and --checkpoint both say which model to run: give one of them")
    narrowing = {"--where": options.where, "--preset": options.preset, "--checkpoint": options.checkpoint}
    for name, value in narrowing.items():
        if options.cases is not None and value:
            raise UsageError(f"--cases and {name} both say what to run: give one of them")
    if not options.isolation and options.workers not in (None, 1):
        raise UsageError("--no-isolation runs in this very process: it goes with --workers 1 alone")
    if not options.isolation and (options.timeout is not None or options.memory is not None):
        raise UsageError("--timeout and --memory need processes of their own to end: not with --no-isolation or --pdb")
