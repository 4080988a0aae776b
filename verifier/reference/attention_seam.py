"""Stand where an untouched Hugging Face model attends: at its attention function, or where old code has none.

Most of HF's models call an attention function that they look up by the implementation's name. Older ones call
`scaled_dot_product_attention` themselves, or take a softmax between two products. A seam stands at all three, for the
attention modules that it is given, and says which of them attends.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import AttentionInterface

_SOFTMAXES = frozenset({F.softmax, torch.softmax, torch.Tensor.softmax})
# Of these the second and third arguments are multiplied, and what they give is added to the first.
_ADDED_PRODUCTS = frozenset({torch.baddbmm, torch.Tensor.baddbmm})
_PRODUCTS = frozenset({torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One layer's attention, as HF's model asks for it.

    Attributes:
        query: `[batch, head, query, d_head]`, rotated where the model rotates.
        key: `[batch, kv_head or head, key, d_head]`, rotated; those of a cache come first.
        value: `[batch, kv_head or head, key, d_head]`.
        mask: `[batch, 1 or head, query, key]`: what is added to the scores, or True where a query may look; None for
            no mask.
        causal: whether a query sees no later key, beside what the mask says.
        scale: what the products are multiplied by.
        softcap: the scores are bent to stay between this and its negative; None where they are not.
        sinks: `[head]`, a further score for each query, which takes its share of the pattern; None for no sinks.
        dropout: the probability with which an entry of the pattern is dropped.
        softens: whether HF's own computation takes its softmax where the seam sees it.
        run: HF's own computation of these queries, keys and values: `[batch, head, query, d_head]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    dropout: float
    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    softcap: float | None = None
    sinks: Tensor | None = None
    softens: bool = False

    def of(self, query: Tensor, key: Tensor, value: Tensor) -> Attention:
        """Give the same attention of other queries, keys and values."""
        return replace(self, query=query, key=key, value=value)

    def scores(self) -> Tensor:
        """Compute `[batch, head, query, key]`, what the softmax is taken of, from keys expanded to all heads."""
        scores = self.query @ self.key.transpose(-1, -2) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        mask = self.mask
        if self.causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is None:
            return scores
        mask = mask[..., : scores.shape[-1]]
        return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask

    def pattern(self, scores: Tensor) -> Tensor:
        """Compute the attention probabilities `[batch, head, query, key]` from the scores."""
        if self.sinks is not None:
            extra = self.sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
            return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]
        # A row whose every key is masked gives zeros, as in torch's own kernels.
        blind = (scores == float("-inf")).all(-1, keepdim=True)
        return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)

    def mix(self, pattern: Tensor) -> Tensor:
        """Mix the values, expanded to all heads, by the pattern: `[batch, head, query, d_head]`."""
        return F.dropout(pattern, self.dropout, training=self.dropout > 0) @ self.value


class Attend(Protocol):
    """What stands at a seam."""

    def attend(self, module: nn.Module, attention: Attention) -> Tensor:
        """Give what the heads of an attention module read, `[batch, head, query, d_head]`."""

    def multiply(self, module: nn.Module, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Give the factors of a product of HF's in an attention module.

        The first is of queries `[batch, head, query, d_head]` and keys `[batch, head, d_head, key]`, the second of the
        pattern and values. Some flatten `[batch, head]` to one axis.
        """

    def soften(self, module: nn.Module, scores: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Give the pattern of scores, both `[batch, head, query, key]`, at a softmax of HF's, which `run` takes."""


class AttentionSeam(TorchFunctionMode):
    """A context in which `attend` computes the attention of some modules of a model.

    Invariant: HF's own computation, run from inside, is not seen again; only its products and its softmax are, where
    it takes one.
    """

    def __init__(self, modules: Collection[nn.Module], stands: Attend) -> None:
        """Make a seam.

        Args:
            modules: HF's attention modules.
            stands: computes their attention.
        """
        super().__init__()
        self._modules = frozenset(modules)
        self._stands = stands
        self._current: list[nn.Module] = []  # the innermost attention module that runs makes the calls
        self._looks = True
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> AttentionSeam:
        with contextlib.ExitStack() as stack:
            for module in self._modules:
                self._mark(stack, module)
            stack.enter_context(_standing(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _mark(self, stack: contextlib.ExitStack, module: nn.Module) -> None:
        """Turn the mode on only while the module runs, because it slows down every torch function."""

        # In place of `forward` and not by hooks, which torch does not run when an interrupt ends the forward.
        own, forward = module.__dict__.get("forward"), module.forward

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._current.append(module)
            TorchFunctionMode.__enter__(self)
            try:
                return forward(*args, **kwargs)
            finally:
                TorchFunctionMode.__exit__(self, None, None, None)
                self._current.pop()

        module.forward = run
        stack.callback(*((module.__dict__.pop, "forward") if own is None else (setattr, module, "forward", own)))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Let what runs inside be nobody's attention, as an edit is."""
        with self._looking(False):
            yield

    # --- HF's attention function

    def attend_by(
        self, function: Callable[..., Any], module: nn.Module, three: Sequence[Tensor], mask: Any, **more: Any
    ) -> tuple[Tensor, Any]:
        """Attend in place of a function of HF's: what it gives, `[batch, query, head, d_head]`, and its pattern.

        Args:
            function: HF's.
            module: one of the seam's.
            three: the query, the key and the value.
            mask: of the function, as `more` is.
            more: its other arguments, and whether it is `eager`.
        """
        query, key, value = three
        asked, given = asked_of_hf(module, query, key, value, mask, **more), list[Any]()
        del more["eager"]

        def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            with self._looking(asked.softens):
                mixed, *given[:] = function(module, query, key, value, mask, **more)
            return mixed.transpose(1, 2)  # type: ignore[no-any-return]

        mixed = self._attend(module, replace(asked, run=run)).transpose(1, 2)
        return mixed, given[0] if given else None

    @property
    def modules(self) -> frozenset[nn.Module]:
        """The attention modules at which it stands."""
        return self._modules

    def _attend(self, module: nn.Module, attention: Attention) -> Tensor:
        with self._looking(False):
            return self._stands.attend(module, attention)

    @contextlib.contextmanager
    def _looking(self, looks: bool) -> Iterator[None]:
        before, self._looks = self._looks, looks
        try:
            yield
        finally:
            self._looks = before

    # --- old code

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._looks:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attend(self._current[-1], _asked_of_torch(*args, **kwargs))
        if func in _PRODUCTS and min(args[0].ndim, args[1].ndim) > 2:  # no weight is a factor
            return func(*self._stands.multiply(self._current[-1], *args), **kwargs)
        if func in _ADDED_PRODUCTS:
            named = [kwargs.pop(name) for name in ("batch1", "batch2") if name in kwargs]
            start, left, right = list(args) + named
            return func(start, *self._stands.multiply(self._current[-1], left, right), **kwargs)
        if func in _SOFTMAXES:
            return self._stands.soften(
                self._current[-1], args[0], lambda scores: func(scores, *args[1:], **kwargs).to(scores.dtype)
            )
        return func(*args, **kwargs)


_STANDING: list[AttentionSeam] = []


@contextlib.contextmanager
def _standing(seam: AttentionSeam) -> Iterator[None]:
    """Let a seam stand at HF's attention function; several may, and are left in any order."""
    _STANDING.append(seam)
    if len(_STANDING) == 1:
        _FOUND[:] = [AttentionInterface.get_interface]
        AttentionInterface.get_interface = _get_interface  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        _STANDING.remove(seam)
        if not _STANDING:
            AttentionInterface.get_interface = _FOUND[0]  # type: ignore[method-assign]


_FOUND: list[Callable[..., Any]] = []  # what stood there before


def _get_interface(interface: AttentionInterface, implementation: str, default: Callable[..., Any]) -> Any:
    function = _FOUND[0](interface, implementation, default)

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **more: Any) -> Any:
        seam = next((one for one in reversed(_STANDING) if module in one.modules), None)
        if seam is None:
            return function(module, query, key, value, mask, **more)
        return seam.attend_by(function, module, (query, key, value), mask, eager=function is default, **more)

    return attend


def _unset(*_: Tensor) -> Tensor:
    raise AssertionError("replaced by HF's own")


def asked_of_hf(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    eager: bool = False,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> Attention:
    """Read the arguments of an attention function of HF's; those that are left out change nothing or are in the mask.

    Args:
        module: HF's attention module.
        query: `[batch, head, query, d_head]`.
        key: `[batch, kv_head or head, key, d_head]`.
        value: as `key`.
        mask: `[batch, 1 or head, query, key]`, or None.
        eager: whether the function is the eager one of the model's own code.
        dropout: of the pattern.
        scaling: of the products; None for one over the root of `d_head`.
        softcap: of the scores.
        s_aux: the sinks, `[head]`.
        is_causal: None if the module says it.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    return Attention(
        query=query,
        key=key,
        value=value,
        mask=mask,
        # HF's eager functions know no causality beside the mask.
        causal=bool(causal) and mask is None and query.shape[2] > 1 and not eager,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        softcap=softcap,
        sinks=s_aux,
        # With sinks they take it of scores that are shifted and have one more column.
        softens=eager and s_aux is None,
        run=_unset,
    )


def _asked_of_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Attention:
    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    return Attention(
        query=query,
        key=key,
        value=value,
        mask=attn_mask,
        causal=is_causal,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        dropout=dropout_p,
        run=run,
    )
