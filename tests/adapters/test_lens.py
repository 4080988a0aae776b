"""`transformer-lens` over tiny Falcon (old multi-query, rotary, parallel), GPT-2 and Llama models, against HF."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

if importlib.util.find_spec("transformer_lens") is None:
    pytest.skip('TransformerLens is not installed: pip install "adapter-verifier[lens]"', allow_module_level=True)

import torch
from tiny_models import build_tiny
from torch.testing import assert_close
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from verifier_lens import LensAdapter
from verifier_lens.processing import WHOLE

from verifier.adapter import (
    CHANGES,
    LOG_PROBABILITIES,
    LOGITS,
    AdapterRefusal,
    Inputs,
    Subject,
    is_adapter,
    offered_points,
)
from verifier.canonical import KINDS, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier_lens.subject import LensSubject

LAYERS, HEADS, D_HEAD, D_MODEL, VOCAB = 2, 6, 4, 24, 37
KV_HEADS = {"falcon": 1, "gpt2": HEADS, "llama": 2}
D_MLP = {"falcon": 4 * D_MODEL, "gpt2": 4 * D_MODEL, "llama": 28}
ALL = ("falcon", "gpt2", "llama")
# TransformerLens takes Llama's softmax in float32, so it agrees with HF's sdpa only to that.
FLOAT64 = {"falcon": 1e-12, "gpt2": 1e-12, "llama": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """HF's model in evaluation mode, every parameter random. Untyped, as its submodules are."""
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model: Any
        if name == "falcon":
            sizes |= {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "alibi": False}
            model = FalconForCausalLM(FalconConfig(hidden_size=D_MODEL, bias=False, **sizes))
        elif name == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_embd=D_MODEL, n_positions=32, **sizes))
        else:
            sizes |= {"num_key_value_heads": KV_HEADS[name], "intermediate_size": D_MLP[name]}
            model = LlamaForCausalLM(LlamaConfig(hidden_size=D_MODEL, max_position_embeddings=32, **sizes))
    finally:
        torch.set_default_dtype(before)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def both(name: str, dtype: torch.dtype = torch.float64) -> tuple[LensSubject, Any]:
    """The subject, and HF's untouched model of the same weights."""
    return LensAdapter().wrap(build(name, dtype)), build(name, dtype)


def ids(batch: int = 2, pos: int = 9) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, pos), generator=torch.Generator().manual_seed(7))


def handles(subject: LensSubject) -> int:
    """How many functions hang on the bridge's hook points."""
    points = {id(point): point for point in subject.bridge.hook_points()}.values()
    ours = sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in points)
    assert ours == sum(len(point._forward_hooks) + len(point._backward_hooks) for point in points)
    return ours


def test_it_is_an_adapter_of_the_installed_version() -> None:
    adapter = LensAdapter()
    assert is_adapter(adapter)
    assert adapter.version == importlib.metadata.version("transformer_lens")


@pytest.mark.slow
def test_an_architecture_that_transformer_lens_lacks_is_refused_by_name() -> None:
    unheard_of = type("UnheardOfForCausalLM", (LlamaForCausalLM,), {})
    model = unheard_of(build("llama").config)
    with pytest.raises(AdapterRefusal, match="UnheardOfForCausalLM"):
        LensAdapter().wrap(model)


