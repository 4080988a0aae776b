"""Runs in a process of its own and imports one thing, which may raise, print, crash or hang."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verifier.errors import ExitStatus, VerifierError, one_line


def answer(question: Mapping[str, Any], place: Path, log: Path) -> None:
    """Answer a question of `probing`, in JSON; nothing that it raises gets out.

    Args:
        question: its kind, and what that takes.
        place: the file into which the answer goes.
        log: the file into which goes what is printed.
    """
    os.setsid()  # so that what it starts can be ended with it
    with log.open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    asked = dict(question)
    try:
        found = {"status": ExitStatus.CONFORMS, **_ANSWERS[asked.pop("kind")](**asked)}
    except VerifierError as error:
        found = {"status": error.status, "said": str(error)}
    except BaseException as error:  # code from outside may raise anything, SystemExit too
        traceback.print_exc()
        found = {"status": ExitStatus.BROKEN, "said": f"it raised at import: {one_line(error)}"}
    place.write_text(json.dumps(found))


def _torch() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cuda = ", ".join(devices) or "no CUDA device"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return {"said": f"{built}, {cuda}, {torch.get_num_threads()} threads (a run gives each worker one)"}


def _family(reference: str) -> dict[str, Any]:
    from verifier import family

    found = family.load(reference)
    import transformers

    if not hasattr(transformers, found.architecture):
        return {"status": ExitStatus.BROKEN, "said": f"the installed transformers has no {found.architecture}"}
    return {"said": found.architecture}


def _adapter(reference: str) -> dict[str, Any]:
    from verifier import adapter

    found = adapter.load(reference)
    return {"said": f"{found.name} {found.version}"}


def _check(reference: str) -> dict[str, Any]:
    from verifier import checks, plugins

    found = plugins.load(
        reference, group=checks.GROUP, kind="check", is_one=lambda candidate: isinstance(candidate, checks.Check)
    )
    return {"said": found.id}


def _plan(family: str, only: list[str], where: list[str], seed: int) -> dict[str, Any]:
    from verifier.cases.spec import WORKING_DTYPES
    from verifier.engine import catalogue
    from verifier.requests import cases

    specs = cases.from_matrix(
        family,
        seed=seed,
        dtypes=WORKING_DTYPES,
        device="cpu",
        where=where,
        preset=None,
        checkpoint=None,
        everywhere=False,
    )
    valid = sum(spec.valid for spec in specs)
    return {"valid": valid, "refused": len(specs) - valid, "checks": len(catalogue.select(only))}


_ANSWERS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "torch": _torch,
    "family": _family,
    "adapter": _adapter,
    "check": _check,
    "plan": _plan,
}
