"""`verifier report`: which report it writes, and where."""

from __future__ import annotations

import dataclasses
import json

import pytest
from made_records import outcome, rows_fail, specs

from verifier import cli
from verifier.analysis.view import view_record
from verifier.faults.selftest import MutantResult
from verifier.judging.outcome import Verdict
from verifier.report import html, kill_table, markdown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    status: int
    out: str
    err: str

    @property
    def line(self):
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def report(capsys):
    """The command, run in this process."""

    def run(*arguments):
        status = cli.main(["report", *map(str, arguments)])
        said = capsys.readouterr()
        return _Ended(status=status, out=said.out, err=said.err)

    return run


@pytest.fixture
def record(make):
    return make(specs(), rows_fail)


def _kills():
    caught = outcome("qkv.rows", Verdict.FAIL, measured=0.5, bound=1e-14)
    return [
        MutantResult(fault="no bias", what="the bias is left out", check="qkv.rows", outcome=caught, case=specs()[0]),
        MutantResult(fault="wrong rows", what="rows are swapped", check="qkv.rows", tried=3),
        MutantResult(
            fault="no cache", what="the cache is stale", check="cache.decoding", unable="the adapter offers none"
        ),
    ]


@pytest.fixture
def selftest(tmp_path):
    """What `verifier selftest --json` writes."""
    path = tmp_path / "selftest.json"
    path.write_text(kill_table.as_json(_kills(), "toy", "mine:Adapter"))
    return path


# --- which report ----------------------------------------------------------------------------------------------------


def test_the_page_is_written_beside_the_record(report, record):
    ended = report(record.path)
    page = record.path.with_name("report.html")
    assert (ended.status, ended.err, ended.out) == (0, "", f"{page}\n")
    assert page.read_text() == html.render([view_record(record)])


def test_markdown_goes_to_the_standard_output(report, record):
    before = sorted(record.path.parent.iterdir())
    ended = report(record.path.parent, "--format", "markdown")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == markdown.render([view_record(record)])
    assert sorted(record.path.parent.iterdir()) == before


def test_markdown_goes_into_a_file_if_one_is_named(report, record, tmp_path):
    path = tmp_path / "new" / "summary.md"
    ended = report(record.path, "--format", "markdown", "--out", path)
    assert (ended.status, ended.err, ended.out) == (0, "", f"{path}\n")
    assert path.read_text() == markdown.render([view_record(record)])


def test_several_records_are_set_side_by_side_in_both(report, record, tmp_path):
    ended = report(record.path, record.path, "--format", "markdown")
    assert ended.out.startswith("## Side by side\n")
    assert report(record.path, record.path, "--out", tmp_path / "both.html").status == 0
    assert 'id="together"' in (tmp_path / "both.html").read_text()
    assert report(record.path, record.path).line == "verifier: name the page of several records with --out FILE"


def test_a_report_that_is_there_is_replaced_whole_and_nothing_else_is_left(report, record, tmp_path):
    path = tmp_path / "out" / "report.html"
    for _ in range(2):
        assert report(record.path, "--out", path).status == 0
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_a_format_that_is_none_is_told_in_one_line(report, record):
    ended = report(record.path, "--format", "markdwon")
    assert (ended.status, ended.out) == (2, "")
    assert "must be one of html, markdown, not 'markdwon' (did you mean 'markdown'?)" in ended.line


def test_a_file_that_cannot_be_written_is_told_in_one_line(report, record, tmp_path):
    (tmp_path / "file").write_text("")
    ended = report(record.path, "--format", "markdown", "--out", tmp_path / "file" / "summary.md")
    assert (ended.status, ended.out) == (2, "")
    assert "cannot write the report" in ended.line


# --- a self-test in it -----------------------------------------------------------------------------------------------


def test_a_selftest_is_shown_with_its_counts(report, record, selftest):
    assert report(record.path, "--selftest", selftest).status == 0
    page = record.path.with_name("report.html").read_text()
    assert "3 pairs of fault and check, planted in toy × mine:Adapter: 1 caught, 1 survived, 1 not tried." in page
    for needed in ("the bias is left out", "fail: 5e+13 × the bound", "the adapter offers none"):
        assert needed in page
    made = report(record.path, "--selftest", selftest, "--format", "markdown").out
    assert "3 pairs of planted fault and check: 1 caught, 1 survived, 1 not tried." in made


def test_of_several_selftests_that_of_the_adapter_is_shown(report, record, selftest, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(kill_table.as_json(_kills()[:1], "toy", "other:Adapter"))
    for files in ((other, selftest), (selftest, other)):
        made = report(record.path, *(f"--selftest={file}" for file in files), "--format", "markdown").out
        assert "3 pairs of planted fault and check" in made


def test_a_selftest_of_another_family_is_not_shown(report, record, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(kill_table.as_json(_kills(), "falcon", "mine:Adapter"))
    assert "planted fault" not in report(record.path, "--selftest", other, "--format", "markdown").out


RIGHT = json.loads(kill_table.as_json(_kills(), "toy", "mine:Adapter"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no self-test, as `verifier selftest FAMILY --json FILE` writes it"),
        (b"{", "is no self-test, as"),
        (b"\xff\xfe", "is no self-test, as"),
        (b"[" * 100_000, "is no self-test, as"),
        (b"[]", "is no self-test, as"),
        (b"3", "is no self-test, as"),
        (b"null", "is no self-test, as"),
        (b'{"kind": "run"}', "is no self-test, as"),
        (json.dumps({**RIGHT, "kills": None}).encode(), "is no self-test, as"),
        (json.dumps({**RIGHT, "kills": ["a"]}).encode(), "is no self-test, as"),
        (json.dumps({**RIGHT, "kills": [{"fault": "a"}]}).encode(), "is no self-test, as"),
        (json.dumps({**RIGHT, "adapter": 3}).encode(), "the file's `adapter` must be a text"),
        (
            json.dumps({**RIGHT, "kills": [{**RIGHT["kills"][0], "evidence": None}]}).encode(),
            "the file's `kills[0].evidence` must be a text",
        ),
    ],
)
def test_a_file_that_is_no_selftest_is_told_in_one_line(report, record, tmp_path, content, said):
    path = tmp_path / "selftest.json"
    path.write_bytes(content)
    ended = report(record.path, "--selftest", path)
    assert (ended.status, ended.out) == (2, "")
    assert repr(str(path)) in ended.line
    assert said in ended.line
    assert not record.path.with_name("report.html").exists()


def test_a_selftest_that_is_not_there_is_told_in_one_line(report, record, tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path / "file" / "below.json"):
        ended = report(record.path, "--selftest", path)
        assert (ended.status, ended.out) == (2, "")
        assert ended.line.startswith(f"verifier: cannot read the self-test {str(path)!r}: ")
    ended = report(record.path, "--selftest", tmp_path)
    assert ended.status == 2
    assert "is a folder" in ended.line
