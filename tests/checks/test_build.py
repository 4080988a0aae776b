"""The checks of wrapping: each says what is wrong, where, and lets a right adapter alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from falcons import KINDS, REFUSED, SPREAD, mostly_slow, spec
from one_check import DEFAULT, AmongAll, Broken, Judge, of_area
from torch import nn
from transformers.models.falcon import modeling_falcon

from verifier import adapter, checks
from verifier.adapter import CHANGES, AdapterRefusal, Inputs, Output
from verifier.checks.runner import run_case
from verifier.errors import OutdatedAdapter
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Mutation
from verifier.judging.outcome import Verdict
from verifier.reference import models

IDS = [one.id for one in of_area("build")]


class Subject(adapter.Subject):
    """HF's own model, with what a test gives it beside."""

    def __init__(self, model: Any, **others: Any) -> None:
        self.model = model
        for name, value in others.items():
            setattr(self, name, value)

    def forward(self, inputs: Inputs) -> Output:
        return models.forward(self.model, inputs)

    def close(self) -> None: ...


class Wraps:
    """An adapter of a function."""

    name = "wraps"
    version = "1"

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self.wrap = wrap


def fails(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("check", [one for one in IDS if one != "build.refusal"])
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.parametrize("refused", REFUSED)
def test_a_right_adapter_refuses_what_hf_refuses(judge: Judge, refused: str) -> None:
    assert judge("build.refusal", config=REFUSED[refused]).verdict is Verdict.PASS


@pytest.mark.parametrize("check", IDS)
def test_its_documentation_says_what_a_failure_means(check: str) -> None:
    (found,) = checks.select([check])
    assert "A failure means" in found.doc


# --- build.adapter ---------------------------------------------------------------------------------------------------


class Names:
    """Hooks that give this as their names."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def names(self) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (
            lambda model: Subject(model, declared_mutations=frozenset({"everything"})),
            f"`declared_mutations` has an unknown 'everything'; known are {', '.join(CHANGES)}",
        ),
        (
            lambda model: Subject(model, hooks=Names(["hook_embed"])),
            "hooks.names() must give a mapping of names to HookInfo, got a list",
        ),
        (
            lambda model: Subject(model, hooks=Names({"hook_embed": "transformer.word_embeddings"})),
            "hooks.names() must give a mapping of names to HookInfo, got a str for 'hook_embed'",
        ),
        (
            lambda model: Subject(model, forward=None),
            "wrap gave a Subject, no subject: a subject has the methods `forward` and `close`",
        ),
        (
            lambda _model: [],
            "wrap gave a list, no subject: a subject has the methods `forward` and `close`",
        ),
        (
            lambda _model: SimpleNamespace(forward=print, close=print, declared_mutations=frozenset(), hooks=None),
            "wrap gave a SimpleNamespace without `weights`, `restore`, `processings`, `cache`, `components`, `modes`, "
            "`facts`: derive the class from verifier.adapter.Subject, where what a subject lacks is None",
        ),
    ],
    ids=["mutation", "names", "infos", "forward", "list", "attributes"],
)
def test_what_is_no_subject_is_told_in_one_line(judge: Judge, gives: Callable[[Any], Any], said: str) -> None:
    found = judge("build.adapter", adapter=Wraps(gives))
    assert (found.verdict, found.where, found.message) == (Verdict.FAIL, "subject", said)


class Old:
    """A subject of the protocol as it was."""

    capabilities = frozenset({"hooks"})

    def forward(self, inputs: Inputs) -> Output:
        raise NotImplementedError

    def close(self) -> None: ...


class OldHooks:
    """Hooks of the protocol as it was."""

    def names(self) -> Any:
        return {"hook_embed": adapter.HookInfo(own="embed")}  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("gives", "where"),
    [
        (lambda _model: Old(), "test_build.py: Old"),
        (lambda model: Subject(model, hooks=OldHooks()), "test_build.py: OldHooks.names"),
    ],
    ids=["capabilities", "own"],
)
@pytest.mark.parametrize("check", ["build.adapter", "hooks.values"])
def test_an_adapter_of_the_old_protocol_ends_the_run_with_what_to_change(
    judge: Judge, check: str, gives: Callable[[Any], Any], where: str
) -> None:
    with pytest.raises(OutdatedAdapter) as raised:
        judge(check, adapter=Wraps(gives))
    assert f"{where} is written for an older verifier: derive the class of subjects" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_refusal_of_what_hf_accepts_keeps_the_adapters_words(judge: Judge) -> None:
    found = judge("build.adapter", adapter=Wraps(lambda _model: fails(AdapterRefusal("no grouped heads"))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "refused")
    assert "no grouped heads" in (found.message or "")


def test_an_exception_is_blamed_on_the_adapters_frame(judge: Judge) -> None:
    found = judge("build.adapter", adapter=Wraps(lambda _model: fails(KeyError("blocks"))))
    assert (found.verdict, found.exception) == (Verdict.ERROR, "KeyError")
    assert (found.site or "").endswith("test_build.py:fails")


# --- build.forward ---------------------------------------------------------------------------------------------------


def test_logits_must_be_a_tensor(judge: Judge) -> None:
    adapter = Wraps(lambda model: Subject(model, forward=lambda _inputs: Output(logits=[1, 2])))  # type: ignore[arg-type]
    found = judge("build.forward", adapter=adapter)
    assert (found.verdict, found.message) == (Verdict.FAIL, "they are a list, not a tensor")


# --- build.refusal ---------------------------------------------------------------------------------------------------

BUILT = REFUSED["old-parallel-two-norms"]


@pytest.mark.parametrize(
    ("wrap", "where", "said"),
    [
        (lambda _model: fails(AdapterRefusal("  ")), "wrap", "it refuses without a word of why"),
        (lambda _model: fails(KeyError("ln")), "wrap", "no clear refusal, but KeyError: 'ln'"),
        (Subject, "forward", "it wraps what HF refuses, and then raises AttributeError: "),
        (
            lambda model: Subject(model, forward=lambda _inputs: Output(logits=torch.zeros(1))),
            "runs",
            "it wraps and runs a model that HF refuses: two norms are of the new architecture",
        ),
    ],
    ids=["wordless", "other error", "late", "never"],
)
def test_anything_but_a_clear_refusal_fails(judge: Judge, wrap: Callable[[Any], Any], where: str, said: str) -> None:
    found = judge("build.refusal", adapter=Wraps(wrap), config=BUILT)
    assert (found.verdict, found.where) == (Verdict.FAIL, where)
    assert (found.message or "").startswith(said)


def test_what_hf_does_not_even_build_is_not_applicable(judge: Judge) -> None:
    found = judge("build.refusal", config={**BUILT, "hidden_size": 25})
    assert found.verdict is Verdict.SKIP
    assert (found.message or "").startswith("not applicable: HF does not even build it")


# --- build.surroundings, build.changes, build.config -----------------------------------------------------------------


def test_what_is_patched_around_the_model_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = modeling_falcon.apply_rotary_pos_emb

    def wrap(model: Any) -> Any:
        monkeypatch.setattr(modeling_falcon, "apply_rotary_pos_emb", lambda *args, **kw: original(*args, **kw))
        return Subject(model)

    found = judge("build.surroundings", adapter=Wraps(wrap))
    name = "module transformers.models.falcon.modeling_falcon: apply_rotary_pos_emb"
    assert (found.verdict, found.where, found.message) == (Verdict.FAIL, name, f"changed: {name}")


def test_what_is_patched_only_while_it_runs_is_seen_too(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Subject):
        def forward(self, inputs: Inputs) -> Output:
            monkeypatch.setattr(modeling_falcon.FalconMLP, "seen", True, raising=False)
            return super().forward(inputs)

    assert judge("build.surroundings", adapter=Wraps(Late)).verdict is Verdict.FAIL


def replaces_a_parameter(model: Any) -> None:
    model.transformer.ln_f.weight = nn.Parameter(model.transformer.ln_f.weight.detach().clone())


CHANGING: Mapping[str, Callable[[Any], object]] = {
    "modules": lambda model: setattr(model, "hook_point", nn.Identity()),
    "forwards": lambda model: setattr(model.lm_head, "forward", type(model.lm_head).forward.__get__(model.lm_head)),
    "hooks": lambda model: model.register_forward_hook(lambda *_: None),
    "parameters": replaces_a_parameter,
    "buffers": lambda model: model.transformer.rotary_emb.original_inv_freq.add_(1),
    "config": lambda model: setattr(model.config, "bos_token_id", 7),
    "attention": lambda model: setattr(model.config, "_attn_implementation", "eager"),
    "mode": lambda model: model.transformer.ln_f.train(),
}


def changing(kind: str, declared: frozenset[str]) -> Wraps:
    def wrap(model: Any) -> Any:
        CHANGING[kind](model)
        return Subject(model, declared_mutations=declared)

    return Wraps(wrap)


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_changed_in_the_model_must_be_declared(judge: Judge, kind: str) -> None:
    silent = judge("build.changes", adapter=changing(kind, frozenset()))
    assert (silent.verdict, silent.where) == (Verdict.FAIL, kind)
    assert CHANGES[kind] in (silent.message or "")  # type: ignore[index]
    assert judge("build.changes", adapter=changing(kind, frozenset({kind}))).verdict is Verdict.PASS


def test_to_declare_one_thing_excuses_no_other(judge: Judge) -> None:
    assert judge("build.changes", adapter=changing("mode", frozenset(CHANGES) - {"mode"})).verdict is Verdict.FAIL


def test_the_callers_config_must_stay_as_it_is(judge: Judge) -> None:
    found = judge("build.config", adapter=changing("config", frozenset()))
    assert (found.verdict, found.where) == (Verdict.FAIL, "config.bos_token_id")
    assert (found.message or "").endswith("became 7")
    assert judge("build.config", adapter=changing("config", frozenset({"config"}))).verdict is Verdict.PASS


def test_a_declared_attention_may_show_in_the_config_and_nothing_else(judge: Judge) -> None:
    assert judge("build.config", adapter=changing("attention", frozenset({"attention"}))).verdict is Verdict.PASS
    assert judge("build.config", adapter=changing("attention", frozenset())).verdict is Verdict.FAIL
    assert judge("build.config", adapter=changing("config", frozenset({"attention"}))).verdict is Verdict.FAIL


# --- build.close, build.parameters, build.tied -----------------------------------------------------------------------


def test_what_closing_raises_is_reported(judge: Judge, broken: Broken) -> None:
    found = judge("build.close", adapter=broken(Mutation(close=lambda: fails(RuntimeError("still in use")))))
    assert (found.verdict, found.message) == (Verdict.ERROR, "RuntimeError: still in use")


# --- build.facts -----------------------------------------------------------------------------------------------------


def telling(**told: object) -> Wraps:
    return Wraps(lambda model: Subject(model, facts=lambda: told))


@pytest.mark.parametrize(
    ("told", "where", "said"),
    [
        ({"n_layers": 2, "n_heads": 5}, "n_heads", "it is said to be 5, and is 6"),
        ({"parallel_attn_mlp": 1}, "parallel_attn_mlp", "it is said to be 1, and is True"),
        ({"act_fn": "relu"}, "act_fn", "it is said to be 'relu', and is 'gelu'"),
        ({"n_layer": 2}, "n_layer", "there is no such fact (did you mean 'n_layers'?)"),
    ],
    ids=["number", "flag", "text", "name"],
)
def test_a_wrong_fact_is_named_with_the_right_one(judge: Judge, told: dict[str, object], where: str, said: str) -> None:
    found = judge("build.facts", adapter=telling(**told))
    assert (found.verdict, found.where, found.message) == (Verdict.FAIL, where, said)


def test_what_a_model_does_not_have_is_no_fact_of_it(judge: Judge) -> None:
    turns = telling(n_layers=2, rotary_base=500_000)
    assert judge("build.facts", adapter=turns).where == "rotary_base"
    assert judge("build.facts", adapter=turns, config=KINDS["sequential-own-keys-alibi"]).verdict is Verdict.PASS


def test_who_says_nothing_is_not_looked_at(judge: Judge, falcon: FalconFamily) -> None:
    found = judge("build.facts", adapter=telling())
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: the adapter says nothing of the model")
    assert judge("build.facts", adapter=Wraps(Subject)).verdict is Verdict.SKIP

    class Silent:
        def __getattr__(self, name: str) -> Any:
            if name == "facts":
                raise AttributeError(name)
            return getattr(falcon, name)

    found = judge("build.facts", adapter=telling(d_model=7), family=Silent())
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: the family says no facts of its models")


def test_keys_whose_number_hf_infers_are_counted_where_they_are(falcon: FalconFamily) -> None:
    model = falcon.build(
        {**falcon.dims(), "multi_query": False, "num_kv_heads": -1},
        dtype=torch.float32,
        device="cpu",
        attention="sdpa",
        seed=0,
    )
    assert falcon.facts(model)["n_key_value_heads"] == model.config.num_attention_heads


# --- what is in the components ---------------------------------------------------------------------------------------


def without(*words: str) -> Mutation:
    """The components but for those with one of these words in their names, and but for whole blocks."""
    return Mutation(
        modules=lambda modules: {
            name: module
            for name, module in modules.items()
            if not any(word in name for word in words) and name.count(".") != 1
        }
    )


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("ln_final",), "transformer.ln_f.weight"),
        (("ln2",), "transformer.h.0.ln_mlp.weight"),
        (("attn.o", ".attn"), "transformer.h.0.self_attention.query_key_value.weight"),
    ],
    ids=["ln_final", "ln2", "attn"],
)
def test_a_parameter_in_no_component_is_named(judge: Judge, broken: Broken, words: tuple[str, ...], where: str) -> None:
    found = judge("build.parameters", adapter=broken(without(*words)))
    assert (found.verdict, found.where) == (Verdict.FAIL, where)


def test_parameters_are_found_value_by_value_however_they_are_cut(judge: Judge, broken: Broken) -> None:
    """A library may hold queries, keys and values in modules of their own, and never the fused one."""
    assert judge("build.parameters", adapter=broken(without("attn.qkv", "nothing"))).verdict is Verdict.PASS


def test_an_edited_value_is_not_found(judge: Judge, broken: Broken) -> None:
    def edit(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        parameter = next(modules["ln_final"].parameters())
        if parameter[3] != 99.0:
            with torch.no_grad():
                parameter[3] = 99.0
        return modules

    found = judge("build.parameters", adapter=broken(Mutation(modules=edit)))
    assert (found.where, found.message) == ("ln_final", "it lacks 1 of the 24 values of HF's weight")


def test_components_without_parameters_fail(judge: Judge, broken: Broken) -> None:
    found = judge("build.parameters", adapter=broken(Mutation(modules=lambda _modules: {})))
    assert (found.verdict, found.message) == (Verdict.FAIL, "no canonical component has a parameter")


@pytest.mark.parametrize(
    ("tied", "said"),
    [(True, "HF ties them, the subject does not"), (False, "HF does not tie them, the subject does")],
)
def test_what_is_tied_must_stay_so_and_what_is_not_too(judge: Judge, broken: Broken, tied: bool, said: str) -> None:
    def swap(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        other = nn.Linear(2, 2) if tied else modules["embed"]
        return {**modules, "unembed": other}

    config = {**KINDS["one-norm-own-keys-rope"], "tie_word_embeddings": tied}
    assert judge("build.tied", config=config).verdict is Verdict.PASS
    found = judge("build.tied", adapter=broken(Mutation(modules=swap)), config=config)
    assert (found.verdict, found.message) == (Verdict.FAIL, said)


def test_without_both_embeddings_there_is_nothing_to_tie(judge: Judge, broken: Broken) -> None:
    assert judge("build.tied", adapter=broken(without("unembed"))).verdict is Verdict.SKIP


def test_who_selects_what_rests_on_a_failure_is_told_of_the_failure(falcon, broken):
    def raises(_subject, _inputs):
        raise ValueError("no")

    def ran(adapter, check):
        return {one.check: one.verdict for one in run_case(spec(DEFAULT), falcon, adapter, checks.select([check]))}

    assert ran(broken(Mutation(forward=raises)), "forward.causality") == {
        "forward.causality": Verdict.SKIP,
        "build.forward": Verdict.ERROR,
    }
    off = broken(Mutation(edits={"0.hook_attn_out": lambda value: value * 1.5}))
    assert ran(off, "hooks.values") == {"hooks.values": Verdict.SKIP, "forward.logits": Verdict.FAIL}
    assert ran(broken(Mutation()), "hooks.values") == {"hooks.values": Verdict.PASS}
