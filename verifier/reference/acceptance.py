"""Whether Hugging Face accepts a config: the family's predicate says it, or a kept answer, or HF is asked.

Everybody who wants to know asks here. Nothing here imports torch before HF itself is to be asked, which only those do
who say so: `ask_here`, and whoever is inside `answered_by`. A config of which nobody knows is taken for accepted, until
its case runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from verifier.family import Config, Family, predicate_of
from verifier.reference.kept_answers import Acceptance, asked_by, find_answer

Answerer = Callable[[Family, Config], Acceptance]

_ANSWERER: ContextVar[Answerer | None] = ContextVar("answerer", default=None)


@contextlib.contextmanager
def answered_by(answerer: Answerer) -> Iterator[None]:
    """Have a function answer, inside the block, what neither a predicate nor a kept answer says.

    Args:
        answerer: it is given the family and the config; what it knows it also keeps.
    """
    token = _ANSWERER.set(answerer)
    try:
        yield
    finally:
        _ANSWERER.reset(token)


def look_up(family: Family, config: Config) -> Acceptance:
    """Say whether Hugging Face accepts a config, if that is known.

    Args:
        family: whose config it is.
        config: the flags and dims of the model.

    Raises:
        Exception: the family's predicate raised, or the config holds what JSON cannot spell.
    """
    predicate = predicate_of(family)
    if predicate is not None:
        return Acceptance(reason=predicate.refusal(config))
    found, answerer = find_answer(asked_by(family), config), _ANSWERER.get()
    return found if found.known or answerer is None else answerer(family, config)


def ask_here(family: Family, config: Config) -> Acceptance:
    """Ask Hugging Face about a config in this process, which imports torch; see `asking.ask`."""
    from verifier.reference.asking import ask

    return ask(family, config)


def refusal_of(family: Family, *, asks: bool = False) -> Callable[[Config], str | None]:
    """Give the function that says why Hugging Face refuses a config of a family.

    Args:
        family: the family.
        asks: whether HF is asked in this process where nothing else says it.

    Returns:
        A function that gives the reason; None where the config is accepted, or nothing is known of it.
    """

    def refusal(config: Config) -> str | None:
        found = look_up(family, config)
        return (ask_here(family, config) if asks and not found.known else found).reason

    return refusal
