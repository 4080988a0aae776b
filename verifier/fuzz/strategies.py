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
from verifier.reference.acceptance import refusal_of


def configs_of(family: str) -> Callable[..., SearchStrategy[Any]]:
    """Make the strategy of a family's configs, as a function of what is fixed.

    Raises:
        UsageError: there is no such family.
    """
    described = families.load(family)

    def configs(*, valid: bool = True, as_dict: bool = False, **fixed: Any) -> SearchStrategy[Any]:
        """Configs of the family, over everything that varies in it; they shrink towards the plainest one.

        Args:
            valid: whether Hugging Face accepts all of them; otherwise it refuses some.
            as_dict: whether they are dicts and not Hugging Face's config objects.
            fixed: fields that are to have one value: `alibi=True`.

        Raises:
            UsageError: a field that is to be fixed, or its value, is not known.
        """
        everything = space(described, family, fixed={name: value(wanted) for name, wanted in fixed.items()})
        for field in everything.fields:
            if field.of_case and field.name in fixed:
                raise UsageError(
                    f"{field.name!r} is no field of a config, but of a case: its inputs and how they are run"
                )
        # What is the case's own, and not the config's, stays plain.
        places = [st.just(0) if field.of_case else st.integers(0, len(field.values) - 1) for field in everything.fields]
        dicts = st.tuples(*places).map(lambda choice: dict(everything.spec(choice).config))
        if valid:
            refusal = refusal_of(described, asks=True)
            dicts = dicts.filter(lambda config: refusal(config) is None)
        return dicts if as_dict else dicts.map(lambda config: _make_config(described.architecture, config))

    configs.__name__ = configs.__qualname__ = f"{family}_configs"
    return configs


def _make_config(architecture: str, config: dict[str, Any]) -> Any:
    """Make Hugging Face's config object, of the class that its model class names."""
    import transformers

    return getattr(transformers, architecture).config_class(**config)
