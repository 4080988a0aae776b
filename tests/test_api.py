"""The command from Python, and its result."""

from __future__ import annotations

import importlib.util
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import verifier
from verifier import Result, adapter, record
from verifier.errors import ExitStatus, ImportFailed, Inconclusive, UsageError
from verifier.reference import models

FEW = "alibi=true,new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,num_kv_heads=none"
ONLY = ("build.adapter", "forward.logits", "forward.causality")
ONE: dict[str, Any] = {"where": f"{FEW},parallel_attn=true,bias=true", "only": ONLY, "progress": False}


class Subject(adapter.Subject):
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def forward(self, inputs: adapter.Inputs) -> adapter.Output:
        return models.forward(self.model, inputs)

    def close(self) -> None:
        pass


class Right:
    name, version = "right <b>&", "1.0"

    def wrap(self, model: torch.nn.Module) -> Subject:
        return Subject(model)


class Wrong(Right):
    """Raises where the config has a bias, in words that want to be markup."""

    def wrap(self, model: Any) -> Subject:
        if model.config.bias:
            raise RuntimeError("no <script>alert('bias')</script>")
        return Subject(model)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "kept"


@pytest.fixture(scope="module")
def wrong(out: Path) -> Result:
    """Two of four cases fail."""
    return verifier.run("falcon", Wrong(), where=FEW, only=ONLY, out=out, progress=False)


@pytest.fixture(scope="module")
def right() -> Result:
    return verifier.run("falcon", Right(), **ONE)


def test_a_right_adapter_conforms(right: Result) -> None:
    assert right.conforms
    assert right.status is ExitStatus.CONFORMS
    assert right.failures == right.upstream == ()
    assert right.rules == {}
    assert right.folder is None
    assert not right.record.path.exists()


def test_a_wrong_one_does_not_and_says_why(wrong: Result) -> None:
    assert not wrong.conforms
    assert wrong.status is ExitStatus.DIFFERS
    (failure,) = wrong.failures
    assert failure.entry.outcome.check == "build.adapter"
    assert len(failure.cases) == 2
    assert wrong.rules == {failure.fingerprint: "bias"}


def test_the_result_says_itself(wrong: Result, right: Result) -> None:
    assert repr(wrong).splitlines()[-1].startswith("falcon × ")
    assert repr(wrong).endswith("DOES NOT CONFORM (1 bug in 2 cases)")
    assert ": CONFORMS: " in repr(right)


def test_record_and_page_are_where_they_were_asked_for(wrong: Result, out: Path) -> None:
    assert wrong.folder == out
    assert {place.name for place in out.iterdir()} == {"record.jsonl", "report.html"}
    assert record.read(out).entries == wrong.record.entries
    assert wrong.failures[0].fingerprint in (out / "report.html").read_text()


def test_a_page_can_be_written_afterwards(right: Result, tmp_path: Path) -> None:
    written = right.report(tmp_path / "page.html")
    assert written.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "nowhere").write_text("")
    with pytest.raises(UsageError, match=r"nowhere.page\.html"):
        right.report(tmp_path / "nowhere" / "page.html")


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open, and keeps the text of each tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def test_a_notebook_shows_verdict_matrix_and_failures(wrong: Result) -> None:
    page = Balanced()
    page.feed(wrong._repr_html_())
    page.close()
    assert page.open == []
    assert set(page.seen) <= {
        "p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "ol", "li", "code", "span"
    }  # fmt: skip
    assert "DOES NOT CONFORM" in "".join(page.texts["strong"])
    assert "right <b>& 1.0" in "".join(page.texts["strong"])
    assert page.texts["th"] == ["combinations", "cases", "build", "forward"]
    assert any("ERROR" in text for text in page.texts["td"])
    assert wrong.failures[0].fingerprint in page.texts["code"]
    assert "fails" in "".join(page.texts["li"])


