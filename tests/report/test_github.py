"""What GitHub is told: escaped as its toolkit does, no more than it shows, at the line that is to blame."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import HOSTILE, outcome, rows_fail, specs

from verifier.analysis.view import view_record
from verifier.checks import blame
from verifier.judging.outcome import Verdict
from verifier.record.known_failure import BaselineState, EntryState, KnownFailure, Settled
from verifier.report import github

COMMAND = re.compile(r"::(?P<kind>error|notice) (?P<properties>[^:]*)::(?P<message>[^\r\n]*)")


def _unescaped(one):
    for code, character in {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}.items():
        one = one.replace(code, character)
    return one


def _read(line):
    """As the runner reads a command: kind, properties, message."""
    found = COMMAND.fullmatch(line)
    assert found is not None, line
    properties = dict(one.split("=", 1) for one in found["properties"].split(","))
    return (
        found["kind"],
        {name: _unescaped(value) for name, value in properties.items()},
        _unescaped(found["message"]),
    )


def _annotations(*records, workspace=Path("/nowhere")):
    return [_read(line) for line in github.commands([view_record(one) for one in records], workspace)]


def _many(number):
    """As many failures, each with a place of its own."""

    def fails(spec, check):
        return (
            outcome(check, Verdict.FAIL, where=f"place {chr(97 + CASES.index(spec))}") if check == "qkv.rows" else None
        )

    return specs()[:number], fails


CASES = specs()


# --- the commands ----------------------------------------------------------------------------------------------------


def test_a_failure_is_an_error_that_says_where_and_how_to_see_it(make):
    ((kind, properties, message),) = _annotations(make(specs(), rows_fail))
    assert kind == "error"
    assert properties == {"title": "qkv.rows FAIL in 6 of 12 cases (toy × mine 1)"}
    facts = dict(line.split(": ", 1) for line in message.splitlines())
    assert facts["where"] == "blocks.0.attn.hook_q"
    assert facts["measured"] == "0.5 against a bound of 1e-14"
    assert facts["rule"].startswith("bias (")
    assert facts["smallest"] == "bias=true"
    assert facts["reproduce"].startswith("verifier repro ")


def test_what_is_upstream_is_a_notice(make):
    def fails(spec, check):
        return outcome(check, Verdict.UPSTREAM, message="HF") if check == "reference.acceptance" else None

    assert [kind for kind, _, _ in _annotations(make(specs(), fails))] == ["notice"]
    assert [kind for kind, _, _ in _annotations(make(specs(), fails, asked={"gate": ["upstream"]}))] == ["error"]


def test_a_run_that_conforms_has_none(make):
    assert _annotations(make(specs())) == []


def test_a_run_that_does_not_conform_without_a_failure_says_so(make):
    ((kind, properties, message),) = _annotations(make(specs(), stop=None, planned=20))
    assert (kind, properties["title"]) == ("error", "INTERRUPTED (toy × mine 1)")
    assert "8 cases never run" in message
    assert "cut off" in message


def test_a_known_failure_that_is_fixed_points_into_the_baseline(make, tmp_path):
    failure = KnownFailure(fingerprint="abc", check="qkv.rows", rule="bias", spec=specs()[6], reason="because")
    held = BaselineState(
        path="known.toml",
        asked={},
        ran={},
        settled=(Settled(failure=failure, state=EntryState.FIXED, message="it passes"),),
    )
    (tmp_path / "known.toml").write_text('family = "toy"\n\n[[known]]\nfingerprint = "abc"\n')
    found = replace(make(specs()), held=held)
    ((kind, properties, message),) = _annotations(found, workspace=tmp_path)
    assert (kind, properties["file"], properties["line"]) == ("error", "known.toml", "4")
    assert "known failure abc of qkv.rows FIXED" in properties["title"]
    assert "verifier baseline --remove abc --out known.toml" in message
    assert "file" not in _annotations(found)[0][1]


def test_no_more_are_written_than_are_shown(make):
    for number in (github.MOST_ANNOTATIONS, github.MOST_ANNOTATIONS + 1):
        found = _annotations(make(*_many(number)))
        assert len(found) == github.MOST_ANNOTATIONS
        last = found[-1][1]["title"]
        assert ("more" in last) is (number > github.MOST_ANNOTATIONS)
    assert last == "… and 2 more"


def test_several_records_share_what_a_step_may_show(make):
    one = make(*_many(6))
    found = _annotations(one, one)
    assert len(found) == github.MOST_ANNOTATIONS
    assert found[-1][1]["title"] == "… and 3 more"
    assert "(record 2)" in found[7][1]["title"]


@pytest.mark.parametrize("bad", ["a%0Ab", "::error::x", "a\r\nb", "a,b:c=d", HOSTILE])
def test_texts_are_escaped_as_the_toolkit_does(make, bad):
    def fails(spec, check):
        if check != "qkv.rows":
            return None
        return outcome(check, Verdict.ERROR, message=bad, where=bad, exception=bad, site=bad, detail=bad)

    (line,) = github.commands([view_record(make(specs(), fails, adapter_name=bad))], Path("/nowhere"))
    kind, properties, message = _read(line)
    assert (kind, set(properties)) == ("error", {"title"})
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", line)
    assert "reproduce: verifier repro" in message


def test_escaping_goes_back():
    annotation = github.Annotation(kind="error", title="a: 50%, b\n", message=["x: 1%0A", "y"], place=("a,b:c.py", 3))
    assert annotation.command == "::error file=a%2Cb%3Ac.py,line=3,title=a%3A 50%25%2C b%0A::x: 1%250A%0Ay"


# --- the place -------------------------------------------------------------------------------------------------------

TRACEBACK = """Traceback (most recent call last):
  File "/opt/verifier/checks/build.py", line 3, in adapter
    subject = case.subject()
  File "{root}/mine/adapter.py", line 2, in wrap
    return self.split(model)
  File "{root}/mine/adapter.py", line 4, in split
    raise ValueError
  File "/opt/site-packages/torch/nn.py", line 9, in view
