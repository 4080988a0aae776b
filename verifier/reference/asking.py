"""Ask Hugging Face whether it accepts a config: build a tiny random model of it, and run it once."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from verifier.adapter import Inputs
from verifier.errors import all_but_interrupts, one_line
from verifier.family import Config, Family, longest_text_of
from verifier.judging.outcome import as_text
from verifier.judging.raising import passed_hugging_face
from verifier.reference.kept_answers import ACCEPTED, UNKNOWN, Acceptance, asked_by, find_answer, keep_answer
from verifier.reference.models import forward
from verifier.reference.process_state import preserve_random_states
from verifier.reference.snapshots import changed_since_first

# A question takes some milliseconds and some MiB; a model of more than this is built for its own case alone.
MOST_WEIGHTS = 2**22
MOST_LAYERS = 2**6

_ROWS, _LENGTH = 5, 11  # as a case has them, where the model has positions for so many


def ask(family: Family, config: Config) -> Acceptance:
    """Say whether Hugging Face accepts a config: HF is asked if no answer is kept, and the answer is kept.

    HF accepts a config if a model of it is built in float32 on the CPU and runs once. A model that is not tiny is not
    built. What the family or the harness raises is no answer of HF's: its case runs, and tells it.

    Args:
        family: builds the model.
        config: the flags and dims of the model.

    Returns:
        The answer; `UNKNOWN` where the model is not tiny, or something other than HF failed.
    """
    found = find_answer(asked_by(family), config)
    if not found.known:
        found = _ask(family, config)
        if found.known:
            # An adapter that changed HF's own code may have changed the answer too.
            keep_answer(asked_by(family), config, found, on_disk=not changed_since_first(family))
    return found


@preserve_random_states()  # a family may let HF draw weights
def _ask(family: Family, config: Config) -> Acceptance:
    if not _is_tiny(family.architecture, config):
        return UNKNOWN
    try:
        model = family.build(config, dtype=torch.float32, device="cpu", attention=family.reference_attention, seed=0)
        with torch.no_grad():
            longest = longest_text_of(family, config)
            length = _LENGTH if longest is None else min(_LENGTH, longest)
            forward(model, Inputs(input_ids=torch.zeros(_ROWS, length, dtype=torch.long)))
    except all_but_interrupts() as error:
        return Acceptance(reason=str(as_text(one_line(error)))) if passed_hugging_face(error) else UNKNOWN
    return ACCEPTED


def _is_tiny(architecture: str, config: Config) -> bool:
    """Whether a model takes next to no memory and time: it is laid out without memory, and its weights are counted.

    Where HF cannot do that, because it refuses the config or computes with weights as it builds, the numbers of the
    config decide.
    """
    model_class: Any = getattr(transformers, architecture, None)
    try:
        given = model_class.config_class(**copy.deepcopy(dict(config)))
        if given.num_hidden_layers > MOST_LAYERS:
            return False
        with torch.device("meta"), no_init_weights():
            weights = sum(one.numel() for one in model_class._from_config(given).parameters())
    except all_but_interrupts():
        numbers = sorted(abs(one) for one in config.values() if isinstance(one, int))
        # A model has at most some matrices a layer, and no matrix is larger than its two largest dims.
        return len(numbers) < 2 or numbers[-1] * numbers[-2] <= MOST_WEIGHTS / MOST_LAYERS
    return bool(weights <= MOST_WEIGHTS)
