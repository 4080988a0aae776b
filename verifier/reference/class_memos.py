"""Fill in what Hugging Face's classes remember of themselves, so that whoever asks them later changes nothing.

Hugging Face answers some questions about a class once, and keeps the answer in an attribute of that class. Whether it
is there tells only that somebody asked. What is filled in before a snapshot is Hugging Face's own answer, so that a
wrong answer that an adapter writes in its place differs from the snapshot, as every other change does.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
from collections.abc import Iterable

_READS_AN_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_TAKES_MORE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def fill_class_memos(kinds: Iterable[type]) -> None:
    """Ask classes every question whose answer Hugging Face keeps in the class.

    Args:
        kinds: the classes of a model's modules. Their bases are not asked: what a base remembers holds for every class
            that is derived from it, whatever that would answer itself.
    """
    for kind in kinds:
        for name in _memoized_questions(kind):
            # A question that cannot be answered of this class leaves nothing in it, whoever asks.
            with contextlib.suppress(Exception):
                getattr(kind, name)()


@functools.cache  # asked with each snapshot
def _memoized_questions(kind: type) -> list[str]:
    """Find by name the class methods of Hugging Face's that take nothing but their class and keep their answer in it.

    Such a method reads an attribute of its class and, where there is none, writes it.
    """
    names = (
        name for base in kind.__mro__ if base.__module__.partition(".")[0] == "transformers" for name in vars(base)
    )
    return [name for name in dict.fromkeys(names) if _keeps_its_answer(inspect.getattr_static(kind, name))]


def _keeps_its_answer(attribute: object) -> bool:
    code = getattr(attribute.__func__, "__code__", None) if isinstance(attribute, classmethod) else None
    if code is None or code.co_argcount != 1 or code.co_kwonlyargcount or code.co_flags & _TAKES_MORE:
        return False
    instructions = list(dis.get_instructions(code))
    written = {one.argval for one in instructions if one.opname == "STORE_ATTR"}
    # `cls.kept`, or `getattr(cls, "kept", None)`.
    read = {one.argval for one in instructions if one.opname in _READS_AN_ATTRIBUTE} | {*code.co_consts}
    return not written.isdisjoint(read)
