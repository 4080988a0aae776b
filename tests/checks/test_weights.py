"""The checks of canonical weights and of their processing: each names what is wrong, and lets a right adapter alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier.faults.mutants import MutantSubject, Mutation, replacing
from verifier.judging.outcome import Verdict

IDS = [one.id for one in of_area("weights")]
EVERYWHERE = [one.id for one in of_area("weights") if one.applies == "valid"]
SAMPLED = [one.id for one in of_area("weights") if one.applies == "sampled"]
UNBIASED = KINDS["one-norm-own-keys-rope"]
ALIBI = KINDS["sequential-own-keys-alibi"]


def reading(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Mutation:
    """Wrong in what is read of the canonical weights."""
    return Mutation(parts={"weights": replacing(canonical=lambda right: change(dict(right.canonical())))})


def one(name: str, change: Callable[[Tensor], Any]) -> Mutation:
    """Wrong in one weight."""
    return reading(lambda weights: {**weights, name: change(weights[name])})


@pytest.mark.parametrize("check", EVERYWHERE)
@pytest.mark.parametrize("kind", mostly_slow(kind for kind in SPREAD if kind != "no-layers"))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.slow
@pytest.mark.parametrize("check", SAMPLED)
@pytest.mark.parametrize("kind", ["two-norms-grouped-rope", "sequential-own-keys-alibi"])
def test_a_right_adapter_passes_on_a_sampled_case(judge: Judge, kind: str, check: str) -> None:
    found = judge(check, config=KINDS[kind], depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.parametrize("check", EVERYWHERE)
def test_a_model_without_layers_has_all_but_attention(among_all: AmongAll, check: str) -> None:
    found = among_all("no-layers")[check]
    if check == "weights.attention":
        assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: the model has no attention")
    else:
        assert found.verdict is Verdict.PASS, found


# --- names and shapes ------------------------------------------------------------------------------------------------


def without(name: str) -> Mutation:
    return reading(lambda weights: {key: weight for key, weight in weights.items() if key != name})


@pytest.mark.parametrize(
    ("breaks", "where", "said"),
    [
        (without("blocks.1.attn.b_K"), "blocks.1.attn.b_K", "there is none"),
        (one("blocks.1.mlp.W_in", lambda _: None), "blocks.1.mlp.W_in", "there is none"),
        (one("ln_final.w", lambda weight: weight.tolist()), "ln_final.w", "it is list, not a tensor"),
        (one("embed.W_E", lambda weight: weight.to("meta")), "embed.W_E", "it is on the meta device"),
        (
            one("blocks.0.attn.W_O", lambda weight: weight.index_fill(0, torch.tensor(2), torch.nan)),
            "blocks.0.attn.W_O",
            "96 of its 576 values are not finite",
        ),
        (
            reading(lambda weights: {**weights, "blocks.0.mlp.W_gate": weights["blocks.0.mlp.W_in"]}),
            "blocks.0.mlp.W_gate",
            "there is one, and HF has none",
        ),
        (
            reading(lambda weights: {**weights, "unembed.b_U": weights["embed.W_E"][:, 0]}),
            "unembed.b_U",
            "there is one, and HF has none",
        ),
    ],
    ids=["missing", "none", "no-tensor", "meta", "nan", "made-up-matrix", "made-up-bias"],
)
def test_what_cannot_be_read_under_its_name_is_found(
    judge: Judge, broken: Broken, breaks: Mutation, where: str, said: str
) -> None:
    found = judge("weights.names", adapter=broken(breaks))
    assert (found.verdict, found.where) == (Verdict.FAIL, where)
    assert (found.message or "").startswith(said)


def test_a_bias_of_zeros_that_hf_does_not_have_is_no_difference(judge: Judge, broken: Broken) -> None:
    zeros = broken(reading(lambda weights: {**weights, "unembed.b_U": torch.zeros(31, dtype=torch.float64)}))
    assert judge("weights.names", adapter=zeros).verdict is Verdict.PASS


def test_what_has_no_canonical_name_is_nobodys_business(judge: Judge, broken: Broken) -> None:
    more = broken(reading(lambda weights: {**weights, "blocks.0.attn.mask": torch.ones(3)}))
    assert judge("weights.names", adapter=more).verdict is Verdict.PASS


def test_another_shape_is_told_by_its_axes(judge: Judge, broken: Broken) -> None:
    found = judge("weights.shapes", adapter=broken(one("blocks.1.attn.W_V", lambda w: w.repeat_interleave(2, 0))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.W_V")
    assert found.message == "its shape is [6, 24, 4], not [kv_head, d_model, d_head] = [3, 24, 4]"


def test_a_missing_weight_is_told_once(judge: Judge, broken: Broken) -> None:
    adapter = broken(without("unembed.W_U"))
    assert judge("weights.names", adapter=adapter).verdict is Verdict.FAIL
    for check in ("weights.shapes", "weights.attention", "weights.modules", "weights.values"):
        assert judge(check, adapter=adapter).verdict is Verdict.PASS, check


def test_weights_that_cannot_be_read_are_told_once(judge: Judge, broken: Broken) -> None:
    def raises(_weights: Any) -> Any:
        raise LookupError("no weights")

    adapter = broken(reading(raises))
    assert judge("weights.names", adapter=adapter).exception == "LookupError"
    for check in ("shapes", "attention", "modules", "values", "restore", "writing"):
        found = judge(f"weights.{check}", adapter=adapter, depth="sampled")
        assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by weights.names"), check
    for check in ("processings", "unprocessed"):  # they look at logits alone then
        assert judge(f"weights.{check}", adapter=adapter, depth="sampled").verdict is Verdict.PASS, check


# --- what they compute -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["W_Q", "b_K", "W_V", "b_V", "W_O", "b_O"])
def test_the_weight_that_makes_attention_another_is_named(judge: Judge, broken: Broken, name: str, layer: int) -> None:
    adapter = broken(one(f"blocks.{layer}.attn.{name}", lambda weight: weight.flip(0)))
    found = judge("weights.attention", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.{layer}.attn.W_{name[2:]}")
    assert judge("weights.values", adapter=adapter).verdict is Verdict.PASS  # told once


def test_attention_under_positions_that_are_added_is_looked_at_too(judge: Judge, broken: Broken) -> None:
    adapter = broken(one("blocks.1.attn.W_Q", lambda weight: weight * 1.001))
    found = judge("weights.attention", adapter=adapter, config=ALIBI)
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.W_Q")


def test_a_wrong_split_is_told_by_the_split(judge: Judge, broken: Broken) -> None:
    class Rows:
        def __init__(self, right: Any) -> None:
            self.weight, self.bias = right.weight.detach().flip(0), right.bias

    def exchanged(right: Any, layer: int) -> Any:
        return replace(right.split(layer), q=Rows(right.split(layer).q))

    adapter = broken(
        Mutation(
            parts={
                "weights": replacing(
                    split=exchanged,
                    canonical=lambda right: {
                        name: weight.flip(0) if name.endswith("W_Q") else weight
                        for name, weight in right.canonical().items()
                    },
                )
            }
        )
    )
    found = judge("weights.attention", adapter=adapter)
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by weights.shapes or qkv.rows")


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("name", "change", "where"),
    [
        ("embed.W_E", lambda weight: weight.roll(1, 0), "embed.W_E"),
        ("blocks.1.ln2.b", torch.zeros_like, "blocks.1.ln2.w"),
        ("blocks.0.ln1.w", torch.ones_like, "blocks.0.ln1.w"),
        ("blocks.1.mlp.W_in", lambda weight: weight.flip(1), "blocks.1.mlp.W_in"),
        ("blocks.1.mlp.b_out", torch.zeros_like, "blocks.1.mlp.W_out"),
        ("ln_final.b", lambda weight: -weight, "ln_final.w"),
        ("unembed.W_U", lambda weight: weight - weight.mean(1, keepdim=True), "unembed.W_U"),
    ],
)
def test_the_weight_that_makes_a_module_another_is_named(
    judge: Judge, broken: Broken, name: str, change: Callable[[Tensor], Tensor], where: str
) -> None:
    adapter = broken(one(name, change))
    found = judge("weights.modules", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, where)
    assert judge("weights.values", adapter=adapter).verdict is Verdict.PASS  # told once


def test_a_value_that_is_off_by_one_unit_is_not_hfs(judge: Judge, broken: Broken) -> None:
    def nudge(weight: Tensor) -> Tensor:
        nudged = weight.clone()
        nudged[3, 1] = torch.nextafter(nudged[3, 1], torch.tensor(9.0, dtype=torch.float64))
        return nudged

    adapter = broken(one("blocks.0.mlp.W_out", nudge))
    assert judge("weights.modules", adapter=adapter).verdict is Verdict.PASS
    found = judge("weights.values", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.mlp.W_out")
    assert found.message == "1 of 960 values differ"


def test_weights_that_are_cast_in_a_working_dtype_are_found(judge: Judge, broken: Broken) -> None:
    adapter = broken(one("ln_final.w", lambda weight: weight if weight.dtype == torch.float64 else weight.float()))
    found = judge("weights.values", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, "ln_final.w")
    assert found.message == "its dtype is torch.float32, not torch.bfloat16 in a bfloat16 model (1 more place)"


# --- the way back, and writing ---------------------------------------------------------------------------------------


def restoring(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Mutation:
    return Mutation(parts={"restore": lambda _subject, right: lambda given: change(right(given))})


NORM = "transformer.ln_f.weight"


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (lambda state: {key: w for key, w in state.items() if key != NORM}, NORM, "it is not there (1 more place)"),
        (lambda state: {**state, NORM: state[NORM].float()}, NORM, "its dtype is torch.float32, not torch.float64"),
        (
            lambda state: {**state, "ln_f": state[NORM]},
            "ln_f",
            "HF's state dict has nothing of that name (1 more place)",
        ),
    ],
    ids=["missing", "cast", "unknown"],
)
def test_a_way_back_to_another_state_dict_is_found(
    judge: Judge, broken: Broken, change: Callable[[dict[str, Tensor]], Any], where: str, said: str
) -> None:
    found = judge("weights.restore", adapter=broken(restoring(change)))
    assert (found.verdict, found.where) == (Verdict.FAIL, where)
    assert (found.message or "").startswith(said)


def test_a_way_back_that_knows_only_its_own_weights_is_found(judge: Judge, broken: Broken) -> None:
    stored: dict[str, Tensor] = {}

    def first(state: dict[str, Tensor]) -> Mapping[str, Tensor]:
        stored.update({} if stored else state)
        return stored

    found = judge("weights.restore", adapter=broken(restoring(first)))
    assert found.verdict is Verdict.FAIL
    assert "(of other weights than its own)" in (found.message or "")


def test_a_weight_that_acts_and_is_not_read_back_is_found(judge: Judge, broken: Broken) -> None:
    def breaks(model: Any) -> Mutation:
        norm = model.transformer.ln_f.weight
        shown = norm.detach().clone()
        return reading(lambda weights: {**weights, "ln_final.w": _Writing(shown, norm)})

    found = judge("weights.writing", adapter=broken(breaks), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "ln_final.w")
    assert (found.message or "").startswith("what is written into it acts and is not read back: off by")


class _Writing(Tensor):
    """Shows one tensor's values and writes into another one."""

    target: Tensor

    def __new__(cls, shown: Tensor, target: Tensor) -> _Writing:
        made = shown.clone().as_subclass(cls)
        made.target = target
        return made

    def add_(self, other: Any, **_: Any) -> Any:
        with torch.no_grad():
            self.target.add_(other)
        return self

    def copy_(self, other: Any, *_: Any) -> Any:
        with torch.no_grad():
            self.target.copy_(other)
        return self


