"""Predicates over a config in words: how their values are written, and whether one of them is true of a config.

`bias and 1 < num_kv_heads < num_attention_heads` has the syntax of Python and its own meaning: `true` is not 1, a
comparison by size with what is no number is false, and a name alone is true where its value is `true`, not otherwise.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verifier.errors import UsageError

ABSENT = "absent"  # the value of a field that a config does not name; no other is written so, as text has quotes

_BY_SIZE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
}


class _Absent:
    def __repr__(self) -> str:
        return ABSENT


ABSENT_VALUE = _Absent()


def require_readable(text: str) -> None:
    """Make sure that a text is a predicate.

    Raises:
        UsageError: the text is no predicate.
    """
    _parse(text)


def holds(text: str, config: Mapping[str, Any], flags: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a predicate is true of a config.

    Args:
        text: `bias and 1 < num_kv_heads < num_attention_heads`.
        config: field → value.
        flags: field → values, the plainest first, which is the one of a config that does not name the field.

    Raises:
        UsageError: the text is no predicate.
    """
    return _evaluate(_parse(text), {**plainest_values(flags), **config}) is True


def plainest_values(flags: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Give the value that each flag has in a config that does not name it."""
    return {name: values[0] for name, values in flags.items() if values}


def write_value(value: Any) -> str:
    """Write a value as it stands in a predicate.

    Equal values are written alike: a tuple as a list, and a mapping in the order of its keys.
    """
    if is_list(value):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {write_value(value[key])}' for key in sorted(value, key=repr))}}}"
    return repr(value)


def is_list(value: Any) -> bool:
    """Whether a value is a list or a tuple, whose elements a predicate may name."""
    return isinstance(value, list | tuple)


def is_number(value: Any) -> bool:
    """Whether a value can be compared by size: NaN cannot, and `true` and `false` are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


@functools.lru_cache(maxsize=1024)  # few predicates are evaluated, each on every case
def _parse(text: str) -> ast.expr:
    try:
        found = ast.parse(text, mode="eval").body
        _evaluate(found, {})  # every part is evaluated whatever the config, so a wrong part raises here
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{text!r} is no rule: write names, values, comparisons, and, or, not, as in `alibi and num_kv_heads > 1`"
        ) from error
    return found


def _evaluate(node: ast.expr, config: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=joined, values=parts):
            truths = [_evaluate(part, config) is True for part in parts]
            return all(truths) if isinstance(joined, ast.And) else any(truths)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _evaluate(operand, config) is False
        case ast.UnaryOp(op=ast.USub()) | ast.Constant():
            return ast.literal_eval(node)
        case ast.Compare(left=left, ops=comparisons, comparators=rest):
            values = [_evaluate(one, config) for one in (left, *rest)]
            return all([*map(_compare, comparisons, values, values[1:])])
        case ast.Name(id=name):
            return config.get(name, ABSENT_VALUE)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_evaluate(one, config) for one in elements]
        case ast.Dict(keys=keys, values=entries):
            names = [ast.literal_eval(key) for key in keys if key is not None]  # None stands for `**`
            return dict(zip(names, [_evaluate(entry, config) for entry in entries], strict=True))
        case _:
            raise ValueError(f"{ast.unparse(node)} has no place in a predicate")


def _compare(comparison: ast.cmpop, one: Any, other: Any) -> bool:
    match comparison:
        case ast.Eq() | ast.Is():
            return _equal(one, other)
        case ast.NotEq() | ast.IsNot():
            return not _equal(one, other)
        case ast.In():
            return is_list(other) and any(_equal(one, element) for element in other)
        case ast.NotIn():
            return is_list(other) and not any(_equal(one, element) for element in other)
        case _:
            return is_number(one) and is_number(other) and _BY_SIZE[type(comparison)](one, other)


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal: `true` is not 1, and a tuple equals a list with the same elements."""
    if is_list(one) and is_list(other):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
