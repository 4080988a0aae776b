"""What is wrong with an option or with a decorator's argument is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from session_adapters import FEW, decorated

from verifier.checks.superseded import SUPERSEDED

DOOR = ("--verifier-family", "falcon", "--verifier-adapter", "bridge")
WRONG = {
    "family": (("--verifier-family", "falcno"), "unknown family 'falcno' (did you mean 'falcon'?)"),
    "adapter": (("--verifier-family", "falcon", "--verifier-adapter", "brigde"), "(did you mean 'bridge'?)"),
    "glob": ((*DOOR, "--verifier-only", "qvk.*"), "no check matches 'qvk.*'"),
    "flag": ((*DOOR, "--verifier-where", "alibbi=true"), "alibbi"),
    "value": ((*DOOR, "--verifier-where", "alibi=perhaps"), "perhaps"),
    "shape": ((*DOOR, "--verifier-where", "alibi"), "'alibi' is not flag=value"),
    "no case": ((*DOOR, "--verifier-where", "alibi=true,alibi=true"), "names 'alibi' twice"),
    "axis": ((*DOOR, "--verifier-where", "mask=lefft"), "mask has no value 'lefft' (did you mean 'left'?)"),
    "extent": ((*DOOR, "--verifier-quick", "--verifier-everywhere"), "--quick and --everywhere contradict each other"),
    "baseline": ((*DOOR, "--verifier-baseline", "nowhere.toml"), "cannot read the baseline 'nowhere.toml'"),
    "adapter alone": (("--verifier-adapter", "bridge"), "--verifier-adapter needs --verifier-family"),
    "seed alone": (("--verifier-seed", "0"), "--verifier-seed needs --verifier-family"),
    "per alone": (("--verifier-per", "check"), "--verifier-per needs --verifier-family"),
}


@pytest.mark.thinned(9)  # the default run has one value that is wrong, and one option alone
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_option(session, what: str) -> None:
    options, said = WRONG[what]
    done = session(*options)
    assert done.status == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in done.out.splitlines() if line.startswith("ERROR: ")]
    assert len(lines) == 1, done.out
    assert said in lines[0]
    assert "Traceback" not in done.out


def test_a_check_that_is_gone_is_said_to_be_its_observable(session, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SUPERSEDED, "toy.gone", [("forward.outputs", {"mask": "left"})])
    known = tmp_path / "known.toml"
    known.write_text('schema = 1\nfamily = "falcon"\nadapter = "bridge"\n[ran]\n"toy.gone" = 12\n')
    for options, said in (
        (("--verifier-only", "toy.gone"), "toy.gone is now `--only forward.outputs --where mask=left`"),
        (("--verifier-baseline", known), f"`verifier baseline RECORD --out {known}`"),
    ):
        done = session(*DOOR, *options)
        assert done.status == pytest.ExitCode.USAGE_ERROR
        (line,) = [line for line in done.out.splitlines() if line.startswith("ERROR: ")]
        assert said in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", per='cases'", "per must be one of area, check, not 'cases'"),
        (", gate=['redcued']", "gate must be one of reduced, upstream, skip, not 'redcued' (did you mean 'reduced'?)"),
        (", baseline='nowhere.toml'", "cannot read the baseline 'nowhere.toml'"),
        (", preset='falcon-41b'", "falcon-41b"),
    ],
)
def test_a_wrong_argument_of_the_decorator(session, folder: Path, more: str, said: str) -> None:
    (folder / "test_it.py").write_text(decorated('"bridge"', more=more))
    done = session("test_it.py")
    assert done.status == pytest.ExitCode.INTERRUPTED  # as any error of collection ends
    last = [line for line in done.out.splitlines() if line.startswith("E  ")][-1]
    assert last.startswith("E   verifier.errors.UsageError: ")
    assert said in last


@pytest.mark.slow
def test_what_is_no_adapter_is_told_by_the_decorator(session, folder: Path) -> None:
    (folder / "test_it.py").write_text("import mine\n" + decorated("mine.Unnamed()"))
    last = [line for line in session("test_it.py").out.splitlines() if line.startswith("E  ")][-1]
    assert (
        last
        == "E   verifier.errors.UsageError: an object of the class Unnamed is no adapter: it has no `name`, `version`"
    )


CONFIGURED = """\
[tool.verifier]
adapter = "mine:Wrong"
only = ["build.adapter"]
where = ["{where}"]
gate = ["skip"]
timeout = "{timeout}"
"""


@pytest.fixture
def configured(folder: Path):
    place = folder / "pyproject.toml"

    def configure(timeout: str = "90s") -> None:
        place.write_text(CONFIGURED.format(where=FEW, timeout=timeout))

    yield configure
    place.unlink()


@pytest.mark.slow
def test_what_the_command_line_leaves_open_is_as_configured(session, folder: Path, configured) -> None:
    from verifier import record

    configured()
    done = session("--verifier-family", "falcon", "--verifier-out", "kept", "--ignore-glob", "test_*")
    assert done.counts == {"passed": 4}
    run = record.read(folder / "kept" / "falcon-mine-Wrong").run
    assert run.asked["only"] == ["build.adapter"]
    assert run.asked["gate"] == ["skip"]
    assert run.limits["timeout"] == 90.0


@pytest.mark.slow
def test_what_the_command_line_says_wins(session, configured) -> None:
    configured()
    where = ("--verifier-where", FEW + ",bias=true", "--verifier-adapter", "mine:Right")
    done = session("--verifier-family", "falcon", *where, "--ignore-glob", "test_*")
    assert done.counts == {"passed": 2}
    assert "falcon × mine:Right (right 1.0): CONFORMS" in done.out


@pytest.mark.slow
def test_a_wrong_configuration_is_told(session, configured) -> None:
    configured(timeout="soon")
    done = session("--verifier-family", "falcon", "--ignore-glob", "test_*")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert "`timeout` in [tool.verifier] must be a duration" in done.out
