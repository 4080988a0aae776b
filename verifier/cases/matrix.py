"""Make the cases of a run: every combination of the family's flags, and its named corners."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from verifier.cases.covering import covering
from verifier.cases.dealing import deal, kind_of_model, plainly
from verifier.cases.lengths import shorten_inputs
from verifier.cases.narrowing import Narrowing
from verifier.cases.spec import WORKING_DTYPES, CaseSpec, Depth, find_refusal
from verifier.errors import UsageError, one_line
from verifier.family import Config, Family
from verifier.output.text import nearest
from verifier.reference.acceptance import refusal_of
from verifier.system.files import parse_json, read_file

# The long input of a corner: beyond 256, from where on bfloat16 (ALiBi's positions) does not count exactly. It costs
# the square of its length, so the product makes do with one that is longer than any dimension.
_CORNER_LONG = 263
_MEETING = 2  # of how many flags all values meet in the pairwise cases
# Inputs of a preset: as short as it gets, because its width is the point.
_PRESET_INPUTS: Mapping[str, Any] = {"batch": 2, "length": 7, "long": 33}


def cases(
    family: Family,
    reference: str,
    *,
    seed: int = 0,
    dtypes: Sequence[str] = WORKING_DTYPES,
    device: str = "cpu",
    where: Mapping[str, str] | None = None,
    preset: str | None = None,
    checkpoint: str | None = None,
    everywhere: bool = False,
    quick: bool = False,
) -> list[CaseSpec]:
    """Make the cases of a run, valid and refused ones, in a fixed order.

    Args:
        family: whose flags, corners and presets they are.
        reference: how a worker finds the family again.
        seed: of weights and inputs.
        dtypes: the working dtypes in which precision is judged.
        device: where they run.
        where: values that flags, dims or axes of circumstances must have, as text: `{"alibi": "true", "mask": "left"}`.
        preset: the name of a published checkpoint, whose shape takes the place of the matrix.
        checkpoint: a folder, whose model takes the place of the matrix.
        everywhere: whether every check runs on every case, however much that costs.
        quick: whether only a covering of the flags is run, with each single value of each axis once.

    Raises:
        UsageError: an unknown preset, flag, axis or value.
        Inconclusive: no case is looked at in such a circumstance.
    """
    case = functools.partial(_case, family, reference, seed=seed, dtypes=tuple(dtypes), device=device)
    if checkpoint is not None:
        path, config = _read_checkpoint(family, checkpoint)
        specs = [case(path.name, config, checkpoint=str(path), **_PRESET_INPUTS)]
    elif preset is not None:
        specs = [case(preset, _preset_config(family, preset), **_PRESET_INPUTS)]
    else:
        flags, dims = family.flags(), family.dims()
        products = (dict(zip(flags, values, strict=True)) for values in itertools.product(*flags.values()))
        specs = [case(None, {**dims, **config}) for config in products]
        specs += [case(label, {**dims, **config}, long=_CORNER_LONG) for label, config in family.corners().items()]
    narrowing = Narrowing(family, specs, where or {})
    if preset or checkpoint:
        depth = Depth.SAMPLED if everywhere else Depth.PAIRWISE
        return narrowing.narrow(plainly([replace(spec, depth=depth) for spec in specs]))
    if quick:
        specs = _select_quick(family, specs)
    # Before any is left out: a case is looked at in the same circumstances whichever others are run.
    chosen = narrowing.narrow(deal(family, specs, everywhere=everywhere, quick=quick))
    return [replace(spec, depth=Depth.SAMPLED) for spec in chosen] if everywhere else _deepened(family, chosen)


def _select_quick(family: Family, specs: Sequence[CaseSpec]) -> list[CaseSpec]:
    """Select the cases of a quick run.

    They are the plainest case; a covering of the flags, in which every two values of every two flags that HF accepts
    together meet; the last corner of each kind of model that the covering lacks, and with each field that no
    combination of flags shows; and a covering of what HF refuses, in which every two values of every two fields meet.
    """
    valid, refused = ([place for place, spec in enumerate(specs) if spec.valid is wanted] for wanted in (True, False))
    product = [place for place in valid if specs[place].label is None]
    corners = [place for place in valid if specs[place].label is not None]
    # From the last on: of cases with as many new meetings the one with most flags away from the plainest shows most.
    backwards = product[::-1]
    chosen = {backwards[place] for place in _cover(family, [specs[place] for place in backwards])} | {*product[:1]}
    known = {kind_of_model(family, specs[place]) for place in chosen}
    chosen |= {place for kind, place in _last_by_kind(family, specs, corners).items() if kind not in known}
    chosen |= set(_last_by_field(family, specs, corners).values())
    chosen |= {refused[place] for place in covering([specs[place].config for place in refused], _MEETING)}
    return [specs[place] for place in sorted(chosen)]


def _cover(family: Family, specs: Sequence[CaseSpec]) -> list[int]:
    """Choose the places of cases in which every two values of every two flags meet that do so in any."""
    return covering([spec.config for spec in specs], _MEETING, family.flags())


def _last_by_kind(family: Family, specs: Sequence[CaseSpec], places: Sequence[int]) -> dict[frozenset[str], int]:
    """Find the last of some cases of each kind of model."""
    return {kind_of_model(family, specs[place]): place for place in places}


def _last_by_field(family: Family, specs: Sequence[CaseSpec], places: Sequence[int]) -> dict[str, int]:
    """Find the last of some cases with each field that is neither a flag nor a dim."""
    everywhere = family.flags().keys() | family.dims().keys()
    return {field: place for place in places for field in specs[place].config if field not in everywhere}


def _deepened(family: Family, specs: Sequence[CaseSpec]) -> list[CaseSpec]:
    """Set the depth of each case; on a deeper case more checks run.

    Pairwise: a covering of the flags, in which every two values of every two flags that HF accepts together meet; the
    last corner of each kind of model, which is what hook points it has; and the last corner with each field that is
    neither a flag nor a dim, which no combination of flags shows.
    Sampled: the plainest case, and the last of each kind, which has most flags away from that.
    """
    valid = [number for number, spec in enumerate(specs) if spec.valid]
    product = [number for number in valid if specs[number].label is None]
    corners = [number for number in valid if specs[number].label is not None]
    pairwise = [product[place] for place in _cover(family, [specs[place] for place in product])]
    pairwise += [*_last_by_kind(family, specs, corners).values(), *_last_by_field(family, specs, corners).values()]
    depths = dict.fromkeys(pairwise, Depth.PAIRWISE)
    depths |= dict.fromkeys([*product[:1], *_last_by_kind(family, specs, product).values()], Depth.SAMPLED)
    return [replace(spec, depth=depths.get(number, spec.depth)) for number, spec in enumerate(specs)]


def _case(family: Family, reference: str, label: str | None, config: Config, **rest: Any) -> CaseSpec:
    reason = find_refusal(refusal_of(family), config)
    spec = CaseSpec(family=reference, config=config, valid=reason is None, reason=reason, label=label, **rest)
    return shorten_inputs(family, spec)


def _preset_config(family: Family, name: str) -> Config:
    presets = family.presets()
    if name not in presets:
        known = ", ".join(presets) or "it has none"
        raise UsageError(f"{family.name} has no preset {name!r}{nearest(name, tuple(presets))}; presets: {known}")
    return presets[name]


# What HF writes into a `config.json` beside the model's own fields.
_NOT_FIELDS = frozenset({"architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "auto_map"})


def _read_checkpoint(family: Family, folder: str) -> tuple[Path, Config]:
    """Read a checkpoint's config: the folder's full path, and the fields of the model.

    Raises:
        UsageError: the folder has no readable config.json, or it is of another architecture.
    """
    try:
        path = Path(folder).expanduser().resolve()
        written = parse_json(read_file(path / "config.json"))
    except OSError as error:
        raise UsageError(f"--checkpoint {folder!r}: there is no config.json to read ({error.strerror})") from error
    except RuntimeError as error:  # the home of a user that there is not, or links in a circle
        raise UsageError(f"--checkpoint {folder!r}: {one_line(error)}") from error
    except ValueError as error:
        raise UsageError(f"--checkpoint {folder!r}: its config.json is {error}") from error
    architectures = written.get("architectures") if isinstance(written, dict) else None
    if not isinstance(architectures, list) or family.architecture not in architectures:
        raise UsageError(f"--checkpoint {folder!r}: it holds {architectures}, not {family.architecture}")
    config = {name: value for name, value in written.items() if name not in _NOT_FIELDS and not name.startswith("_")}
    for file in path.iterdir():
        if not (file.is_file() or file.is_dir()):  # HF would wait for a pipe
            raise UsageError(f"--checkpoint {folder!r}: {file.name!r} is no file")
    return path, config