@pytest.mark.parametrize("name", ALL)
def test_wrapping_changes_nothing_undeclared_and_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = build(name)
    before = build(name)
    classes = {type(module): dict(vars(type(module))) for module in model.modules()}
    given = dict(model.named_parameters())
    config = copy.deepcopy(model.config.__dict__)
    subject = LensAdapter().wrap(model)
    assert isinstance(subject, Subject)
    assert subject.declared_mutations <= set(CHANGES)
    assert "".join(capfd.readouterr()) == ""
    kept = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in kept for parameter in given.values())
    for key, value in before.named_parameters():
        assert_close(given[key], value, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.__dict__ == config
    assert not any(module.training for module in model.modules())
    assert all(dict(vars(kind)) == state for kind, state in classes.items())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forward_is_hf(name: str, dtype: torch.dtype) -> None:
    subject, model = both(name, dtype)
    bound = FLOAT64[name] if dtype is torch.float64 else 1e-4
    assert_close(subject.forward(Inputs(input_ids=ids())).logits, model(ids()).logits, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ALL)
def test_forward_passes_on_every_input(name: str) -> None:
    subject, model = both(name)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, 7:] = 0
    arguments: dict[str, Any] = {"attention_mask": mask, "position_ids": torch.arange(3, 12).expand(2, 9)}
    embeds = torch.randn(2, 9, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = model(inputs_embeds=embeds, **arguments).logits
    actual = subject.forward(Inputs(inputs_embeds=embeds, **arguments)).logits
    assert_close(actual[mask == 1], expected[mask == 1], rtol=0, atol=FLOAT64[name])
    assert not torch.allclose(expected, model(inputs_embeds=embeds).logits)


@pytest.mark.parametrize("name", ALL)
def test_loss_is_of_the_given_labels(name: str) -> None:
    subject, model = both(name)
    labels = ids().clone()
    labels[:, 2:5] = -100
    output = subject.forward(Inputs(input_ids=ids(), labels=labels))
    # HF's loss is taken in float32 whatever the model's dtype.
    assert output.loss is not None
    assert_close(output.loss.float(), model(ids(), labels=labels).loss.float(), rtol=0, atol=1e-5)
    of_all = subject.forward(Inputs(input_ids=ids(), labels=ids())).loss
    assert of_all is not None
    assert not torch.allclose(output.loss, of_all)


def test_loss_and_cache_together_are_not_to_be_had() -> None:
    subject, _ = both("gpt2")
    with pytest.raises(AdapterRefusal, match="not both"):
        subject.forward(Inputs(input_ids=ids(), labels=ids(), use_cache=True))


@pytest.mark.parametrize("name", ALL)
def test_cached_steps_are_the_full_forward(name: str) -> None:
    subject, model = both(name)
    assert subject.cache is not None
    cache, logits = None, []
    for chunk in (ids()[:, :4], ids()[:, 4:5], ids()[:, 5:]):
        output = subject.forward(Inputs(input_ids=chunk, cache=cache, use_cache=True))
        cache = output.cache
        logits.append(output.logits)
    assert_close(torch.cat(logits, dim=1), model(ids()).logits, rtol=0, atol=FLOAT64[name])


@pytest.mark.parametrize("name", ALL)
def test_generate_is_greedy_hf(name: str) -> None:
    subject, model = both(name)
    expected = ids(pos=4)
    for _ in range(5):
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(subject.cache.generate(ids(pos=4), max_new_tokens=5), expected)


@pytest.mark.parametrize("name", ALL)
def test_every_canonical_kind_that_the_architecture_has_is_named(name: str) -> None:
    subject, _ = both(name)
    absent = {
        "falcon": {"hook_resid_mid", "ln2.hook_scale", "ln2.hook_normalized", "mlp.hook_pre_linear"},
        "gpt2": {"attn.hook_rot_q", "attn.hook_rot_k", "mlp.hook_pre_linear"},
        "llama": set[str](),
    }[name]
    # Norms in further places, and experts, which none of them has.
    further = ("embed_ln.", "_norm.", "_normed", "_post.", "router", "expert")
    kinds = {kind.template for kind in KINDS if not any(part in kind.template for part in further)}
    canonical = {template_of(key) for key, info in subject.hooks.names().items() if info.alias_of is None}
    wanted = kinds - {f"blocks.{{i}}.{point}" for point in absent} - ({"hook_pos_embed"} if name != "gpt2" else set())
    assert canonical & {kind.template for kind in KINDS} == wanted


@pytest.mark.parametrize("name", ALL)
def test_a_table_of_rotary_positions_is_no_position_embedding(name: str) -> None:
    names = both(name)[0].hooks.names()
    assert names["hook_pos_embed"].alias_of == (None if name == "gpt2" else "rotary_emb.hook_out")


def test_every_key_of_the_hook_dict_is_named_and_aliases_name_the_canonical_one() -> None:
    subject, _ = both("llama")
    names, points = subject.hooks.names(), subject.bridge.hook_dict
    assert set(names) == set(points)
    assert names["blocks.1.hook_resid_pre"].alias_of is None
    assert names["blocks.1.hook_in"].alias_of == "blocks.1.hook_resid_pre"
    assert names["blocks.1.attn.hook_q"].native_name == "blocks.1.attn.q.hook_out"
    assert names["blocks.0.mlp.hook_pre"].native_name == "blocks.0.mlp.gate.hook_out"
    assert names["blocks.0.mlp.hook_pre_linear"].native_name == "blocks.0.mlp.in.hook_out"
    assert names["blocks.0.hook_q_input"].alias_of == "blocks.0.attn.hook_q_input"
    primaries = [key for key, info in names.items() if info.alias_of is None]
    assert len(primaries) == len({id(point) for point in points.values()})
    assert all(points[info.alias_of] is points[key] for key, info in names.items() if info.alias_of)


@pytest.mark.parametrize("name", ALL)
def test_a_gated_point_fires_only_while_switched(name: str) -> None:
    subject, _ = both(name)
    point = "blocks.1.attn.hook_result"
    assert subject.hooks.names()[point].switch == "use_attn_result"
    seen: list[tuple[int, ...]] = []
    with subject.hooks.switched({point}), subject.hooks.hooked({point: lambda t: seen.append(tuple(t.shape))}, {}):
        subject.forward(Inputs(input_ids=ids()))
    assert seen == [(2, 9, HEADS, D_MODEL)]
    assert subject.bridge.cfg.use_attn_result is False
    with pytest.raises(ValueError, match="use_attn_result"), subject.hooks.hooked({point: lambda t: None}, {}):
        pass


def test_switches_that_exclude_each_other_raise_and_are_turned_back() -> None:
    subject, _ = both("gpt2")
    with (
        pytest.raises(ValueError, match="mutually exclusive"),
        subject.hooks.switched({"blocks.0.hook_q_input", "blocks.0.hook_attn_in", "blocks.0.hook_mlp_in"}),
    ):
        pass
    config = subject.bridge.cfg
    assert [config.use_attn_in, config.use_split_qkv_input, config.use_hook_mlp_in] == [False, False, False]


@pytest.mark.parametrize("architecture", ["OPTForCausalLM", "Llama4ForCausalLM"])
def test_points_whose_switch_is_refused_for_an_architecture_are_not_offered_each_by_itself(architecture: str) -> None:
    subject = LensAdapter().wrap(build_tiny(architecture))
    infos = subject.hooks.names()
    gated = {name: info for name, info in infos.items() if info.switch is not None}
    lacking = {name: info.not_offered for name, info in gated.items() if info.not_offered is not None}
    assert {infos[name].switch for name in lacking} == {"use_attn_in", "use_attn_result", "use_split_qkv_input"}
    assert {infos[name].switch for name in gated.keys() - lacking.keys()} == {"use_hook_mlp_in"}
    for name, reason in lacking.items():
        assert reason.startswith(f"NotImplementedError: {infos[name].switch}: ")
        assert "\n" not in reason
        with pytest.raises(NotImplementedError), subject.hooks.switched({name}):
            pass
    assert offered_points(subject.hooks).keys() == infos.keys() - lacking.keys()
    seen: list[torch.Size] = []
    point = "blocks.1.hook_mlp_in"
    with subject.hooks.switched({point}), subject.hooks.hooked({point: lambda value: seen.append(value.shape)}, {}):
        subject.forward(Inputs(input_ids=ids()))
    assert len(seen) == 1


@pytest.mark.parametrize("name", ALL)
def test_asking_which_switches_there_are_leaves_all_of_them_off(name: str) -> None:
    subject, _ = both(name)
    config = subject.bridge.cfg
    assert all(info.not_offered is None for info in subject.hooks.names().values())
    flags = ("use_attn_in", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")
    assert not any(getattr(config, flag) for flag in flags)


def test_a_decoders_tokens_are_passed_on() -> None:
    model, decoded = build_tiny("T5ForConditionalGeneration"), ids(pos=5)
    expected = model(input_ids=ids(), decoder_input_ids=decoded).logits
    subject = LensAdapter().wrap(build_tiny("T5ForConditionalGeneration"))
    actual = subject.forward(Inputs(input_ids=ids(), decoder_input_ids=decoded)).logits
    assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_hooks_read_what_hf_computes(name: str) -> None:
    subject, model = both(name)
    base = model.base_model
    blocks = base.layers if name == "llama" else base.h
    mlps: list[torch.Tensor] = []
    watch = blocks[1].mlp.register_forward_hook(lambda _module, _inputs, output: mlps.append(output.clone()))
    hidden = model(ids(), output_hidden_states=True).hidden_states
    watch.remove()
    seen: dict[str, torch.Tensor] = {}

    def reader(key: str) -> Any:
        return lambda tensor: seen.update({key: tensor.detach().clone()})

    keys = ("blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.0.attn.hook_q", "blocks.0.attn.hook_k")
    with subject.hooks.hooked({key: reader(key) for key in keys}, {}):
        subject.forward(Inputs(input_ids=ids()))
    assert_close(seen["blocks.1.hook_resid_pre"], hidden[1], rtol=0, atol=FLOAT64[name])
    assert_close(seen["blocks.1.hook_mlp_out"], mlps[0], rtol=0, atol=FLOAT64[name])
    assert seen["blocks.0.attn.hook_q"].shape == (2, 9, HEADS, D_HEAD)
    assert seen["blocks.0.attn.hook_k"].shape == (2, 9, KV_HEADS[name], D_HEAD)


@pytest.mark.parametrize("name", ALL)
def test_a_replaced_value_and_gradient_take_effect(name: str) -> None:
    subject, model = both(name)
    factor = 3.0
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: factor * output)
    gradients: list[torch.Tensor] = []

    def zeroed(gradient: torch.Tensor) -> torch.Tensor:
        gradients.append(gradient.clone())
        return torch.zeros_like(gradient)

    final = f"blocks.{LAYERS - 1}.hook_resid_post"
    with subject.hooks.hooked({"hook_embed": lambda tensor: factor * tensor}, {final: zeroed}):
        logits = subject.forward(Inputs(input_ids=ids())).logits
        torch.autograd.backward(logits.square().sum())
    assert_close(logits, model(ids()).logits, rtol=0, atol=FLOAT64[name])
    assert gradients[0].shape == (2, 9, D_MODEL)
    assert gradients[0].abs().max() > 0
    assert torch.count_nonzero(subject.weights.gradients()["blocks.0.mlp.W_in"]) == 0


@pytest.mark.parametrize("leave", [False, True], ids=["normally", "by an exception"])
def test_leaving_removes_exactly_its_own_hooks(leave: bool) -> None:
    subject, _ = both("gpt2")
    others: list[int] = []
    subject.bridge.add_hook("blocks.0.attn.hook_q", lambda tensor, hook: others.append(1))
    before = handles(subject)
    with (
        contextlib.suppress(ZeroDivisionError),
        subject.hooks.hooked(
            {"blocks.0.attn.hook_q": lambda tensor: 0 * tensor}, {"blocks.0.hook_resid_pre": lambda gradient: None}
        ),
    ):
        assert handles(subject) == before + 2
        if leave:
            raise ZeroDivisionError
    assert handles(subject) == before
    subject.forward(Inputs(input_ids=ids()))
    assert others == [1]


def test_an_unknown_hook_name_is_transformer_lens_own_error() -> None:
    subject, _ = both("gpt2")
    with pytest.raises(KeyError, match="hook_nowhere"), subject.hooks.hooked({"hook_nowhere": lambda t: None}, {}):
        pass
    assert handles(subject) == 0


@pytest.mark.parametrize("name", ALL)
def test_split_gives_the_rows_of_hf(name: str) -> None:
    subject, model = both(name)
    split = subject.weights.split(1)
    if name == "falcon":
        fused = model.transformer.h[1].self_attention.query_key_value.weight
        expected = fused.split([D_MODEL, D_HEAD, D_HEAD])
    elif name == "gpt2":
        expected = model.transformer.h[1].attn.c_attn.weight.T.split(D_MODEL)
    else:
        attention = model.model.layers[1].self_attn
        expected = tuple(linear.weight for linear in (attention.q_proj, attention.k_proj, attention.v_proj))
    for actual, rows in zip((split.q, split.k, split.v), expected, strict=True):
        assert_close(actual.weight, rows, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_canonical_weights_have_their_shapes(name: str) -> None:
    subject, _ = both(name)
    shapes = {key: tuple(weight.shape) for key, weight in subject.weights.canonical().items()}
    assert shapes["embed.W_E"] == (VOCAB, D_MODEL)
    assert shapes["unembed.W_U"] == (D_MODEL, VOCAB)
    assert shapes["blocks.1.attn.W_Q"] == (HEADS, D_MODEL, D_HEAD)
    assert shapes["blocks.1.attn.W_K"] == shapes["blocks.1.attn.W_V"] == (KV_HEADS[name], D_MODEL, D_HEAD)
    assert shapes["blocks.1.attn.W_O"] == (HEADS, D_HEAD, D_MODEL)
    assert shapes["blocks.1.mlp.W_in"] == (D_MODEL, D_MLP[name])
    assert shapes["blocks.1.mlp.W_out"] == (D_MLP[name], D_MODEL)
    assert ("blocks.1.mlp.b_in" in shapes) == (name == "gpt2")
    assert ("blocks.1.mlp.W_gate" in shapes) == (name == "llama")
    assert ("blocks.1.ln2.w" in shapes) == (name != "falcon")
    assert ("ln_final.b" in shapes) == (name != "llama")


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_hfs_in_canonical_shape(name: str) -> None:
    subject, model = both(name)
    torch.autograd.backward(subject.forward(Inputs(input_ids=ids())).logits.square().sum())
    torch.autograd.backward(model(ids()).logits.square().sum())
    gradients, weights = subject.weights.gradients(), subject.weights.canonical()
    # TransformerLens makes up a bias of zeros for the unembedding: a buffer, which takes no gradient.
    assert set(weights) - set(gradients) == {"unembed.b_U"}
    assert all(gradients[key].shape == weights[key].shape for key in gradients)
    block = (model.model.layers if name == "llama" else model.transformer.h)[0]
    if name == "falcon":
        query = block.self_attention.query_key_value.weight.grad[:D_MODEL]
        inner = block.mlp.dense_h_to_4h.weight.grad.T
    elif name == "gpt2":
        query = block.attn.c_attn.weight.grad[:, :D_MODEL].T
        inner = block.mlp.c_fc.weight.grad
    else:
        query = block.self_attn.q_proj.weight.grad
        inner = block.mlp.up_proj.weight.grad.T
    bound = 1e-4 if name == "llama" else 1e-10
    # [head * d_head, d_model] to [head, d_model, d_head]
    expected = query.reshape(HEADS, D_HEAD, D_MODEL).transpose(1, 2)
    assert_close(gradients["blocks.0.attn.W_Q"], expected, rtol=bound, atol=bound)
    assert_close(gradients["blocks.0.mlp.W_in"], inner, rtol=bound, atol=bound)
    embedding = model.get_input_embeddings().weight.grad
    assert_close(gradients["embed.W_E"], embedding, rtol=bound, atol=bound)


def test_there_is_no_way_back_to_hf() -> None:
    subject, _ = both("llama")
    assert subject.restore is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_each_processing_is_a_subject_of_its_own(name: str) -> None:
    subject, _ = both(name)
    before = subject.forward(Inputs(input_ids=ids())).logits
    given = {key: weight.detach().clone() for key, weight in subject.weights.canonical().items()}
    apply = subject.processings.apply
    folded = apply({"fold_ln"})
    # TransformerLens processes weights in float32 whatever their dtype.
    assert_close(folded.forward(Inputs(input_ids=ids())).logits, before, rtol=0, atol=1e-4)
    assert_close(folded.weights.canonical()["ln_final.w"], torch.ones(D_MODEL, dtype=torch.float64))
    whole = apply({WHOLE}).forward(Inputs(input_ids=ids())).logits
    assert_close(whole.log_softmax(-1), before.log_softmax(-1), rtol=0, atol=1e-4)
    assert whole.mean(-1).abs().max() < 1e-4 < before.mean(-1).abs().max()
    assert_close(subject.forward(Inputs(input_ids=ids())).logits, before, rtol=0, atol=0)
    assert all(torch.equal(weight, given[key]) for key, weight in subject.weights.canonical().items())


@pytest.mark.parametrize("name", ALL)
def test_processings_are_applied_as_they_are_named_and_no_other(name: str) -> None:
    subject, _ = both(name)
    plain = subject.weights.canonical()
    centred = subject.processings.apply({"center_unembed", "center_writing_weights"})
    weights = centred.weights.canonical()
    assert_close(weights["ln_final.w"], plain["ln_final.w"], rtol=0, atol=1e-6)
    # Only a layer norm takes the mean off what it reads.
    assert (weights["embed.W_E"].mean(-1).abs().max() < 1e-6) == (name != "llama")
    assert weights["unembed.W_U"].mean(-1).abs().max() < 1e-6
    with pytest.raises(KeyError, match="fold_norms"):
        subject.processings.apply({"fold_norms"})


@pytest.mark.parametrize("name", ALL)
def test_promises_are_what_the_documentation_promises(name: str) -> None:
    subject, _ = both(name)
    promises = subject.processings.promises()
    flags = {"fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"}
    assert flags | {WHOLE} <= promises.keys()
    # "You can't refactor the QK circuit when using rotary embeddings."
    assert ("refactor_factored_attn_matrices" in promises) == (name == "gpt2")
    assert all(LOG_PROBABILITIES in kept for kept in promises.values())
    assert {key for key, kept in promises.items() if LOGITS not in kept} == {"center_unembed", WHOLE}


@pytest.mark.parametrize("name", ALL)
def test_components_run_alone_as_hf_does(name: str) -> None:
    subject, model = both(name)
    inner = {"falcon": "attn.qkv", "gpt2": "attn.qkv", "llama": "mlp.gate"}[name]
    modules = subject.components.modules()
    assert {"embed", "blocks.0", "blocks.1.ln1", "blocks.1.attn.q", f"blocks.1.{inner}", "unembed"} <= set(modules)
    assert ("rotary_emb" in modules) == (name != "gpt2")
    assert ("blocks.0.ln2" in modules) == (name != "falcon")
    block = (model.model.layers if name == "llama" else model.transformer.h)[1]
    x = torch.randn(2, 5, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert_close(subject.components.run("blocks.1.mlp", (x,), {}), block.mlp(x), rtol=0, atol=1e-12)
    embedded = model.get_input_embeddings()(ids())
    assert_close(subject.components.run("embed", (ids(),), {}), embedded, rtol=0, atol=0)


def test_an_mlp_that_is_no_module_of_hfs_is_no_component_though_its_projections_and_weights_are() -> None:
    subject = LensAdapter().wrap(build_tiny("OPTForCausalLM"))
    there = {name for name in subject.components.modules() if name.startswith("blocks.0.mlp")}
    assert there == {"blocks.0.mlp.in", "blocks.0.mlp.out"}
    assert {"blocks.0.mlp.W_in", "blocks.0.mlp.b_out"} <= subject.weights.canonical().keys()


@pytest.mark.parametrize("name", ALL)
def test_modes_are_the_bridges(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    subject, model = both(name)
    for mode in (True, False):
        subject.modes.train(mode)
        assert {module.training for module in subject.bridge.original_model.modules()} == {mode}
    state = {key: value.clone() for key, value in subject.modes.state_dict().items()}
    with torch.no_grad():
        for parameter in subject.bridge.parameters():
            parameter.fill_(0.5)
    assert not torch.allclose(subject.forward(Inputs(input_ids=ids())).logits, model(ids()).logits)
    subject.modes.load_state_dict(state)
    assert_close(subject.forward(Inputs(input_ids=ids())).logits, model(ids()).logits, rtol=0, atol=FLOAT64[name])
    subject.modes.to(dtype=torch.float32)
    assert subject.forward(Inputs(input_ids=ids())).logits.dtype is torch.float32
    assert "".join(capfd.readouterr()) == ""


def test_a_copy_is_independent() -> None:
    subject, _ = both("llama")
    before = subject.forward(Inputs(input_ids=ids())).logits
    twin = subject.modes.copy()
    with torch.no_grad():
        for parameter in subject.bridge.parameters():
            parameter.zero_()
    assert_close(twin.forward(Inputs(input_ids=ids())).logits, before, rtol=0, atol=0)
    processed = twin.processings.apply({"fold_value_biases"})
    assert_close(processed.forward(Inputs(input_ids=ids())).logits, before, rtol=0, atol=1e-4)


def test_checkpointing_recomputes_the_blocks() -> None:
    subject, _ = both("llama")
    subject.modes.train(True)
    calls: list[int] = []
    for enabled in (True, False):
        subject.modes.checkpointing(enabled)
        calls.clear()
        with subject.hooks.hooked({"blocks.0.attn.hook_z": lambda tensor: calls.append(1)}, {}):
            torch.autograd.backward(subject.forward(Inputs(input_ids=ids())).logits.sum())
        assert len(calls) == 1 + enabled


def test_close_lets_go() -> None:
    subject, _ = both("gpt2")
    subject.close()
    assert not hasattr(subject, "bridge")
