"""Choose how long the texts of a circumstance are, so that a model has a position for each of their tokens.

A model that learns a vector for each position has none for a longer text, and raises. Everything that is called with a
text is called with what is chosen here: the text itself, what comes after its cache, what is generated after it and the
longer text of an earlier call. A text is shortened where a shorter one is still what the circumstance says. Otherwise
the circumstance cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from verifier.cases.circumstance_configs import changed_config
from verifier.cases.circumstances import Circumstance, steps
from verifier.cases.spec import SHORTEST, CaseSpec
from verifier.errors import UsageError
from verifier.family import Config, Family, TellsLongestText, longest_text_of

SHORT, MULTIPLE, LONG = 7, 32, 70
"""Tokens of a short text, of one whose length is a multiple of 16, and of one beyond 64."""

NEW_TOKENS: Mapping[str, int] = {"chunk": 3, "token": 1, "cropped": 1}
"""How many tokens come after a cache."""

GENERATED = 3
"""How many tokens are generated after a text."""

GENERATED_BEFORE = 2
"""How many tokens an earlier call generates after a text."""

CROPPED = 4
"""How many positions a cache that is cropped had more."""

_FAR = 513  # so far that a rotary frequency which was rounded to half precision is another angle
_BEYOND = 64  # what long texts and far positions are longer than
_LARGEST_STEP = 3  # between two positions that are given
_ALIKE = 16  # what a text of the length `multiple` is a multiple of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many positions the texts of a circumstance take.

    Attributes:
        text: tokens of the text; where something comes after a cache, of the prompt in it.
        new: how many tokens come after a cache.
        cropped: how many positions more a cache had before it was cropped.
        first_far: the first of the positions that are far.
        most_shift: by how much given positions may differ from the default ones, alike in a row; None where they may
            differ by more with each token.
    """

    text: int
    new: int
    cropped: int
    first_far: int
    most_shift: int | None


def choose_lengths(circumstance: Circumstance, *, most: int | None, longest: int | None) -> Lengths | None:
    """Choose the lengths of a circumstance's texts.

    - A text of the length `multiple` may be the shorter multiple of 16, and one of the length `long` is shortened down
      to 65 tokens. `short` and `one` are short enough for every family's model, or the model is too small for it.
    - `beyond` is longer than the config's maximum, so that no shorter text is.
    - Positions that are `given` jump from token to token where there is room; otherwise a whole row is shifted, which
      the default positions are not either. `far` ones begin as far as there is room, beyond 64.

    Args:
        circumstance: a value for each axis.
        most: the most positions of the config; None where it names none.
        longest: how many positions the model has; None where there is no limit.

    Returns:
        The lengths; None where the model has too few positions for such a circumstance.
    """
    past, length = circumstance["past"], circumstance["length"]
    new, cropped = NEW_TOKENS.get(past, 0), CROPPED if past == "cropped" else 0
    usual = {"short": SHORT, "one": 1, "multiple": MULTIPLE, "long": LONG, "beyond": SHORT + (most or LONG)}[length]
    found = Lengths(text=usual, new=new, cropped=cropped, first_far=_FAR, most_shift=None)
    if longest is None:
        return found
    room = longest - _positions_after(circumstance)
    text = {"multiple": min(usual, room // _ALIKE * _ALIKE), "long": min(usual, room)}.get(length, usual)
    if text > room or text < {"multiple": _ALIKE, "long": _BEYOND + 1}.get(length, 1):
        return None
    farthest = text + max(new, cropped)
    first_far = min(_FAR, longest - farthest - 1)  # one is left for rows that begin one position later
    if circumstance["positions"] == "far" and first_far <= _BEYOND:
        return None
    jumps = _LARGEST_STEP * (text + new) + cropped < longest
    return replace(
        found, text=text, first_far=first_far, most_shift=None if jumps else min(_LARGEST_STEP, longest - farthest)
    )


def _positions_after(circumstance: Circumstance) -> int:
    """How many positions a model must have beyond those of the text."""
    past, history = circumstance["past"], steps(circumstance["history"])
    new = NEW_TOKENS.get(past, 0)
    # The texts of earlier calls are as long as what is looked at, and at least two tokens.
    earlier = new + (1 if circumstance["length"] == "one" and not new else 0)
    return max(
        new,
        CROPPED if past == "cropped" else 0,
        GENERATED if past == "generation" else 0,
        earlier + GENERATED_BEFORE if "generated" in history else 0,
        earlier + 1 if "longer" in history else 0,
    ) + (1 if circumstance["positions"] == "given" else 0)


def lack_of_positions(family: Family, config: Config, circumstance: Circumstance) -> str | None:
    """Say why a model has too few positions for a circumstance; None if it has enough.

    Args:
        family: of the config.
        config: the flags and dims of a case.
        circumstance: a value for each axis.
    """
    if not isinstance(family, TellsLongestText):
        return None
    changed = changed_config(family, config, circumstance)
    longest = family.longest_text(changed)
    if longest is None or choose_lengths(circumstance, most=most_positions(changed), longest=longest) is not None:
        return None
    return f"the model has {longest} positions, and the circumstance needs more"


def most_positions(config: Config) -> int | None:
    """Give the maximum of positions that a config names; None where it names none.

    Args:
        config: the flags and dims of the model.
    """
    most = config.get("max_position_embeddings")
    return most if isinstance(most, int) else None


def shorten_inputs(family: Family, spec: CaseSpec) -> CaseSpec:
    """Shorten the inputs of a case so far that its model has positions for them and for what is generated after them.

    Args:
        family: of the case.
        spec: the case.

    Raises:
        UsageError: the model has too few positions for any inputs.
    """
    longest = longest_text_of(family, spec.config) if spec.valid else None
    if longest is None:
        return spec
    if longest < SHORTEST + GENERATED:
        raise UsageError(
            f"{family.name}: a model of {longest} positions is too small; a config must have at least "
            f"{SHORTEST + GENERATED}"
        )
    return replace(spec, length=min(spec.length, longest - GENERATED), long=min(spec.long, longest))