def test_writing_into_the_models_own_memory_is_no_fault(judge: Judge, broken: Broken) -> None:
    def breaks(model: Any) -> Mutation:
        norm = model.transformer.ln_f.weight
        return reading(lambda weights: {**weights, "ln_final.w": norm})

    found = judge("weights.writing", adapter=broken(breaks), depth="sampled")
    assert found.verdict is Verdict.PASS, found


def test_the_weights_are_left_as_they_were_found(judge: Judge, broken: Broken) -> None:
    kept: list[Any] = []

    def breaks(model: Any) -> Mutation:
        kept.append((model.transformer.ln_f.weight, model.transformer.ln_f.weight.detach().clone()))
        return reading(lambda weights: {**weights, "ln_final.w": kept[0][0]})

    judge("weights.writing", adapter=broken(breaks), depth="sampled")
    assert torch.equal(*kept[0])


# --- processings -----------------------------------------------------------------------------------------------------


def processing(apply: Callable[..., Any], **more: Any) -> Mutation:
    return Mutation(parts={"processings": replacing(apply=apply, **more)})


def louder(right: Any, names: set[str], *, only: str | None = None) -> Any:
    """Logits a little too large, whatever is processed or where one thing is."""

    def forward(subject: Any, inputs: Any) -> Any:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits * 1.001)

    subject = right.apply(names)
    return MutantSubject(subject, Mutation(forward=forward)) if only is None or only in names else subject


