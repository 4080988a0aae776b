"""`verifier doctor`: what is here, what a run would be, and what is in its way."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs
from packaging.requirements import Requirement
from user_adapters import FEW

from verifier.commands.doctor import diagnosing
from verifier.engine import isolated_imports
from verifier.errors import ExitStatus

BASELINE = """
schema = 1
family = "falcon"
adapter = "mine:Right"

[[failure]]
id = "abcdefgh"
check = "build.adapter"
rule = "every case"
reason = "it is so"
expires = {expires}
case = '{{"family": "falcon", "config": {{}}}}'
"""


@pytest.fixture
def place(tmp_path, monkeypatch, folder) -> Path:
    """A folder with the user's adapters, in which the command is given."""
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def register(tmp_path_factory, monkeypatch):
    """Installs a distribution that registers something of its own."""

    def install(names: dict[str, str], source: str) -> None:
        site = tmp_path_factory.mktemp("site")
        (site / "outside_thing.py").write_text(source)
        info = site / "outside_thing-3.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-thing\nVersion: 3.1\n")
        points = [f"[{group}]\n{name} = outside_thing:Thing\n" for group, name in names.items()]
        (info / "entry_points.txt").write_text("".join(points))
        monkeypatch.setenv("PYTHONPATH", str(site))
        monkeypatch.setattr(sys, "path", [*sys.path, str(site)])

    return install


@pytest.fixture
def everything_loads(monkeypatch):
    """No process is asked: it takes seconds to hear that all is well."""

    def ask(questions, **limits):
        found = {"valid": 3, "refused": 2, "checks": 1}
        return [
            isolated_imports.Answer(status=ExitStatus.CONFORMS, said="well", seconds=1.0, found=found)
            for _ in questions
        ]

    monkeypatch.setattr(isolated_imports, "ask", ask)


def section(out: str, title: str) -> list[str]:
    """The lines under a title."""
    lines = iter(out.splitlines())
    for line in lines:
        if line.startswith(title):
            break
    found = []
    for line in lines:
        if not line.startswith(" "):
            break
        found.append(" ".join(line.split()))
    return found


def test_everything_is_told(verifier, place):
    (place / "verifier.toml").write_text(
        f'family = "falcon"\nadapter = "mine:Right"\nonly = ["qkv"]\nwhere = ["{FEW}"]\nworkers = 1\n'
        'timeout = "2m"\nmemory = "1G"\nbaseline = "known.toml"\n'
    )
    (place / "known.toml").write_text(BASELINE.format(expires="2999-01-31"))
    ended = verifier("doctor")
    assert ended.status == 0
    assert ended.err == ""
    assert any(line.startswith("torch built for") for line in section(ended.out, "Here"))
    installed = [line.split()[0] for line in section(ended.out, "Installed")]
    assert {"torch", "transformers", "hypothesis", "pytest", "pytest-xdist", "numpy", "pandas"} <= set(installed)
    registered = " ".join(section(ended.out, "Registered"))
    assert "family falcon verifier.families.falcon:FalconFamily, from adapter-verifier" in registered
    assert "adapter mine:Right mine:Right; loads in" in registered
    configured = section(ended.out, f"Configured: {place / 'verifier.toml'}")
    assert {"family file falcon", "seed default 0", "timeout file 120 s", "memory file 1 GiB"} <= set(configured)
    planned = " ".join(section(ended.out, "`verifier run` here"))
    assert "mine:Right falcon: 4 valid cases, 0 refused by HF, 6 checks; 1 worker" in planned
    assert "1 known failure in known.toml, the next until 2999-01-31; into reports/falcon-mine-Right" in planned
    assert ended.out.splitlines()[-1] == "`verifier run` would begin here"
    assert not (place / "reports").exists()


def test_without_anything_configured_a_family_must_be_named(verifier, place, everything_loads):
    ended = verifier("doctor")
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "`verifier run FAMILY` would begin here"
    assert "family default none: `verifier run` must name one" in section(ended.out, "Configured: no file")


def test_a_wrong_configuration_is_told_and_the_rest_too(verifier, place, everything_loads):
    (place / "verifier.toml").write_text("seeds = 3")
    ended = verifier("doctor", "falcon", "--adapter", "mine:Right")
    assert ended.status == 2
    assert f"✗ {place / 'verifier.toml'}: it has an unknown key 'seeds' (did you mean 'seed'?)" in ended.out
    assert "3 valid cases" in " ".join(section(ended.out, "`verifier run` here"))
    assert ended.out.splitlines()[-1] == "`verifier run` would not begin here"


def test_settings_that_name_nothing_are_told(verifier, place):
    (place / "verifier.toml").write_text('family = "falcon"\nadapter = "brigde"\nonly = ["bulid"]')
    ended = verifier("doctor")
    assert ended.status == 2
    assert "✗ unknown adapter 'brigde' (did you mean 'bridge'?)" in ended.out
    assert f"(`adapter` in {place / 'verifier.toml'})" in ended.out
    assert "✗ no check matches 'bulid' (did you mean 'build'?)" in ended.out
    assert ended.out.count("✗") == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('baseline = "known.toml"', "✗ cannot read the baseline 'known.toml'"),
        ('out = "mine.py/below"', "✗ results cannot be written into 'mine.py/below'"),
    ],
)
def test_a_path_that_will_not_do_is_told(verifier, place, everything_loads, settings, said):
    (place / "verifier.toml").write_text(f'family = "falcon"\n{settings}')
    ended = verifier("doctor")
    assert ended.status == 2
    assert said in ended.out


