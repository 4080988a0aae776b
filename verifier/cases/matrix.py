"""Make the cases of a run: every combination of the family's flags, and its named corners."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from verifier.cases.covering import covering
from verifier.cases.dealing import deal, plainly
from verifier.cases.predicates import plainest_values
from verifier.cases.spec import WORKING_DTYPES, CaseSpec, Depth
from verifier.errors import UsageError, one_line
from verifier.family import Config, Family
from verifier.output.text import nearest

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
) -> list[CaseSpec]:
    """Make the cases of a run, valid and refused ones, in a fixed order.

    Args:
        family: whose flags, corners and presets they are.
        reference: how a worker finds the family again.
        seed: of weights and inputs.
        dtypes: the working dtypes in which precision is judged.
        device: where they run.
        where: values that flags or dims must have, as text: `{"alibi": "true"}`.
        preset: the name of a published checkpoint, whose shape takes the place of the matrix.
        checkpoint: a folder, whose model takes the place of the matrix.
        everywhere: whether every check runs on every case, however much that costs.

    Raises:
        UsageError: an unknown preset, flag or value.
    """
    wanted = {name: _value(text) for name, text in (where or {}).items()}
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
        # Before any is left out: a case is looked at in the same circumstances whichever others are run.
        specs = deal(family, specs, everywhere=everywhere)
    plainest = plainest_values(family.flags())
    settings = [{**plainest, **spec.config} for spec in specs]
    _require_known(family, settings, wanted)
    chosen = [
        spec
        for spec, config in zip(specs, settings, strict=True)
        if all(_has(config, name, value) for name, value in wanted.items())
    ]
    if preset or checkpoint:
        depth = Depth.SAMPLED if everywhere else Depth.PAIRWISE
        return plainly([replace(spec, depth=depth) for spec in chosen])
    return [replace(spec, depth=Depth.SAMPLED) for spec in chosen] if everywhere else _deepened(family, chosen)


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

    def last_of_each_kind(numbers: Sequence[int]) -> Iterable[int]:
        kinds = {}
        for number in numbers:
            kinds[frozenset(point.kind.template for point in family.points(specs[number].config))] = number
        return kinds.values()

    configs = [specs[number].config for number in product]
    pairwise = [product[place] for place in covering(configs, _MEETING, family.flags())]
    everywhere = family.flags().keys() | family.dims().keys()
    fields = {field: number for number in corners for field in specs[number].config if field not in everywhere}
    depths = dict.fromkeys([*pairwise, *last_of_each_kind(corners), *fields.values()], Depth.PAIRWISE)
    depths |= dict.fromkeys([*product[:1], *last_of_each_kind(product)], Depth.SAMPLED)
    return [replace(spec, depth=depths.get(number, spec.depth)) for number, spec in enumerate(specs)]


def _case(family: Family, reference: str, label: str | None, config: Config, **rest: Any) -> CaseSpec:
    reason = family.refusal(config)
    return CaseSpec(family=reference, config=config, valid=reason is None, reason=reason, label=label, **rest)


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
        written = json.loads((path / "config.json").read_text())
    except OSError as error:
        raise UsageError(f"--checkpoint {folder!r}: there is no config.json to read ({error.strerror})") from error
    except RuntimeError as error:  # the home of a user that there is not, or links in a circle
        raise UsageError(f"--checkpoint {folder!r}: {one_line(error)}") from error
    except ValueError as error:
        raise UsageError(f"--checkpoint {folder!r}: its config.json is not JSON") from error
    architectures = written.get("architectures") if isinstance(written, dict) else None
    if not isinstance(architectures, list) or family.architecture not in architectures:
        raise UsageError(f"--checkpoint {folder!r}: it holds {architectures}, not {family.architecture}")
    config = {name: value for name, value in written.items() if name not in _NOT_FIELDS and not name.startswith("_")}
    return path, config


_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None, "null": None}


def _value(text: str) -> Any:
    """Read a value as it is typed on the command line; a text that is no JSON stands for itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _word(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _has(settings: Config, name: str, value: Any) -> bool:
    """Whether a config has this very value; a field that it does not name has HF's default, which only HF knows."""
    return name in settings and type(settings[name]) is type(value) and bool(settings[name] == value)


def _require_known(family: Family, settings: Sequence[Config], wanted: Mapping[str, Any]) -> None:
    """Make sure that each wanted field exists and some config has the wanted value.

    Raises:
        UsageError: no config names the field, or none has that value.
    """
    names = sorted({*family.flags(), *itertools.chain.from_iterable(settings)})
    for name, value in wanted.items():
        if name not in names:
            raise UsageError(f"--where: {family.name} has no flag or dim {name!r}{nearest(name, names)}")
        if not any(_has(config, name, value) for config in settings):
            values = sorted({_word(config.get(name)) for config in settings})
            raise UsageError(f"--where: no case has {name}={_word(value)}; it is one of {', '.join(values)}")
