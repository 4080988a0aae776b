"""Select the cases of a request: the flag matrix, narrowed by what was asked for, or the cases in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from verifier import family, record
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec, Depth
from verifier.engine.plan import drop_repeated
from verifier.errors import Inconclusive, UsageError
from verifier.reference.acceptance import refusal_of
from verifier.requests.request import RunRequest
from verifier.system.files import MOST_RECORD_BYTES, parse_json, read_file


def select_cases(request: RunRequest) -> tuple[CaseSpec, ...]:
    """Select the cases of a request: the family's matrix, narrowed, or those in a file.

    Raises:
        UsageError: an option is wrong.
        Inconclusive: no case is selected, or no circumstance.
    """
    if request.cases is not None:
        specs = read_cases(request.family, request.cases)
        return tuple(replace(spec, depth=Depth.SAMPLED) for spec in specs) if request.everywhere else specs
    specs = drop_repeated(
        matrix.cases(
            family.load(request.family),
            request.family,
            seed=request.seed,
            dtypes=request.dtypes,
            device=request.device,
            where=parse_where(request.where),
            preset=request.preset,
            checkpoint=request.checkpoint,
            everywhere=request.everywhere,
            quick=request.quick,
        )
    )
    if not specs:
        among = " of those of --quick" if request.quick else ""
        raise Inconclusive(f"no case of {request.family!r}{among} is as --where asks; nothing ran")
    return specs


def read_cases(reference: str, path: Path) -> tuple[CaseSpec, ...]:
    """Read a family's cases from a file: a record, or one JSON object a line as a record's `case` lines have them.

    Args:
        reference: the family.
        path: the file.

    Raises:
        UsageError: the file cannot be read, or a line of it is no case of the family.
    """
    try:
        lines = read_file(path, most=MOST_RECORD_BYTES).splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the cases {str(path)!r}: {error.strerror}") from error
    if lines and b'"run"' in lines[0] and b'"schema"' in lines[0]:
        specs = list(record.read(path).cases.values())
    else:
        specs = [_read_case(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not specs:
        raise UsageError(f"{str(path)!r} holds no case")
    for spec in specs:
        if spec.family != reference:
            raise UsageError(f"{str(path)!r} holds cases of the family {spec.family!r}, not of {reference!r}")
    devices = sorted({spec.device for spec in specs})
    if len(devices) > 1:
        raise UsageError(f"{str(path)!r} holds cases of several devices, {', '.join(devices)}: run each device's alone")
    refusal = refusal_of(family.load(reference))
    return drop_repeated(spec.accepted_by(refusal) for spec in specs)


def _read_case(path: Path, number: int, line: bytes) -> CaseSpec:
    try:
        data = parse_json(line)
    except ValueError as error:
        raise UsageError(f"{path} line {number}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} line {number}: not an object")
    try:
        return CaseSpec.from_json(data)
    except (UsageError, TypeError) as error:
        raise UsageError(f"{path} line {number}: {error}") from error


def parse_where(texts: Sequence[str]) -> dict[str, str]:
    """Split `('alibi=true,bias=false', 'num_kv_heads=4')` into the value, as written, of each flag or axis.

    Raises:
        UsageError: a part is not `flag=value`, or a name is given twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not name or not equals or not value:
                raise UsageError(f"--where {text!r}: {part.strip()!r} is not flag=value")
            if name in values:
                raise UsageError(f"--where names {name!r} twice")
            values[name] = value
    return values
