"""A rule read back: whether a predicate, in the words in which `rules` writes them, is true of a config."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verifier.errors import UsageError

ABSENT = "absent"  # a name that a config does not have, as `rules` spells it

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
}


class _Nothing:
    """The value of a name that a config does not have."""


_NOTHING = _Nothing()


def require_readable(text: str) -> None:
    """Make sure that it is a predicate.

    Raises:
        UsageError: it is none.
    """
    _parsed(text)


def holds(text: str, config: Mapping[str, Any], flags: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the predicate is true of the config.

    A comparison by size with what is no number is false, `true` is not 1, and a name alone is true where its value is
    `true` and nothing else, as in `rules`.

    Args:
        text: `bias and 1 < num_kv_heads < num_attention_heads`.
        config: field → value.
        flags: field → values, the plainest first, which is the one of a config that does not name it.

    Raises:
        UsageError: the text is no predicate.
    """
    plainest = {name: values[0] for name, values in flags.items() if values}
    return _value(_parsed(text), {**plainest, **config}) is True


@functools.lru_cache(maxsize=1024)  # the same few are asked of every case
def _parsed(text: str) -> ast.expr:
    try:
        found = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UsageError(f"{text!r} is no rule, as `alibi and num_kv_heads > 1` is one") from error
    if not all(_is_known(node) for node in ast.walk(found)):
        raise UsageError(f"{text!r} is no rule: it may hold names, values, comparisons, and, or, not")
    return found


def _is_known(node: ast.AST) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return isinstance(operand, ast.Constant) and _is_number(operand.value)
        case ast.Dict(keys=keys):
            return all(isinstance(key, ast.Constant) for key in keys)
        case _:
            return isinstance(node, _KNOWN)


_KNOWN = (
    ast.BoolOp,
    ast.boolop,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.Compare,
    ast.cmpop,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.Dict,
)


def _value(node: ast.expr, config: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, config) is True for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, config) is True for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            found = _value(operand, config)
            return found is False
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Compare(left=left, ops=comparisons, comparators=rest):
            values = [_value(one, config) for one in (left, *rest)]
            pairs = zip(comparisons, values, values[1:], strict=False)
            return all(_compares(comparison, one, other) for comparison, one, other in pairs)
        case ast.Name(id=name):
            return _NOTHING if name == ABSENT else config.get(name, _NOTHING)
        case ast.Constant(value=value):
            return value
        case ast.List(elts=elements):
            return [_value(one, config) for one in elements]
        case ast.Dict(keys=keys, values=values):
            return {_value(key, config): _value(one, config) for key, one in zip(keys, values, strict=True) if key}
        case _:
            raise AssertionError(f"{ast.unparse(node)!r} is in a rule that was read")


def _compares(comparison: ast.cmpop, one: Any, other: Any) -> bool:
    match comparison:
        case ast.Eq() | ast.Is():
            return _same(one, other)
        case ast.NotEq() | ast.IsNot():
            return not _same(one, other)
        case ast.In():
            return isinstance(other, list | tuple) and any(_same(one, element) for element in other)
        case ast.NotIn():
            return isinstance(other, list | tuple) and not any(_same(one, element) for element in other)
        case _:
            return _is_number(one) and _is_number(other) and _COMPARE[type(comparison)](one, other)


def _same(one: Any, other: Any) -> bool:
    """Equal, where a switch is no number, and a tuple is a list."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
