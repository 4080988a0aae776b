"""What the doctor learns by importing: each function runs in a process of its own, because it may crash or hang."""

from __future__ import annotations

from typing import Any

from verifier.errors import ImportFailed
from verifier.requests.request import RunRequest


def describe_torch() -> dict[str, Any]:
    """What torch says of its devices and threads."""
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cuda = ", ".join(devices) or "no CUDA device"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return {"said": f"{built}, {cuda}, {torch.get_num_threads()} threads (a run gives each worker one)"}


def describe_family(reference: str) -> dict[str, Any]:
    """The architecture of a family.

    Raises:
        ImportFailed: it raised at import, or the installed transformers lacks its architecture.
    """
    from verifier import family

    found = family.load(reference)
    import transformers

    if not hasattr(transformers, found.architecture):
        raise ImportFailed(f"the installed transformers has no {found.architecture}")
    return {"said": found.architecture}


def describe_adapter(reference: str) -> dict[str, Any]:
    """What an adapter calls itself."""
    from verifier import adapter

    found = adapter.load(reference)
    return {"said": f"{found.name} {found.version}"}


def describe_check(reference: str) -> dict[str, Any]:
    """The id of a third party's check."""
    from verifier import checks

    return {"said": checks.load_outside(reference).id}


def count_plan(request: RunRequest) -> dict[str, Any]:
    """How many cases and checks a run has.

    Raises:
        UsageError: a flag, a value or a check is not there.
    """
    from verifier.engine import catalogue
    from verifier.requests.cases import select_cases

    specs = select_cases(request)
    valid = sum(spec.valid for spec in specs)
    return {"valid": valid, "refused": len(specs) - valid, "checks": len(catalogue.select(request.only))}
