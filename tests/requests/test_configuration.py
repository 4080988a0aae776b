"""What a project configures is found, read with suspicion, and gives way to the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.adapter import DEFAULT
from verifier.errors import UsageError
from verifier.requests.configuration import Configuration, known_keys, read
from verifier.requests.option import Door
from verifier.requests.values import SIZE


def write(folder: Path, text: str, name: str = "verifier.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_without_a_file_there_is_the_default_adapter(tmp_path):
    assert read(tmp_path) == Configuration()
    assert read(tmp_path).adapter == DEFAULT


@pytest.mark.parametrize(
    ("name", "head"), [("pyproject.toml", "[tool.verifier]\n"), ("verifier.toml", "")], ids=["shared", "own"]
)
def test_both_files_have_the_same_keys(tmp_path, name, head):
    text = (
        'family = "toy"\nadapter = ["mine:A", "mine:B"]\nbaseline = "known.toml"\nonly = ["qkv"]\n'
        'where = ["alibi=true"]\nseed = 7\nworkers = 2\ntimeout = "2m"\nmemory = "1G"\nout = "results"\n'
        'gate = ["reduced", "skip"]\n'
    )
    path = write(tmp_path, head + text, name)
    found = read(tmp_path)
    assert found.file == path
    assert found.settings == {
        "family": "toy",
        "adapter": ("mine:A", "mine:B"),
        "baseline": (Path("known.toml"),),
        "only": ("qkv",),
        "where": ("alibi=true",),
        "seed": 7,
        "workers": 2,
        "timeout": 120,
        "memory": 2**30,
        "out": Path("results"),
        "gate": ("reduced", "skip"),
    }
    assert found.settings.keys() == known_keys().keys()


@pytest.mark.parametrize(("written", "seconds"), [("90", 90), ("1.5", 1.5), ('"90s"', 90), ('"2 h"', 7200), ("0", 0)])
def test_a_duration_is_a_number_or_a_text(tmp_path, written, seconds):
    write(tmp_path, f"timeout = {written}")
    assert read(tmp_path).settings == {"timeout": seconds}


def test_the_nearest_file_with_settings_counts(tmp_path):
    above = write(tmp_path, 'family = "above"')
    write(tmp_path / "inner", '[project]\nname = "inner"', "pyproject.toml")
    assert read(tmp_path / "inner" / "deep").file == above
    nearer = write(tmp_path / "inner", "[tool.verifier]\nseed = 1", "pyproject.toml")
    found = read(tmp_path / "inner" / "deep")
    assert (found.file, found.settings) == (nearer, {"seed": 1})


def test_paths_start_at_the_file(tmp_path):
    write(tmp_path, 'baseline = ["known.toml"]\nout = "results"')
    (tmp_path / "deep").mkdir()
    assert read(tmp_path / "deep").settings == {"baseline": (Path("../known.toml"),), "out": Path("../results")}


def test_two_files_in_one_folder_contradict_each_other(tmp_path):
    write(tmp_path, "seed = 1")
    write(tmp_path, "[tool.verifier]\nseed = 2", "pyproject.toml")
    with pytest.raises(UsageError, match=r"both .*pyproject\.toml and .*verifier\.toml configure verifier"):
        read(tmp_path)


def test_a_file_without_settings_contradicts_nothing(tmp_path):
    own = write(tmp_path, "seed = 1")
    write(tmp_path, "[tool.other]\nseed = 2", "pyproject.toml")
    assert read(tmp_path).file == own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 3", "unknown key 'seeds' (did you mean 'seed'?)"),
        ("colour = 3", "unknown key 'colour'; the keys are family, adapter"),
        ("[tool.verifier]\nseed = 3", "in verifier.toml the keys stand at the top"),
        ("seed = -1", "`seed` must be a whole number from 0 to 4294967295, not -1; for example seed = 7"),
        ("seed = 4294967296", "`seed` must be a whole number"),
        ("seed = true", "`seed` must be a whole number"),
        ("workers = 0", "`workers` must be a whole number from 1, not 0; for example workers = 2"),
        ("workers = 1.5", "`workers` must be a whole number"),
        ("family = 3", '`family` must be a text, not 3; for example family = "name"'),
        ('family = " "', "`family` must be a text"),
        ("adapter = []", "`adapter` must name one, or several in a list"),
        ('adapter = ["a", 3]', "`adapter` must be a text, not 3"),
        ('only = "qkv"', "`only` must be a list, not 'qkv'; for example only = ["),
        ('timeout = "soon"', "as in 90s), not 'soon'; for example timeout = \"90s\""),
        ("timeout = true", "`timeout` must be a duration"),
        ("timeout = -1", "`timeout` must be a duration"),
        ("timeout = nan", "`timeout` must be a duration"),
        ('memory = "4X"', "as in 4G), not '4X'; for example memory = \"4G\""),
        ('gate = ["redcued"]', "must be one of reduced, upstream, skip, not 'redcued' (did you mean 'reduced'?)"),
        ('gate = ["fail"]', "`gate` must be one of reduced, upstream, skip, not 'fail'"),
        ("seed = ", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_what_would_be_right(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read(tmp_path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value).strip()


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "verifier.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)


def test_a_section_that_is_no_table_is_told(tmp_path):
    write(tmp_path, "[tool]\nverifier = 3", "pyproject.toml")
    with pytest.raises(UsageError, match="must be a table"):
        read(tmp_path)


# --- settings and options --------------------------------------------------------------------------------------------


def configured(**settings) -> Configuration:
    return Configuration(file=Path("verifier.toml"), settings=settings)


def test_what_is_not_given_is_filled():
    found = configured(family="toy", adapter=("mine:A",), seed=7, gate=("skip",), out=Path("results"))
    filled = found.complete({}, Door.FUZZ)
    used = ("family", "adapter", "seed")
    assert filled == {"family": "toy", "adapters": ("mine:A",), "seed": 7, "configured": used}


def test_the_command_line_wins():
    filled = configured(seed=7).complete({"seed": 0}, Door.RUN)
    assert filled["seed"] == 0
    assert filled["configured"] == ()


def test_cases_that_are_named_are_not_narrowed_by_a_setting():
    filled = configured(where=("alibi=true",), seed=7).complete({"cases": Path("cases")}, Door.RUN)
    assert filled.keys() == {"cases", "adapters", "configured"}
    assert filled["configured"] == ()


def test_no_limit_is_configured_where_no_process_can_be_ended():
    for given in ({"isolation": False}, {"pdb": True}):
        assert "timeout" not in configured(timeout=3.0, workers=2).complete(given, Door.RUN)


def test_of_several_adapters_none_is_picked():
    with pytest.raises(UsageError, match="names 2 adapters, and here one is wanted: give --adapter"):
        configured(adapter=("mine:A", "mine:B")).complete({}, Door.FUZZ)


def test_without_a_setting_the_default_adapter_is_filled():
    assert Configuration().complete({}, Door.FUZZ) == {"adapters": (DEFAULT,), "configured": ()}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("unknown family 'tyo'", "unknown family 'tyo' (`family` in verifier.toml)"),
        ("--where: toy has no flag 'y'", "--where: toy has no flag 'y' (`where` in verifier.toml)"),
        ("the disk is full", "the disk is full"),
    ],
)
def test_an_error_names_the_file_where_its_cause_stands_there(error, said):
    found = configured(family="tyo", where=("x",))
    assert str(found.blame(UsageError(error), ("family", "where"))) == said


@pytest.mark.parametrize(("text", "count"), [("512M", 512 * 2**20), ("1.5k", 1536), ("7", 7), ("2 T", 2**41)])
def test_sizes_are_read(text, count):
    assert SIZE.read(text) == count


@pytest.mark.parametrize("text", ["", "G", "4 GiB", "-1", "1e3", "4G4"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="must be a size \\(a number and one of k, m, g, t, as in 4G\\)"):
        SIZE.read(text)
