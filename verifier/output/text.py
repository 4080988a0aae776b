"""Spell values and texts from outside for people: on one line, cut to size, and harmless."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from verifier.errors import ExitStatus
from verifier.errors import visible as visible

LINE_LIMIT = 400
DETAIL_LIMIT = 6_000

_NOT_IN_AN_ID = re.compile("[^A-Za-z0-9_.-]")

_CODE = re.compile("`([^`]+)`")

STATUS_WORDS: Mapping[ExitStatus, str] = {
    ExitStatus.CONFORMS: "CONFORMS",
    ExitStatus.DIFFERS: "DOES NOT CONFORM",
    ExitStatus.USAGE: "NOT RUN",
    ExitStatus.BROKEN: "BROKEN OFF",
    ExitStatus.INCONCLUSIVE: "INCONCLUSIVE",
    ExitStatus.INTERRUPTED: "INTERRUPTED",
}


def line(text: str | None, limit: int = LINE_LIMIT) -> str:
    """Put a text on one line of at most `limit` characters.

    Args:
        text: what to put on the line; None counts as empty.
        limit: the largest number of characters.

    Returns:
        The line; one that is too long ends with `…`.
    """
    one = visible(" ".join((text or "")[: 4 * limit].split()))
    return one if len(one) <= limit else one[: limit - 1] + "…"


def anchor(text: str) -> str:
    """Make an id of a text, for a page and its address."""
    return _NOT_IN_AN_ID.sub("_", text)


def detail(text: str | None, limit: int = DETAIL_LIMIT) -> str:
    """Cut a longer text to its end, where a traceback says what happened.

    Args:
        text: what to cut; None counts as empty.
        limit: how many characters of its end are kept.

    Returns:
        The end, after a line that says how many characters were left out, if any were.
    """
    kept = (text or "")[-limit:]
    left_out = len(text or "") - len(kept)
    return (f"… {left_out:,} characters left out …\n" if left_out else "") + visible(kept).strip("\n")


def value(one: Any) -> str:
    """Spell a value of a config as `--where` takes it: `true`, `none`, `4`."""
    if one is None:
        return "none"
    if isinstance(one, bool):
        return "true" if one else "false"
    if isinstance(one, list | tuple):
        return ",".join(value(item) for item in one)
    return line(str(one), 80)


def config(values: Mapping[str, Any]) -> str:
    """Spell the fields of a config: `alibi=true num_kv_heads=4`."""
    return " ".join(f"{line(name, 80)}={value(one)}" for name, one in values.items())


def marked(text: str | None, limit: int = LINE_LIMIT) -> Markup:
    """Write a text for a page, with what stands between backticks as code.

    Args:
        text: what to write; None counts as empty.
        limit: the largest number of characters of the text, before it is escaped.

    Returns:
        One line of HTML.
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(line(text, limit)))))


def subject(adapter: str, name: str, version: str) -> str:
    """Name an adapter as it was asked for, and as it calls itself if that differs: `mine:Adapter (mine 1.0)`.

    Args:
        adapter: the reference by which the adapter was asked for.
        name: what it calls itself.
        version: the version that it says it has.
    """
    return line(adapter) if adapter == name else f"{line(adapter)} ({line(name, 60)} {line(version, 60)})"


def number(measured: float | None) -> str:
    """Spell an error or a bound with three digits; an empty text for None."""
    return "" if measured is None else f"{measured:.3g}"


def plural(count: int, word: str, words: str | None = None) -> str:
    """Spell a number of things: `1 case`, `1,200 cases`.

    Args:
        count: how many there are.
        word: what one of them is called.
        words: what several are called; by default the word with an `s`.
    """
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def first_of(texts: Sequence[str], most: int, between: str = ", ", last: str = " and ") -> str:
    """Join the first of several texts, and say how many more there are: `a, b and 3 more`.

    Args:
        texts: all of them.
        most: how many are shown.
        between: what stands between two that are shown.
        last: what stands before the number of the others.
    """
    shown = between.join(texts[:most])
    return shown if len(texts) <= most else f"{shown}{last}{len(texts) - most:,} more"


def duration(seconds: float) -> str:
    """Spell a time that is given in seconds: `32 ms`, `8.4 s`, `48 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Spell a number of bytes: `512 MiB`, `2 GiB`."""
    return f"{count / 2**30:g} GiB" if count >= 2**30 else f"{count / 2**20:g} MiB"


def limits(found: Mapping[str, Any]) -> str:
    """Spell the limits of a case: `1 min 0 s, and 2 GiB memory on top of what the process had`."""
    seconds, memory = found.get("timeout"), found.get("memory")
    time = "any time" if seconds is None else duration(seconds)
    return f"{time}, and {'any' if memory is None else size(memory)} memory on top of what the process had"


def versions(found: Mapping[str, str], names: Sequence[str] = ()) -> str:
    """Spell the versions of some distributions, by default of all: `transformers 5.23.0 · torch 2.13.0`.

    Args:
        found: the versions by distribution.
        names: the distributions wanted, in order; one without a version is left out.
    """
    return " · ".join(f"{name} {found[name]}" for name in (names or found) if name in found)


def nearest(word: str, known: Sequence[str]) -> str:
    """Suggest the known word that is nearest: ` (did you mean …?)`; an empty text where none is near.

    Args:
        word: what somebody wrote.
        known: the words that could have been meant.
    """
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
