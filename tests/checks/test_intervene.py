"""The checks of interventions: each edit is held against the same edit in Hugging Face's model."""

from __future__ import annotations

import pytest
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier.adapter import Edit
from verifier.faults.altered_hooks import EditChange, altered, at
from verifier.judging.outcome import Verdict

IDS = [one.id for one in of_area("intervene") if one.applies != "sampled"]
IDS.remove("intervene.layers")  # of three layers or more
IDS.remove("intervene.aliases")  # of points with a second name
EDITS = ["intervene.replace", "intervene.add", "intervene.zero", "intervene.swap"]
SEQUENTIAL = KINDS["sequential-own-keys-alibi"]


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    found = among_all(kind)[check]
    assert found.verdict is Verdict.PASS, found


def dropped(edit: Edit) -> Edit:
    """The hook is called, and what it gives back is not used."""

    def act(value: Tensor) -> None:
        edit(value)

    return act


def in_layer(layer: int, end: str) -> EditChange:
    return at(f"blocks.{layer}.{end}", dropped)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("check", EDITS)
@pytest.mark.parametrize(
    "end", ["ln1.hook_normalized", "attn.hook_q", "attn.hook_attn_scores", "attn.hook_result", "mlp.hook_pre"]
)
def test_an_edit_that_is_ignored_is_found_where_it_is(judge: Judge, broken: Broken, end: str, check: str) -> None:
    found = judge(check, adapter=broken(altered(forward=in_layer(1, end))))
    assert (found.verdict, found.where, found.message) == (
        Verdict.FAIL,
        f"blocks.1.{end}",
        "the edit changes nothing",
    )


def test_a_scale_is_never_set_to_zero(judge: Judge, broken: Broken) -> None:
    """It is divided by: neither model would be one afterwards."""
    ignored = altered(forward=at("hook_scale", dropped))
    assert judge("intervene.zero", adapter=broken(ignored)).verdict is Verdict.PASS
    assert judge("intervene.replace", adapter=broken(ignored)).where == "blocks.0.ln1.hook_scale"


def test_an_edit_of_one_head_at_one_position_that_spreads_is_found(judge: Judge, broken: Broken) -> None:
    def spread(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor | None:  # [batch, pos, head, d_head]
            edited = edit(value)
            if edited is None:
                return None
            changed = (edited != value).any(3, keepdim=True).any(1, keepdim=True)
            return edited if bool(changed.all()) else edited.where(~changed, edited[:, 2:3])

        return act

    found = judge("intervene.replace", adapter=broken(altered(forward=at("attn.hook_z", spread))))
    assert found.verdict is Verdict.FAIL
    assert (found.where or "").startswith("blocks.0.attn.hook_z")


def test_an_edit_that_reaches_only_one_of_two_readers_is_found(judge: Judge, broken: Broken) -> None:
    """The stream between attention and MLP is read by a norm and by the sum at the block's end."""

    def norm_only(name: str) -> str:
        return name.replace("hook_resid_mid", "ln2.hook_normalized")

    found = judge("intervene.zero", adapter=broken(altered(target=norm_only)), config=SEQUENTIAL)
    # Such a hook shows another tensor, so it is told there and not asked for edits.
    assert found.verdict is Verdict.PASS
    shown = judge("hooks.values", adapter=broken(altered(target=norm_only)), config=SEQUENTIAL)
    assert (shown.verdict, shown.where) == (Verdict.FAIL, "blocks.0.hook_resid_mid")


def test_points_that_show_another_value_are_not_asked(judge: Judge, broken: Broken) -> None:
    wrong = altered(forward=at("attn.hook_z", lambda edit: lambda value: edit(value * 2)))
    for check in EDITS:
        assert judge(check, adapter=broken(wrong)).verdict is Verdict.PASS
