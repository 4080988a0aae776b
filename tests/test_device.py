"""What needs an accelerator; elsewhere it is skipped, with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from verifier import adapter, checks, family
from verifier.cases import matrix
from verifier.checks.runner import run_case

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_the_right_adapter_conforms_on_it() -> None:
    falcon, bridge = family.load("falcon"), adapter.load("bridge")
    (spec,) = [one for one in matrix.cases(falcon, "falcon") if one.label == "sixteen-heads-grouped-alibi"]
    outcomes = list(run_case(replace(spec, device="cuda"), falcon, bridge, checks.select([])))
    assert [one for one in outcomes if one.verdict.gates] == []
    assert any(one.check == "forward.logits" and one.measured for one in outcomes)
