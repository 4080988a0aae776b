"""A family's whole config space as a strategy, for whoever tests with Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from verifier import family as families
from verifier.errors import UsageError
from verifier.fuzz.fields import space
from verifier.output.text import value


def configs_of(family: str) -> Callable[..., SearchStrategy[Any]]:
    """The strategy of that family's configs, as a function of what is fixed.

    Raises:
        UsageError: there is no such family.
    """
    families.load(family)

    def configs(*, valid: bool = True, as_dict: bool = False, **fixed: Any) -> SearchStrategy[Any]:
        """Configs of the family, over everything that varies in it; they shrink towards the plainest one.

        Args:
            valid: whether all of them are such as Hugging Face accepts; otherwise some are not.
            as_dict: whether they are dicts and not Hugging Face's config objects.
            fixed: fields that are to have one value: `alibi=True`.

        Raises:
            UsageError: a field that is to be fixed, or its value, is not known.
        """
        return configs_in(family, valid=valid, as_dict=as_dict, fixed=fixed)

    configs.__name__ = configs.__qualname__ = f"{family}_configs"
    return configs


def configs_in(
    family: str, *, valid: bool = True, as_dict: bool = False, fixed: dict[str, Any] | None = None
) -> SearchStrategy[Any]:
    """As `configs_of` gives, of a family by name.

    Raises:
        UsageError: there is no such family, or a field that is to be fixed, or its value, is not known.
    """
    described = families.load(family)
    texts = {name: value(wanted) for name, wanted in (fixed or {}).items()}
    everything = space(described, family, fixed=texts)
    own = [field.name for field in everything.fields if field.of_case]
    for name in texts:
        if name in own:
            raise UsageError(f"{name!r} is no field of a config, but of a case: its inputs and how they are run")
    # What is the case's own, and not the config's, stays plain.
    places = [st.just(0) if field.of_case else st.integers(0, len(field.values) - 1) for field in everything.fields]
    found = st.tuples(*places).map(lambda choice: dict(everything.spec(choice).config))
    if valid:
        found = found.filter(lambda config: described.refusal(config) is None)
    if as_dict:
        return found
    return found.map(lambda config: _made(described.architecture, config))


def _made(architecture: str, config: dict[str, Any]) -> Any:
    """Hugging Face's config object, of the class that its model class names."""
    import transformers

    return getattr(transformers, architecture).config_class(**config)
