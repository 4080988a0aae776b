"""What can go wrong for a user of the bridge, in one line each."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class BridgeError(ValueError):
    """One line: what is wrong, where, and what would be right."""


class BridgeRefusal(BridgeError):
    """The model is one that cannot be bridged, and why."""


class HookError(BridgeError):
    """A hook point is named wrongly, or a hook gave back what cannot take the tensor's place."""


class InputError(BridgeError):
    """A forward was called with what does not fit together."""


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """The line for a name that nothing has: ``no hook point 'x' (did you mean 'y'?)``."""
    by_spelling = {one.casefold(): one for one in reversed(list(known))}  # of hook_q and hook_Q the first is meant
    close = difflib.get_close_matches(name.casefold(), by_spelling, n=1, cutoff=0.0)
    return f"no {kind} {name!r}" + (f" (did you mean {by_spelling[close[0]]!r}?)" if close else "")
