"""The errors that a user of the bridge can meet; each message is one line."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class BridgeError(ValueError):
    """A wrong use of the bridge; the message says what is wrong, where, and what would be right."""


class BridgeRefusal(BridgeError):
    """The model cannot be bridged; the message says why."""


class HookError(BridgeError):
    """There is no hook point of that name, or a hook returned what cannot replace the tensor."""


class InputError(BridgeError):
    """The arguments of a forward do not fit together."""


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Make the message for an unknown name: ``no hook point 'x' (did you mean 'y'?)``.

    Args:
        kind: what the name would be of, such as `hook point`.
        name: the name that is unknown.
        known: the names that there are; the nearest is suggested.
    """
    by_spelling = {one.casefold(): one for one in reversed(list(known))}  # of hook_q and hook_Q the first is meant
    close = difflib.get_close_matches(name.casefold(), by_spelling, n=1, cutoff=0.0)
    return f"no {kind} {name!r}" + (f" (did you mean {by_spelling[close[0]]!r}?)" if close else "")