@pytest.mark.slow
def test_the_command_runs_the_same(wrong: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name the adapter runs in workers; what it says is the same."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    named = verifier.run("falcon", "test_api:Wrong", where=FEW, only=ONLY, workers=1, progress=False)
    mine, theirs = (
        {(entry.case, entry.outcome.check): (entry.outcome.verdict, entry.fingerprint) for entry in one.record.entries}
        for one in (wrong, named)
    )
    assert mine == theirs
    assert named.record.evidence.keys() == wrong.record.evidence.keys()


def test_where_may_be_a_mapping() -> None:
    mapping = {
        "alibi": True, "new_decoder_architecture": False, "multi_query": True, "num_ln_in_parallel_attn": 1,
        "num_kv_heads": None, "parallel_attn": True, "bias": True,
    }  # fmt: skip
    found = verifier.run("falcon", Right(), where=mapping, only="build.adapter", progress=False)
    assert [spec.config["bias"] for spec in found.record.cases.values()] == [True]
    assert found.record.run.asked["only"] == ["build.adapter"]


def test_every_outcome_is_a_row(wrong: Result) -> None:
    pandas = pytest.importorskip("pandas")
    frame = wrong.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(wrong.record.entries)
    assert frame[frame.verdict == "error"].bias.tolist() == [True, True]
    assert set(frame.area) == {"build", "forward"}
    assert {"case", "check", "verdict", "measured", "bound", "where", "message", "fingerprint", "seconds"} <= set(frame)
    assert frame[frame.verdict == "error"].fingerprint.unique().tolist() == [wrong.failures[0].fingerprint]


def test_without_pandas_that_is_said(wrong: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"^to_dataframe needs pandas: pip install pandas$"):
        wrong.to_dataframe()


def test_progress_is_shown_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    verifier.run("falcon", Right(), **{**ONE, "only": "build.adapter", "progress": True})
    assert "1 of 1 case" in capsys.readouterr().err
    verifier.run("falcon", Right(), **{**ONE, "only": "build.adapter"})
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


def test_torch_has_as_many_threads_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        verifier.run("falcon", Right(), **{**ONE, "only": "build.adapter"})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


BASELINE = """\
schema = 1
family = "falcon"
adapter = "{adapter}"
"""


@pytest.mark.slow
def test_a_baseline_excuses(wrong: Result, out: Path, tmp_path: Path) -> None:
    from verifier import cli

    place = tmp_path / "known.toml"
    assert cli.main(["baseline", str(out), "--out", str(place)]) == ExitStatus.CONFORMS
    with pytest.raises(UsageError, match="has no reason"):
        verifier.run("falcon", Wrong(), where=FEW, only=ONLY, baseline=place, progress=False)
    place.write_text(
        place.read_text().replace('reason = ""', 'reason = "so it is"').replace('issue = ""', 'issue = "1"')
    )
    reference = wrong.record.run.adapter
    known = verifier.run("falcon", reference, where=FEW, only=ONLY, baseline=place, progress=False)
    assert known.conforms
    assert known.failures == ()
    assert "1 known failure" in repr(known)


@pytest.mark.parametrize(
    ("arguments", "wishes", "error", "said"),
    [
        (("falcno", "bridge"), {}, UsageError, "unknown family 'falcno' (did you mean 'falcon'?)"),
        (("falcon", "brigde"), {}, UsageError, "unknown adapter 'brigde' (did you mean 'bridge'?)"),
        (("falcon", "no_such_module:X"), {}, UsageError, "there is no module 'no_such_module'"),
        (("falcon", object()), {}, UsageError, "an object of the class object is no adapter: it has no `name`"),
        (("falcon", "bridge"), {"only": "qvk"}, UsageError, "no check matches 'qvk' (did you mean 'qkv'?)"),
        (("falcon", "bridge"), {"where": {"alibbi": True}}, UsageError, "alibbi"),
        (("falcon", "bridge"), {"where": "alibi"}, UsageError, "'alibi' is not flag=value"),
        (("falcon", "bridge"), {"dtypes": ["float8"]}, UsageError, "float8"),
        (
            ("falcon", "bridge"),
            {"gate": ["redcued"]},
            UsageError,
            "gate must be one of reduced, upstream",
        ),
        (("falcon", "bridge"), {"baseline": "nowhere.toml"}, UsageError, "cannot read the baseline 'nowhere.toml'"),
        (("falcon", Right()), {"isolation": True}, UsageError, "name it as 'module:object' to have it isolated"),
        (("falcon", Right()), {"timeout": 3}, UsageError, "need processes of their own"),
        (("falcon", Right()), {"workers": 2}, UsageError, "workers"),
        (("falcon", "bridge"), {"preset": "falcon-7b", "checkpoint": "x"}, UsageError, "give one of them"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[Any, ...], wishes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        verifier.run(*arguments, progress=False, **wishes)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_baseline_of_another_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(BASELINE.format(adapter="other"))
    with pytest.raises(UsageError, match="is of falcon × other, and not of falcon × bridge, as this run"):
        verifier.run("falcon", "bridge", baseline=tmp_path / "known.toml", progress=False)


def test_an_adapter_that_raises_at_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api_broken.py").write_text('raise ValueError("not today")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ImportFailed, match="adapter 'api_broken:X' raised at import: ValueError: not today"):
        verifier.run("falcon", "api_broken:X", **ONE)


def test_no_case_is_no_verdict() -> None:
    with pytest.raises(Inconclusive, match="nothing ran"):
        verifier.run("falcon", Right(), where="activation=relu,alibi=true", progress=False)


def test_nothing_that_looked_is_no_conformance() -> None:
    found = verifier.run("falcon", Right(), **{**ONE, "only": "qkv"})
    assert not found.conforms
    assert found.status is ExitStatus.INCONCLUSIVE
    assert "no check that looks at the adapter ran" in repr(found)


def test_objects_of_one_class_are_told_apart() -> None:
    first, second = Right(), Right()
    names = {adapter.register_instance(first), adapter.register_instance(second), adapter.register_instance(first)}
    assert len(names) == 2
    assert all(adapter.is_registered_instance(name) for name in names)
    assert {id(adapter.load(name)) for name in names} == {id(first), id(second)}
    assert not adapter.is_registered_instance("test_api:Right#99")


def test_a_class_stands_for_what_it_makes() -> None:
    found = verifier.run("falcon", Right, **{**ONE, "only": "build.adapter"})
    assert found.conforms


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    spec = importlib.util.find_spec("verifier")
    assert spec is not None
    assert {"run", "Result", "parametrize_with_checks"} == set(verifier.__all__)
    assert all(callable(getattr(verifier, name)) for name in verifier.__all__)
