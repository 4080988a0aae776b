"""A family from outside, OPT, written from the guide alone: it holds against HF, and against TransformerLens.

It is in the sample package. What TransformerLens is found to do wrong is shown again here with no harness.
"""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from case_outcomes import apart, deep, outcomes
from sample_families.opt import OptFamily
from torch import Tensor
from torch.testing import assert_close
from transformers import OPTConfig, OPTForCausalLM

from verifier import checks, family
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.checks.runner import run_case
from verifier.judging.outcome import Outcome, Verdict

REFERENCE = "sample_families.opt:OptFamily"
SAMPLE = Path(__file__).parents[1] / "sample"
OPT = OptFamily()


def named(spec: CaseSpec) -> str:
    """The label of a corner; else the first letters of the flags, as `TFT`."""
    return spec.label or "".join(str(spec.config[flag])[0] for flag in OPT.FLAGS)


CASES = {named(spec): spec for spec in matrix.cases(OPT, REFERENCE)}
REFUSED = {"heads-not-divided", "heads-too-many"}


# --- the family against Hugging Face -----------------------------------------------------------------------------


def test_it_is_one_short_file() -> None:
    assert len((SAMPLE / "sample_families" / "opt.py").read_text().splitlines()) < 120


def test_it_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = tomllib.loads((SAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]["verifier.families"]
    info = tmp_path / "sample_lens-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-lens\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[verifier.families]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(family.load("opt"), OptFamily)


def test_what_is_listed_of_it_imports_no_torch() -> None:
    code = (
        f"import sys; sys.path.append({str(SAMPLE)!r}); import sample_families.opt; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_field_that_it_names_is_one_of_hfs_config() -> None:
    declared = (OPT.FLAGS, OPT.DIMS, OPT.DROPOUTS, OPT.FUZZED, *OPT.CORNERS.values(), *OPT.PRESETS.values())
    shapes = [fields for _, fields in OPT.SHAPES.values()]
    assert set(itertools.chain(*declared, *shapes)) <= OPTConfig().to_dict().keys()


def test_the_matrix_is_every_combination_of_the_flags_and_the_corners() -> None:
    assert len(CASES) == 2 ** len(OPT.FLAGS) + len(OPT.CORNERS)


def parameters() -> list[Any]:
    by_default = ("TTT", "FFF", *REFUSED)
    return [name if name in by_default else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


class Wrapped:
    """An adapter that wraps nothing: it stands where the checks of the reference look at none."""

    name, version = "none", "1"

    def wrap(self, model: Any) -> Any:
        raise AssertionError("no check of the reference wraps a model")


@pytest.mark.parametrize("name", parameters())
def test_it_conforms_to_hugging_face(name: str) -> None:
    found = list(run_case(CASES[name], OPT, Wrapped(), checks.select(["reference"])))
    verdicts = {one.check: one.verdict for one in found}
    assert verdicts["reference.acceptance"] is Verdict.PASS
    if name in REFUSED:
        return
    upstream = {check for check, verdict in verdicts.items() if verdict is Verdict.UPSTREAM}
    assert upstream == ({"reference.cache"} if name == "no-layers" else {"reference.attention"} & verdicts.keys())
    assert all(verdicts[check] is Verdict.PASS for check in verdicts.keys() - upstream), found


# --- the harness with it, against TransformerLens ----------------------------------------------------------------

FOUND = {  # on every config that HF accepts
    # Two rows that hold no position come first.
    ("weights.shapes", Verdict.FAIL),
    # Where a hook gives back another tensor, or gradients are read, norms are computed on another path: in other bits,
    # and not at all where they have no weight.
    ("hooks.identity", Verdict.FAIL),
    ("backward.identity", Verdict.FAIL),
    # A hook of gradients is in the graph of the forward, and acts after it was removed.
    ("hooks.removed", Verdict.FAIL),
}
FOUND_IN_LAYERS = {
    # Its config does not read how many hidden units there are.
    ("build.facts", Verdict.FAIL),
    # Refactoring the attention's matrices takes the biases for ones of the projections' heads.
    ("weights.processings", Verdict.ERROR),
    # Points inside HF's attention are silent where it attends by sdpa.
    ("hooks.fires", Verdict.FAIL),
    # The norm of the MLP shows all rows of the batch as one.
    ("hooks.axes", Verdict.FAIL),
    ("hooks.values", Verdict.FAIL),
    # What a hook is given is what torch keeps for the backward.
    ("backward.in_place", Verdict.FAIL),
}
# A copy of a hooked bridge keeps the hooks.
FOUND_IN_SAMPLED = {("state.copy_hooks", Verdict.FAIL)}
# Whatever edits a norm without a weight raises.
WITHOUT_WEIGHT = {
    ("hooks.identity", Verdict.FAIL): ("hooks.identity", Verdict.ERROR),
    ("state.copy_hooks", Verdict.FAIL): ("state.copy_hooks", Verdict.ERROR),
}
FOUND_IN_SAMPLED_WITHOUT_WEIGHT = {("backward.gradcheck", Verdict.ERROR)}


# In these circumstances of the plainest config, further checks look.
CIRCUMSTANCES: tuple[dict[str, str], ...] = (
    {},
    {"grad": "grad"},
    {"grad": "frozen"},
    {"mode": "train", "grad": "grad", "checkpointing": "on"},
    {"past": "token"},
    {"past": "generation"},
)
FOUND_IN_CIRCUMSTANCES = {
    # An edit of the stream between attention and MLP reaches the MLP's norm, and not the stream.
    ("intervene.effects", Verdict.FAIL),
    ("intervene.each_point", Verdict.FAIL),
    ("cache.generated_edits", Verdict.FAIL),
    # What is written into a normalized value in place is lost.
    ("intervene.layouts", Verdict.FAIL),
    # The two rows that hold no position.
    ("weights.current", Verdict.FAIL),
    ("backward.weights", Verdict.FAIL),
    # The cache is Hugging Face's, to which every forward adds.
    ("cache.repeated", Verdict.FAIL),
    # Under gradient checkpointing, hooks run again in the backward.
    ("hooks.shown", Verdict.FAIL),
    # No hook starts a graph where every parameter is frozen.
    ("hooks.graph", Verdict.FAIL),
    ("hooks.left", Verdict.FAIL),
    ("backward.shown", Verdict.FAIL),
    ("backward.effects", Verdict.FAIL),
    ("backward.nested", Verdict.FAIL),
}


@pytest.fixture(scope="module")
def lens() -> Any:
    pytest.importorskip("transformer_lens")
    from verifier_lens import LensAdapter

    return LensAdapter()


def findings(found: list[Outcome]) -> set[tuple[str, Verdict]]:
    """What is wrong of the adapter."""
    return {
        (one.check, one.verdict)
        for one in found
        if one.verdict.is_finding and not (one.check.startswith("reference") and one.verdict is Verdict.UPSTREAM)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TTT", "FFF", "three-layers", "gelu", "one-head", "d_head-1", "no-padding-token"])
def test_what_is_found_in_transformer_lens_is_this(name: str, lens: Any) -> None:
    spec = deep(CASES[name])
    found = outcomes(spec, OPT, lens)
    assert {one.check.partition(".")[0] for one in found} == set(checks.AREAS) - {"cache"}
    wanted = FOUND | FOUND_IN_LAYERS | (FOUND_IN_SAMPLED if spec.is_sampled else set())
    if not spec.config.get("layer_norm_elementwise_affine", True):
        wanted = {WITHOUT_WEIGHT.get(one, one) for one in wanted}
        wanted |= FOUND_IN_SAMPLED_WITHOUT_WEIGHT if spec.is_sampled else set()
    assert findings(found) == wanted


@pytest.mark.slow
def test_what_is_found_in_circumstances_is_this(lens: Any) -> None:
    spec = replace(CASES["TTT"], circumstances=CIRCUMSTANCES)
    found = list(run_case(spec, OPT, lens, checks.select([])))
    assert {one.check.partition(".")[0] for one in found} == set(checks.AREAS)
    assert findings(found) == FOUND | FOUND_IN_LAYERS | FOUND_IN_SAMPLED | FOUND_IN_CIRCUMSTANCES


@pytest.mark.slow
def test_without_layers_only_what_needs_none_is_found(lens: Any) -> None:
    assert findings(outcomes(CASES["no-layers"], OPT, lens)) == FOUND


# --- the same findings with no harness: torch, transformers and transformer_lens alone ---------------------------

SIZES = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2, "ffn_dim": 100, "vocab_size": 113}


def build(attention: str = "sdpa", **config: Any) -> Any:
    """HF's model in float64 and evaluation mode, every parameter random."""
    given = {"max_position_embeddings": 80, **SIZES, **config}
    model: Any = OPTForCausalLM(OPTConfig(**given, attn_implementation=attention)).double().eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(normal * parameter.shape[-1] ** -0.5)
    return model


def ids() -> Tensor:
    return torch.randint(2, SIZES["vocab_size"], (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def bridge_of(lens: Any) -> Any:
    """TransformerLens' own way of wrapping a model of HF's; nothing of the harness in it."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    return lambda model: build_bridge_from_module(model, "OPTForCausalLM", hf_config=model.config)


def shapes(bridge: Any, *names: str) -> dict[str, tuple[int, ...]]:
    """The shape of what each point shows; a silent one has none."""
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [(name, lambda value, hook: seen.update({hook.name: tuple(value.shape)})) for name in names]
    bridge.run_with_hooks(ids(), fwd_hooks=hooks)
    return seen


def test_its_logits_are_hugging_faces(bridge_of: Any) -> None:
    assert torch.equal(bridge_of(build())(ids()), build()(ids()).logits)


def test_its_config_says_four_times_the_width_whatever_the_hidden_units_are(bridge_of: Any) -> None:
    bridge = bridge_of(build())
    assert bridge.cfg.d_mlp == 4 * SIZES["hidden_size"]
    assert bridge.blocks[0].mlp.W_in.shape == (SIZES["hidden_size"], SIZES["ffn_dim"])


def test_its_position_embeddings_begin_with_two_rows_of_no_position(bridge_of: Any) -> None:
    bridge = bridge_of(build())
    assert len(bridge.pos_embed.W_pos) == 80 + 2
    assert torch.equal(bridge.W_pos, bridge.pos_embed.W_pos[2:])  # it knows, elsewhere
    seen: list[Tensor] = []
    bridge.run_with_hooks(ids(), fwd_hooks=[("hook_pos_embed", lambda value, hook: seen.append(value))])
    assert torch.equal(seen[0][0], bridge.pos_embed.W_pos[2 : 2 + 9])


def test_scores_and_pattern_are_silent_under_sdpa_and_the_attentions_input_always(bridge_of: Any) -> None:
    names = [f"blocks.0.attn.hook_{name}" for name in ("attn_scores", "pattern", "hidden_states")]
    assert shapes(bridge_of(build()), *names) == {}
    assert shapes(bridge_of(build("eager")), *names).keys() == set(names[:2])


def test_the_norm_of_the_mlp_shows_the_rows_of_the_batch_as_one(bridge_of: Any) -> None:
    ln2 = {name: f"blocks.0.ln2.hook_{name}" for name in ("in", "scale", "normalized")}
    assert shapes(bridge_of(build()), *ln2.values()) == {
        ln2["in"]: (3, 9, 48),
        ln2["scale"]: (3 * 9, 1),
        ln2["normalized"]: (3 * 9, 48),
    }


@torch.no_grad()
def test_an_edit_of_the_stream_between_attention_and_mlp_reaches_the_norm_alone(bridge_of: Any) -> None:
    ours = bridge_of(build()).run_with_hooks(
        ids(), fwd_hooks=[("blocks.0.hook_resid_mid", lambda value, hook: 2 * value)]
    )
    model, stream = build(), list[Tensor]()
    block = model.model.decoder.layers[0]
    block.final_layer_norm.register_forward_pre_hook(lambda _module, args: stream.append(args[0]) or (2 * args[0],))
    assert_close(ours, model(ids()).logits, rtol=0, atol=1e-12)
    block.register_forward_hook(lambda _module, _args, output: output + stream[-1].view_as(output))  # the other half
    assert apart(ours, model(ids()).logits) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("weighted", [True, False])
def test_a_norm_that_is_edited_is_computed_on_another_path_which_needs_a_weight(bridge_of: Any, weighted: bool) -> None:
    config = {"layer_norm_elementwise_affine": weighted}
    bridge, right = bridge_of(build(**config)), build(**config)(ids()).logits
    point = "blocks.0.ln1.hook_normalized"
    assert torch.equal(bridge.run_with_hooks(ids(), fwd_hooks=[(point, lambda value, hook: None)]), right)
    copied: Callable[[], Tensor] = lambda: bridge.run_with_hooks(  # noqa: E731
        ids(), fwd_hooks=[(point, lambda value, hook: value.clone())]
    )
    if not weighted:
        with pytest.raises(TypeError, match="'Tensor' and 'NoneType'"):
            copied()
        return
    assert 0 < apart(copied(), right) < 1e-12
    bridge.add_hook(point, lambda gradient, hook: None, dir="bwd")
    assert 0 < apart(bridge(ids()), right) < 1e-12


@torch.no_grad()
def test_what_is_written_into_a_normalized_value_is_lost_though_it_is_given_back(bridge_of: Any) -> None:
    bridge, point = bridge_of(build()), "blocks.0.ln1.hook_normalized"
    written = bridge.run_with_hooks(ids(), fwd_hooks=[(point, lambda value, hook: value.mul_(2))])
    another = bridge.run_with_hooks(ids(), fwd_hooks=[(point, lambda value, hook: 2 * value)])
    assert torch.equal(written, bridge(ids()))
    assert apart(another, written) > 1e-2


@pytest.mark.parametrize("point", ["attn.hook_z", "mlp.hook_post"])
def test_what_a_hook_may_write_into_is_kept_for_the_backward(bridge_of: Any, point: str) -> None:
    bridge = bridge_of(build())
    bridge.run_with_hooks(ids(), fwd_hooks=[(f"blocks.0.{point}", lambda value, hook: 2 * value)]).sum().backward()
    logits = bridge.run_with_hooks(ids(), fwd_hooks=[(f"blocks.0.{point}", lambda value, hook: value.mul_(2))])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logits.sum().backward()


def test_a_hook_of_gradients_acts_after_it_was_removed(bridge_of: Any) -> None:
    bridge, seen = bridge_of(build()), list[int]()
    bridge.add_hook("blocks.0.hook_resid_pre", lambda gradient, hook: seen.append(1), dir="bwd")
    logits = bridge(ids())
    bridge.reset_hooks()
    logits.sum().backward()
    assert seen == [1]


@torch.no_grad()
def test_a_copy_keeps_the_hooks_of_the_original(bridge_of: Any) -> None:
    bridge, seen = bridge_of(build()), list[int]()
    bridge.add_hook("hook_embed", lambda value, hook: seen.append(1))
    copied = copy.deepcopy(bridge)
    bridge.reset_hooks()
    copied(ids())
    assert seen == [1]


@torch.no_grad()
def test_going_on_from_a_cache_adds_to_it(bridge_of: Any) -> None:
    bridge = bridge_of(build())
    _, cache = bridge(ids()[:, :6], return_type="logits_and_cache", use_cache=True)
    first, second = (bridge(ids()[:, 6:], past_key_values=cache) for _ in range(2))
    assert cache.get_seq_length() == 6 + 2 * 3
    assert apart(first, second) > 1e-2


def test_under_checkpointing_a_hook_runs_again_in_the_backward(bridge_of: Any) -> None:
    model, seen = build(), list[int]()
    model.train().gradient_checkpointing_enable()
    bridge = bridge_of(model)
    bridge.add_hook("blocks.0.ln1.hook_scale", lambda value, hook: seen.append(1))
    logits = bridge(ids())
    assert seen == [1]
    logits.sum().backward()
    assert len(seen) > 1


def test_a_hook_of_gradients_starts_no_graph_where_all_is_frozen(bridge_of: Any) -> None:
    bridge, seen = bridge_of(build()), list[int]()
    bridge.requires_grad_(False)
    bridge.add_hook("blocks.0.hook_resid_pre", lambda gradient, hook: seen.append(1), dir="bwd")
    logits = bridge(ids())
    assert not logits.requires_grad
    assert not seen


@pytest.mark.parametrize(("biased", "error"), [(True, IndexError), (False, AssertionError)])
def test_refactoring_attention_alone_fails(bridge_of: Any, biased: bool, error: type[Exception]) -> None:
    flags = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
    bridge = bridge_of(build(enable_bias=biased))
    with pytest.raises(error):
        bridge.enable_compatibility_mode(
            disable_warnings=True, refactor_factored_attn_matrices=True, **dict.fromkeys(flags, False)
        )


# --- where Hugging Face disagrees with itself --------------------------------------------------------------------


@torch.no_grad()
def test_hfs_eager_attention_is_no_number_in_float64_under_left_padding_nor_is_a_bridge_that_follows_it(
    bridge_of: Any,
) -> None:
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]]).expand(3, 9)
    sdpa, eager = (build(path)(ids(), attention_mask=mask).logits for path in ("sdpa", "eager"))
    assert sdpa[mask.bool()].isfinite().all()
    assert not eager[mask.bool()].isfinite().all()
    assert_close(bridge_of(build("eager"))(ids(), attention_mask=mask), eager, rtol=0, atol=1e-12, equal_nan=True)
    assert bridge_of(build())(ids(), attention_mask=mask)[mask.bool()].isfinite().all()


@torch.no_grad()
def test_without_layers_hf_does_not_know_how_long_a_cached_text_is() -> None:
    model, mask = build(num_hidden_layers=0), torch.ones_like(ids())
    cache = model(ids()[:, :6], attention_mask=mask[:, :6], use_cache=True).past_key_values
    assert cache.get_seq_length() == 0
    with pytest.raises(RuntimeError, match="size of tensor a"):
        model(ids()[:, 6:], attention_mask=mask, past_key_values=cache)
