"""The known failures of the installed TransformerLens: each has its reason, and they are what it fails in."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from verifier import cli, family, record
from verifier.baseline.file import read
from verifier.record.excusing import rule_holds
from verifier.record.known_failure import Baseline, EntryState

ROOT = Path(__file__).parents[2]
FILE = ROOT / "adapters" / "verifier_lens" / "verifier-known.toml"
# Cases that cannot be wrapped, are split wrongly, add ALiBi twice and are right; the whole of it is run where there
# are minutes for it.
FEW = ("--where", "bias=true,parallel_attn=true,num_ln_in_parallel_attn=none,num_kv_heads=none")
QUICK = ("--only", "build.adapter", "--only", "qkv.rows", "--only", "hooks.fires", "--only", "forward.logits")


@pytest.fixture(scope="module")
def known() -> Baseline:
    return read(FILE)


def _anchors(path: Path) -> set[str]:
    """Of each heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_file_is_finished_and_of_transformer_lens(known: Baseline) -> None:
    assert (known.family, known.adapter) == ("falcon", "transformer-lens")
    assert len(known.failures) > 40
    assert all(re.fullmatch(r"[^\n]{20,400}\.", one.reason) for one in known.failures)


def test_every_entry_is_followed_up_under_a_heading_that_is_there(known: Baseline) -> None:
    for one in known.failures:
        path, _, anchor = one.issue.partition("#")
        assert anchor in _anchors(ROOT / path), one.issue


def test_every_finding_of_the_document_that_fails_is_followed_up(known: Baseline) -> None:
    document = ROOT / "docs" / "transformer-lens-4.3.md"
    sections = re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:]
    failing = {one.partition("\n")[0] for one in sections if "**Reported by**" in one and "No failure." not in one}
    followed = {one.issue.partition("#")[2] for one in known.failures}
    missing = {one for one in failing if re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") not in followed}
    # One corner of rules that are about something else, and no fault of TransformerLens.
    assert missing == {"Not TransformerLens' fault: heads of width 1"}


def test_every_rule_is_true_of_its_own_case(known: Baseline) -> None:
    flags = family.load("falcon").flags()
    beside = [one.fingerprint for one in known.failures if not one.also and not rule_holds(one.rule, one.spec, flags)]
    assert beside == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformer_lens") is None, reason="TransformerLens is not installed")
def test_what_fails_is_known_and_nothing_else_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "falcon", "--adapter", "transformer-lens", *FEW, *QUICK, "--workers", "2"]
    status = cli.main([*arguments, "--baseline", str(FILE), "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert status == 0, said
    found = record.read(tmp_path)
    assert found.held is not None
    assert {one.state for one in found.held.settled} == {EntryState.KNOWN, EntryState.NOT_RUN}
    failing = {entry.fingerprint for entry in found.entries if entry.outcome.verdict.gates}
    assert len(failing) >= 6
    assert said.splitlines()[-1].startswith("falcon × transformer-lens: CONFORMS")