def test_the_processing_that_breaks_its_promise_is_named(judge: Judge, broken: Broken) -> None:
    breaks = processing(lambda right, names: louder(right, names, only="fold_value_biases"))
    found = judge("weights.processings", adapter=broken(breaks))
    assert (found.verdict, found.where) == (Verdict.FAIL, "fold_value_biases: logits")


def test_only_what_is_promised_is_looked_at(judge: Judge, broken: Broken) -> None:
    def shifted(right: Any, names: set[str]) -> Any:
        def forward(subject: Any, inputs: Any) -> Any:
            output = subject.forward(inputs)
            return replace(output, logits=output.logits + 3.0)

        return MutantSubject(right.apply(names), Mutation(forward=forward))

    softly = processing(shifted, promises=lambda right: {"centre_unembed": right.promises()["centre_unembed"]})
    assert judge("weights.processings", adapter=broken(softly)).verdict is Verdict.PASS
    found = judge("weights.processings", adapter=broken(processing(shifted)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "fold_norms: logits")


def raising(right: Any, names: set[str]) -> Any:
    if "fold_norms" in names:
        raise LookupError("no norm")
    return right.apply(names)


def test_a_processing_that_raises_is_an_error(judge: Judge, broken: Broken) -> None:
    found = judge("weights.processings", adapter=broken(processing(raising)))
    assert (found.verdict, found.exception, found.message) == (Verdict.ERROR, "LookupError", "LookupError: no norm")


def test_a_processing_that_raises_hides_no_other(judge: Judge, broken: Broken) -> None:
    def both(right: Any, names: set[str]) -> Any:
        raising(right, names)
        return louder(right, names, only="fold_value_biases")

    found = judge("weights.processings", adapter=broken(processing(both)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "fold_value_biases: logits")
    assert (found.message or "").endswith("; fold_norms raises LookupError: no norm")


def test_an_adapter_that_promises_nothing_has_nothing_to_keep(judge: Judge, broken: Broken) -> None:
    nothing = processing(lambda right, names: right.apply(names), promises=lambda _right: {"fold_norms": frozenset()})
    found = judge("weights.processings", adapter=broken(nothing))
    assert found.verdict is Verdict.SKIP
    assert "no weight processing that promises anything" in (found.message or "")


@pytest.mark.parametrize("check", ["weights.processed_points", "weights.processings_together"])
def test_a_broken_promise_is_told_once(judge: Judge, broken: Broken, check: str) -> None:
    found = judge(check, adapter=broken(processing(louder)), depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by weights.processings")


def test_together_leaves_out_what_is_broken_alone(judge: Judge, broken: Broken) -> None:
    breaks = processing(lambda right, names: louder(right, names, only="fold_norms"))
    found = judge("weights.processings_together", adapter=broken(breaks), depth="sampled")
    assert found.verdict is Verdict.PASS, found


def test_a_point_that_a_processed_model_lacks_is_found(judge: Judge, broken: Broken) -> None:
    def silent(right: Any, names: set[str]) -> Any:
        quiet = lambda right, forward, backward: right.hooked(  # noqa: E731
            {name: edit for name, edit in forward.items() if not name.endswith("hook_z")}, backward
        )
        return MutantSubject(right.apply(names), Mutation(parts={"hooks": replacing(hooked=quiet)}))

    found = judge("weights.processed_points", adapter=broken(processing(silent)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "fold_norms: blocks.0.attn.hook_z")
    assert (found.message or "").startswith("it no longer fires")


def test_logits_that_differ_already_are_not_told_again(judge: Judge, broken: Broken) -> None:
    adapter = broken(Mutation(edits={"hook_embed": lambda value: value * 2}))
    for check in ("weights.processings", "weights.unprocessed"):
        found = judge(check, adapter=adapter, depth="sampled")
        assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits"), check
