"""Which row of a projection is which head's query, key or value, read off Hugging Face's own code.

The projections give the numbers of their rows, and norms on queries and keys are passed by. What arrives at the
attention of a text's first position, where rotary positions are the identity, says which row is whose. A model that
scales its queries or keys first scales ones alike, so that these tell by how much. What arrives at the norms, which is
the same at every position, says whether heads or positions come first there.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from verifier.errors import VerifierError
from verifier.family import Projection, QKVRows
from verifier.reference.attention_seam import Attention, AttentionSeam
from verifier.reference.process_state import preserve_random_states

# Numbers go through the model digit by digit: half precision holds these exactly, also where they are scaled.
_BASE = 32
_WORDS = {"q": "queries", "k": "keys", "v": "values"}
_TOKENS = 2  # of a lone token HF packs the queries of a key/value head


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionParts:
    """One layer's attention in HF's model.

    Attributes:
        attention: the module that attends.
        projections: the path in the model of the module that gives queries, keys and values, by the letters that it
            gives: `{"qkv": path}`, or `{"q": …, "k": …, "v": …}`.
        norms: the norms on queries and keys, by letter.
    """

    attention: nn.Module
    projections: Mapping[str, str]
    norms: Mapping[str, nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRows:
    """What is read off one layer's attention.

    Attributes:
        rows: which row is whose.
        heads_first: the letters of the norms that are given `[batch, head, pos, d_head]`, heads before positions.
    """

    rows: QKVRows
    heads_first: frozenset[str]


class _Heads:
    """What arrives at each attention in one forward: queries, keys and values of the first position.

    And, of norms on queries and keys, those that are seen to be given heads before positions.
    """

    def __init__(self) -> None:
        self.seen: dict[nn.Module, list[Tensor]] = {}
        self.heads_first: set[nn.Module] = set()

    def pass_by(self, norm: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        x = args[0]
        # Positions have the same numbers, and heads have their own.
        if x.ndim == 4 and (x.shape[1] != _TOKENS or not torch.equal(x[:, 0], x[:, 1])):
            self.heads_first.add(norm)
        return x

    def attend(self, module: nn.Module, attention: Attention) -> Tensor:
        three = (attention.query, attention.key, attention.value)
        self.seen.setdefault(module, [one[0, :, 0].double().cpu() for one in three])  # [head, d_head]
        return attention.run(*three)

    def multiply(self, module: nn.Module, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Read queries and keys off the first product of old code, and values off the second."""
        seen = self.seen.setdefault(module, [])
        three = [] if len(seen) == 3 else [right] if seen else [left, right.transpose(-1, -2)]
        for one in three:
            heads = one if one.ndim == 3 else one[0]  # the text is one
            seen.append(heads[:, 0].double().cpu())
        return left, right

    def soften(self, module: nn.Module, scores: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return run(scores)


def read_rows(model: nn.Module, layers: Mapping[str, AttentionParts]) -> dict[str, AttentionRows]:
    """Run a model on row numbers, and read which row is whose in each of some layers.

    Args:
        model: HF's model of token ids, which is left as it is.
        layers: by names of the caller's own.

    Raises:
        VerifierError: an attention of these is not seen, or attends with something else than rows of its projections.
    """
    places: dict[str, range] = {}
    of_modules: dict[nn.Module, range] = {}  # several layers may share one
    total = 0
    for path in (path for parts in layers.values() for path in parts.projections.values()):
        module = model.get_submodule(path)
        if module not in of_modules:
            of_modules[module] = range(total, total + _outputs(module))
            total = of_modules[module].stop
        places[path] = of_modules[module]
    ones = _run(model, layers, lambda _path, n: torch.ones(n))
    numbers = {module: [torch.zeros_like(one) for one in three] for module, three in ones.seen.items()}
    heads_first = ones.heads_first
    for place in range(math.ceil(math.log(total + 1, _BASE))):
        digits = _run(model, layers, functools.partial(_digits, places, _BASE**place))
        heads_first |= digits.heads_first
        for module, three in digits.seen.items():
            for found, digit, one in zip(numbers[module], three, ones.seen[module], strict=True):
                found += (digit / one).round() * _BASE**place
    rows = {}
    for name, parts in layers.items():
        if len(numbers.get(parts.attention, ())) < 3:
            raise VerifierError(f"{type(parts.attention).__name__} of {name} attends nowhere that is seen")
        q, k, v = (found.long() for found in numbers[parts.attention])
        first = frozenset(letter for letter, norm in parts.norms.items() if norm in heads_first)
        rows[name] = AttentionRows(rows=rows_of(name, parts, q, k, v, places), heads_first=first)
    return rows


def _digits(places: Mapping[str, range], power: int, path: str, n: int) -> Tensor:
    return (torch.arange(places[path].start, places[path].start + n) // power) % _BASE


def rows_of(name: str, parts: AttentionParts, q: Tensor, k: Tensor, v: Tensor, places: Mapping[str, range]) -> QKVRows:
    """Sort the numbers that arrive at an attention.

    Args:
        name: of the layer, for messages.
        parts: of the layer.
        q: `[head, d_head]`.
        k: `[kv_head or head, d_head]`: HF gives keys once for each key/value head, for each query head, or for all.
        v: as `k`.
        places: the numbers of each projection's rows, by path.

    Raises:
        VerifierError: some are no numbers of the rows that are declared.
    """
    keys = k[:, 0].tolist()
    distinct = list(dict.fromkeys(keys))
    first = [keys.index(key) for key in distinct]
    expanded = [distinct.index(key) for key in keys]
    # Heads that read one key/value head stand together wherever HF repeats it (`repeat_kv`, `enable_gqa`).
    reads = torch.tensor(expanded).repeat_interleave(len(q) // len(keys))

    def projection(letter: str, numbers: Tensor) -> Projection:
        path = next(path for letters, path in parts.projections.items() if letter in letters)
        # HF's rotation of heads of one row broadcasts, and gives that row twice.
        row = numbers[0].tolist()
        once = [row.index(number) for number in dict.fromkeys(row)]
        if int(numbers.min()) not in places[path] or int(numbers.max()) not in places[path]:
            raise VerifierError(
                f"{type(parts.attention).__name__} of {name} attends with {_WORDS[letter]} that are no outputs of "
                f"{path}: another module projects them, or they pass a norm that is not declared as attn.q_norm or "
                "attn.k_norm"
            )
        return Projection(module=path, rows=numbers[:, once] - places[path].start)

    return QKVRows(q=projection("q", q), k=projection("k", k[first]), v=projection("v", v[first]), reads=reads)


def _run(model: Any, layers: Mapping[str, AttentionParts], value: Callable[[str, int], Tensor]) -> _Heads:
    """Run the model with these outputs of its projections, `[rows]`: what arrives at each attention and norm."""
    heads = _Heads()
    with contextlib.ExitStack() as stack:
        for context in (preserve_random_states(), torch.inference_mode(False), torch.no_grad(), _unhooked(model)):
            stack.enter_context(context)
        for module in [module for module in model.modules() if module.training]:  # where some drop whole layers
            module.training = False
            stack.callback(setattr, module, "training", True)

        def give(path: str) -> Callable[..., Tensor]:
            return lambda _module, _args, output: value(path, output.shape[-1]).to(output).expand_as(output)

        paths = {model.get_submodule(path): path for parts in layers.values() for path in parts.projections.values()}
        for module, path in paths.items():
            stack.enter_context(module.register_forward_hook(give(path)))
        for norm in {norm for parts in layers.values() for norm in parts.norms.values()}:
            stack.enter_context(norm.register_forward_hook(heads.pass_by))
        stack.enter_context(AttentionSeam([parts.attention for parts in layers.values()], heads))
        model(torch.zeros(1, _TOKENS, dtype=torch.long, device=model.device), use_cache=False)
    return heads


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextlib.contextmanager
def _unhooked(model: nn.Module) -> Iterator[None]:
    """Leave out the hooks that a model has, which are somebody's who looks at another forward."""
    kept = [(module, name, getattr(module, name)) for module in model.modules() for name in _HOOKS]
    for module, name, _ in kept:
        setattr(module, name, OrderedDict())
    try:
        yield
    finally:
        for module, name, hooks in kept:
            hooks.update(getattr(module, name))  # what HF installed of its own, once and for all
            setattr(module, name, hooks)


def _outputs(module: Any) -> int:
    """Count the outputs of a linear module: `Linear`, or HF's `Conv1D`.

    Raises:
        VerifierError: it is none.
    """
    outputs: int | None = getattr(module, "nf", getattr(module, "out_features", None))
    if outputs is None:
        raise VerifierError(f"a projection of queries, keys or values is declared at a {type(module).__name__}")
    return outputs
