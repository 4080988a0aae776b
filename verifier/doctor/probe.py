"""Runs in a process of its own and imports one thing, which may raise, print, crash or hang: `python -m` it.

Its arguments are the file into which its answer goes and the question, both of `probing`.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verifier.errors import ExitStatus, VerifierError, one_line


def main(answer: str, question: str) -> None:
    """Answer the question, in JSON; nothing that it raises gets out."""
    asked: dict[str, Any] = json.loads(question)
    try:
        found = {"status": ExitStatus.CONFORMS, **_ANSWERS[asked.pop("kind")](**asked)}
    except VerifierError as error:
        found = {"status": error.status, "said": str(error)}
    except BaseException as error:  # code from outside may raise anything, SystemExit too
        traceback.print_exc()
        found = {"status": ExitStatus.BROKEN, "said": f"it raised at import: {one_line(error)}"}
    Path(answer).write_text(json.dumps(found))


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
    from verifier.commands import selection
    from verifier.engine import catalogue
    from verifier.spec import WORKING_DTYPES

    specs = selection.from_matrix(
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

if __name__ == "__main__":
    main(*sys.argv[1:])
