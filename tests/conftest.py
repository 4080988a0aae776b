"""What every test stands on: the harness offline, on one thread, and the tiny models that are shared."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers

from verifier import adapter, family
from verifier.adapter import Adapter
from verifier.families.falcon import FalconFamily

collect_ignore = ["sample"]  # a project of its own, whose tests run in an environment of its own

# Tiny models: a second thread costs more than it gives.
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def falcon() -> FalconFamily:
    """The family that the harness's own tests run on."""
    found = family.load("falcon")
    assert isinstance(found, FalconFamily)
    return found


@pytest.fixture(scope="session")
def bridge() -> Adapter:
    """An adapter that is right, so that what a check finds in it is a wrong check."""
    return adapter.load("bridge")