ValueError
"""


@pytest.fixture
def workspace(tmp_path):
    place = tmp_path / "repository"
    (place / "mine").mkdir(parents=True)
    (place / "mine" / "adapter.py").write_text("1\n2\n3\n4\n")
    return place


def _failed(detail, root, function="split"):
    site = f"{root.name}/mine/adapter.py:{function}"
    return outcome("build.adapter", Verdict.ERROR, site=site, detail=detail.format(root=root))


def test_the_place_is_the_adapters_innermost_frame(workspace):
    assert github.place_of(_failed(TRACEBACK, workspace), workspace) == ("mine/adapter.py", 4)
    assert github.place_of(_failed(TRACEBACK, workspace, "wrap"), workspace) == ("mine/adapter.py", 2)


def test_the_place_of_a_process_that_died_is_the_first_frame_of_its_stack(workspace):
    stack = "Current thread 0x1 (most recent call first):\n" + "".join(
        f'  File "{{root}}/mine/adapter.py", line {line} in split\n' for line in (3, 4)
    )
    assert github.place_of(_failed(stack, workspace), workspace) == ("mine/adapter.py", 3)


def test_a_traceback_that_an_adapter_raises_is_found_again():
    """What is written where it is raised and what is read where it is shown fit together."""
    space = {}
    exec(compile("def wrap():\n    raise ValueError('no')", "/elsewhere/mine/adapter.py", "exec"), space)
    with pytest.raises(ValueError, match="no") as caught:
        space["wrap"]()
    site, detail = blame.find_site(caught.value), blame.format_traceback(caught.value)
    assert site == "adapter.py:wrap"  # where it lies is nothing that machines have in common
    assert blame.find_frame(site, detail) == ("/elsewhere/mine/adapter.py", 2)


def test_of_another_machine_the_longest_end_of_the_path_counts(workspace):
    assert github.place_of(_failed(TRACEBACK, Path("/home/runner/work/x")), workspace) == ("mine/adapter.py", 4)
    installed = Path("/usr/lib/python3/site-packages")
    assert github.place_of(_failed(TRACEBACK, installed), workspace) == ("mine/adapter.py", 4)


def test_what_is_installed_inside_the_workspace_is_no_place(workspace):
    installed = workspace / ".venv" / "site-packages"
    (installed / "mine").mkdir(parents=True)
    (installed / "mine" / "adapter.py").write_text("1\n2\n3\n4\n")
    assert github.place_of(_failed(TRACEBACK, installed), workspace) == ("mine/adapter.py", 4)
    (workspace / "mine" / "adapter.py").unlink()
    assert github.place_of(_failed(TRACEBACK, installed), workspace) is None


@pytest.mark.parametrize(
    ("path", "line"),
    [("{root}/mine/../mine/adapter.py", 4), ("/etc/passwd", 1), ("{root}/mine/adapter.py", 400), ("x" * 5_000, 1)],
)
def test_no_other_file_is_a_place(workspace, path, line):
    path = path.format(root=workspace)
    detail = f'  File "{path}", line {line}, in split\n'
    site = f"{Path(*Path(path).parts[-3:])}:split"
    failed = outcome("build.adapter", Verdict.ERROR, site=site, detail=detail)
    assert blame.find_frame(site, detail) == (path, line)
    assert github.place_of(failed, workspace) is None


def test_without_a_traceback_there_is_no_place(workspace):
    assert github.place_of(outcome("qkv.rows", Verdict.FAIL, where="x"), workspace) is None


# --- the summary -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_in_the_summary_already_counts(make):
    one = view_record(make(specs(), rows_fail))
    alone = github.step_summary([one], 0)
    assert github.step_summary([one], 500_000) == alone
    many = [one] * 1000
    for before in (0, 500_000, github.SUMMARY_BYTES - github.LEAST_SUMMARY):
        made = github.step_summary(many, before)
        assert 0.9 * (github.SUMMARY_BYTES - before) - 100_000 < len(made.encode()) <= github.SUMMARY_BYTES - before
        assert "cut here" in made
    assert github.step_summary([one], github.SUMMARY_BYTES - 10) is None
