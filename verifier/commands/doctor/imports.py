"""What the doctor learns by importing: each function runs in a process of its own, because it may crash or hang."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.commands.doctor.facts import PluginKind
from verifier.errors import ImportFailed
from verifier.requests.request import RunRequest


def describe_torch() -> str:
    """Say which devices and how many threads torch has."""
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cuda = ", ".join(devices) or "no CUDA device"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return f"{built}, {cuda}, {torch.get_num_threads()} threads (a run gives each worker one)"


def describe(kind: PluginKind, reference: str) -> str:
    """Import a family, an adapter or a third party's check, and say what it calls itself.

    Args:
        kind: which of the three it is.
        reference: its name, or `module:object`.

    Raises:
        UsageError: nothing of that kind has the name.
        ImportFailed: it raised at import, or the installed transformers lacks the family's architecture.
    """
    from verifier import adapter, checks, family

    if kind == "check":
        return checks.load_outside(reference).id
    if kind == "adapter":
        subject = adapter.load(reference)
        return f"{subject.name} {subject.version}"
    architecture = family.load(reference).architecture
    import transformers

    if not hasattr(transformers, architecture):
        raise ImportFailed(f"the installed transformers has no {architecture}")
    return architecture


def count_plan(request: RunRequest) -> Mapping[str, int]:
    """Count the cases and the checks of a run.

    Returns:
        `valid` and `refused`, the cases that Hugging Face's model accepts and refuses, and `checks`.

    Raises:
        UsageError: a flag, a value or a check does not exist.
    """
    from verifier.engine import catalogue
    from verifier.reference.acceptance import answered_by, ask_here
    from verifier.requests.cases import select_cases

    with answered_by(ask_here):
        specs = select_cases(request)
    valid = sum(spec.valid for spec in specs)
    return {"valid": valid, "refused": len(specs) - valid, "checks": len(catalogue.select(request.only))}
