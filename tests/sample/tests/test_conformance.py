"""The adapter conforms: the harness' cases and checks, in this project's own tests."""

from pathlib import Path

from verifier import parametrize_with_checks

KNOWN = Path(__file__).parent.parent / "verifier-known.toml"


@parametrize_with_checks(
    "falcon",
    adapter="sample-lens",
    baseline=KNOWN,
    only=["hooks.values", "forward.logits"],  # to be quick, as in pyproject.toml
    where="new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,num_kv_heads=none",
)
def test_conforms(case, check):
    check(case)
