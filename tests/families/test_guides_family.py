"""The family that `docs/families.md` declares holds against Hugging Face, and its faults are caught."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from verifier import checks
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.checks.runner import run_case
from verifier.judging.outcome import Outcome, Verdict

GUIDE = Path(__file__).parents[2] / "docs" / "families.md"
MODULES = {
    found[1]: found[0]
    for found in re.findall(r"^```python\n(# (\w+)\.py\n.*?)^```$", GUIDE.read_text(), flags=re.M | re.S)
}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 4, "partial_rotary_factor": 0.25},
    "normed": {"num_key_value_heads": 4, "qk_layernorm": True, "partial_rotary_factor": 1.0},
}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The modules of the guide, by name."""
    folder = tmp_path_factory.mktemp("guide")
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr("sys.dont_write_bytecode", True)
        yield importlib.import_module


def outcomes(guide: Any, specs: list[CaseSpec], *chosen: str) -> list[Outcome]:
    family, adapter = guide("phi_family").PhiFamily(), guide("itself").Adapter()
    return [one for spec in specs for one in run_case(spec, family, adapter, checks.select(chosen))]


def cases(guide: Any) -> list[CaseSpec]:
    return list(matrix.cases(guide("phi_family").PhiFamily(), "phi_family:PhiFamily"))


def wrong(found: list[Outcome]) -> list[Any]:
    return [(one.check, one.where, one.message) for one in found if one.verdict.gates]


def test_its_adapter_draws_no_random_numbers_though_dropouts_act(guide: Any) -> None:
    family = guide("phi_family").PhiFamily()
    config = {**family.dims(), "resid_pdrop": 0.5}
    model = family.build(config, dtype=torch.float32, device="cpu", attention="sdpa", seed=0).train()
    before = torch.get_rng_state()
    guide("itself").Adapter().wrap(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_some_of_its_cases_hold_against_hugging_face(guide: Any) -> None:
    specs = [spec for spec in cases(guide) if spec.valid]
    found = outcomes(guide, [*specs[::9], *specs[-4:]], "reference", "forward.logits", "build.refusal")
    assert wrong(found) == []
    assert {"reference.taps", "forward.logits"} <= {one.check for one in found if one.verdict is Verdict.PASS}


@pytest.mark.slow
def test_all_of_its_cases_hold_against_hugging_face(guide: Any) -> None:
    assert wrong(outcomes(guide, [spec for spec in cases(guide) if spec.valid], "reference", "forward.logits")) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_its_taps_recompute_the_model_in_every_dtype(guide: Any, kind: str, dtype: torch.dtype) -> None:
    family = guide("phi_family").PhiFamily()
    config = {**family.DIMS, **KINDS[kind]}
    model = family.build(config, dtype=dtype, device="cpu", attention="sdpa", seed=0)
    ids = torch.randint(100, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth = family.build(config, dtype=torch.float64, device="cpu", attention="sdpa", seed=0)(ids).logits
        bare = model(ids).logits.double()
        with family.taps(model) as taps:
            tapped = model(ids).logits.double()
    assert {point.name for point in family.points(config)} == taps.values.keys()
    assert (tapped - bare).abs().max() <= 2 * (bare - truth).abs().max() + 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_of_its_scripts_shows_what_the_taps_read(guide: Any, kind: str) -> None:
    family = guide("phi_family").PhiFamily()
    config = {**family.DIMS, **KINDS[kind]}
    model = family.build(config, dtype=torch.float64, device="cpu", attention="sdpa", seed=0)
    ids, found, handles = torch.randint(100, (2, 7)), dict[str, Tensor](), []
    for point in family.points(config):
        source = family.point_source(config, point.name)
        if source is None:
            continue

        def hook(module: Any, args: Any, output: Any, name: str = point.name, value: str = source.value) -> None:
            names = {"model": model, "module": module, "args": args, "output": output, "torch": torch}
            found[name] = eval(value, names)

        handles.append(model.get_submodule(source.module).register_forward_hook(hook))
    with torch.no_grad():
        model(ids)
        for handle in handles:
            handle.remove()
        with family.taps(model) as taps:
            model(ids)
    assert {"blocks.1.attn.hook_q", "blocks.0.ln1.hook_scale", "blocks.1.mlp.hook_post"} <= found.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, taps.values[name], rtol=0.0, atol=1e-12, check_dtype=False)


def test_its_faults_are_caught(guide: Any) -> None:
    faulty = guide("faulty").PhiFamily()
    planted = faulty.faults()
    assert len(planted) == 2
    specs = [spec for spec in cases(guide) if spec.valid]
    spec = next(one for one in specs if one.config.get("qk_layernorm"))
    for fault in planted:
        family, adapter = fault.plant(faulty, guide("itself").Adapter())
        (outcome,) = run_case(spec, family, adapter, checks.select(fault.caught_by))
        assert outcome.verdict is Verdict.FAIL, fault.name