def test_an_adapter_that_does_not_load_is_told(verifier, place):
    (place / "broken.py").write_text("import no_such_module_at_all")
    ended = verifier("doctor", "falcon", "--adapter", "broken:Adapter")
    assert ended.status == 3
    assert "✗ adapter 'broken:Adapter' raised at import: ModuleNotFoundError" in ended.out
    assert "`python -c 'import broken'` shows where" in ended.out


@pytest.mark.slow
def test_what_others_registered_matters_where_a_run_loads_it(verifier, place, register):
    register({"verifier.adapters": "one", "verifier.checks": "two"}, "raise ValueError('not today')")
    ended = verifier("doctor", "falcon", "--adapter", "mine:Right")
    assert "! adapter 'one' raised at import: ValueError: not today" in ended.out
    assert "✗ check 'two' raised at import: ValueError: not today" in ended.out
    assert "outside-thing 3.1 adapter one" in section(ended.out, "Installed")
    assert ended.status == 3


def test_a_baseline_that_is_over_is_told(verifier, place, everything_loads):
    yesterday = datetime.now(UTC).date() - timedelta(days=2)
    (place / "verifier.toml").write_text('family = "falcon"\nadapter = "mine:Right"\nbaseline = "known.toml"')
    (place / "known.toml").write_text(BASELINE.format(expires=yesterday))
    ended = verifier("doctor")
    assert ended.status == 0
    assert f"! 'known.toml': abcdefgh was accepted until {yesterday}, so that the run will not conform" in ended.out


def test_what_is_not_installed_is_told(verifier, place, register, monkeypatch, everything_loads):
    register({"verifier.adapters": "one"}, "Thing = None")  # its distribution, outside-thing, is of version 3.1
    wanted = [
        (Requirement("outside-thing>=4"), "needed"),
        (Requirement("no-thing>=3"), "needed"),
        (Requirement("if-there"), "extra dev"),
    ]
    monkeypatch.setattr(diagnosing, "requirements", lambda: wanted)
    out = verifier("doctor").out
    outside = "outside-thing is installed as 3.1, and wanted as >=4 (needed)\n  pip install 'outside-thing>=4'"
    assert f"! {outside}" in out
    assert "! no-thing is not installed (needed)\n  pip install 'no-thing>=3'" in out
    assert out.count("pip install") == 2


def test_workers_that_want_more_memory_than_there_is_are_told(verifier, place, monkeypatch, everything_loads):
    monkeypatch.setattr(diagnosing, "free_memory", lambda: 3 * 2**30)
    (place / "verifier.toml").write_text('family = "falcon"\nadapter = "mine:Right"\nworkers = 4\nmemory = "1G"')
    out = verifier("doctor").out
    assert "! 4 workers may take 1,024 MiB each, and 3,072 MiB are free" in out
    assert "--memory 768M, or fewer --workers" in out


def test_a_file_with_the_harnesss_name_is_told(verifier, place, everything_loads):
    (place / "verifier.py").write_text("")
    ended = verifier("doctor", "falcon", "--adapter", "mine:Right")
    assert ended.status == 0
    assert f"! '{place / 'verifier.py'}' has the name of this harness" in ended.out


def test_what_an_adapter_says_of_itself_does_not_reach_the_terminal(verifier, place, everything_loads, monkeypatch):
    ask = isolated_imports.ask
    monkeypatch.setattr(
        isolated_imports,
        "ask",
        lambda *given, **limits: [structs.replace(one, said="\x1b]0;title\x07") for one in ask(*given, **limits)],
    )
    ended = verifier("doctor", "falcon", "--adapter", "mine:Hostile")
    assert "\x1b" not in ended.out
    assert "loads in 1.0 s: \\x1b]0;title\\x07" in " ".join(ended.out.split())


def test_all_of_it_is_there_as_json(verifier, place, everything_loads):
    ended = verifier("doctor", "falcon", "--adapter", "mine:Right", "--json", "doctor.json")
    assert ended.status == 0
    found = json.loads((place / "doctor.json").read_text())
    assert found["status"] == 0
    assert found["planned"][0]["valid"] == 3
    assert {one["key"]: one["source"] for one in found["settings"]}["family"] == "command line"
    assert {one["name"] for one in found["registered"] if one["loads"]} >= {"falcon", "mine:Right"}


@pytest.mark.slow
def test_the_standard_output_is_json_alone_where_that_is_asked_for(place):
    script = (
        "import sys\nfrom verifier.cli import main\nstatus = main(['doctor', '--json', '-'])\n"
        "heavy = {'torch', 'transformers', 'hypothesis', 'rich'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["problems"] == []
