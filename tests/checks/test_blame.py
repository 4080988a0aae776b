"""An exception is blamed on the innermost frame that is an adapter's, and on nobody where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import FalconConfig

from verifier.adapter import Inputs
from verifier.checks.blame import find_frame, find_site, format_traceback
from verifier.reference import models

ADAPTER = """
import torch
import transformers

def mine():
    return {}["missing"]

def through_torch():
    return torch.nn.Linear(2, 3)(torch.ones(5))

def through_hf():
    return transformers.FalconConfig(hidden_size="wide")

def through_itself_twice():
    return through_torch()

def called_back(fn):
    return fn()

def from_text():
    exec("1 / 0")
"""


# Where an adapter's file may lie, and what of that is the same on every machine.
PLACES = {
    "user/wrapping.py": "wrapping.py",
    "user/src/mine/wrapping.py": "mine/wrapping.py",
    "user/src/mine/one/two/wrapping.py": "one/two/wrapping.py",
    "lib/site-packages/wrapping.py": "wrapping.py",
    "lib/site-packages/mine/wrapping.py": "mine/wrapping.py",
    "lib/dist-packages/mine/one/two/wrapping.py": "one/two/wrapping.py",
}


@pytest.fixture(params=PLACES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An adapter's file: in a user's folder, in a package, and installed."""
    path = tmp_path / str(request.param)
    path.parent.mkdir(parents=True)
    if "/src/" in str(request.param):
        for folder in path.parents:
            if folder.name == "src":
                break
            (folder / "__init__.py").touch()
    path.write_text(ADAPTER)
    return path


@pytest.fixture
def adapter(source: Path) -> dict[str, Callable[..., object]]:
    names: dict[str, Callable[..., object]] = {}
    exec(compile(source.read_text(), str(source), "exec"), names)
    return names


def raised(function: Callable[..., object], *given: object) -> BaseException:
    """What it raises, as the harness catches it."""
    error: BaseException | None = None
    try:
        function(*given)
    except Exception as caught:
        error = caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
    assert error is not None
    return error


def place(source: Path, function: str) -> str:
    [end] = [end for whole, end in PLACES.items() if source.match(whole)]
    return f"{end}:{function}"


@pytest.mark.parametrize("function", ["mine", "through_torch", "through_hf"])
def test_the_adapters_frame_is_named(adapter: dict[str, Callable[..., object]], source: Path, function: str) -> None:
    assert find_site(raised(adapter[function])) == place(source, function)


def test_of_several_the_innermost_is_named(adapter: dict[str, Callable[..., object]], source: Path) -> None:
    assert find_site(raised(adapter["through_itself_twice"])) == place(source, "through_torch")


def test_what_is_raised_elsewhere_is_blamed_on_the_adapter_that_called_it(
    adapter: dict[str, Callable[..., object]], source: Path
) -> None:
    for elsewhere in (FalconConfig.from_dict, json.loads, models.forward):
        assert find_site(raised(adapter["called_back"], elsewhere)) == place(source, "called_back")


def test_code_without_a_file_is_passed_over(adapter: dict[str, Callable[..., object]], source: Path) -> None:
    assert find_site(raised(adapter["from_text"])) == place(source, "from_text")


@pytest.mark.parametrize(
    "function",
    [
        lambda: torch.nn.functional.linear(torch.ones(2), torch.ones(3, 3)),
        lambda: models.forward(torch.nn.Linear(2, 2), Inputs()),
        lambda: json.loads("{"),
    ],
    ids=["torch", "the harness", "the standard library"],
)
def test_where_no_adapter_is_nobody_is_blamed(function: Callable[[], object]) -> None:
    error = raised(function)
    trace = error.__traceback__
    assert trace is not None
    assert find_site(error.with_traceback(trace.tb_next)) is None


def test_hf_alone_is_not_blamed() -> None:
    assert find_site(raised(FalconConfig.from_dict)) is None


def test_the_same_file_is_named_alike_on_every_machine(
    adapter: dict[str, Callable[..., object]], source: Path, tmp_path: Path
) -> None:
    site = find_site(raised(adapter["mine"]))
    assert site == place(source, "mine")
    assert find_frame(site, format_traceback(raised(adapter["mine"]))) == (str(source), 6)
    assert tmp_path.name not in site
    assert not any(character.isdigit() for character in site)


def test_a_traceback_keeps_its_end() -> None:
    def deep(levels: int) -> None:
        if not levels:
            raise ValueError("at the bottom")
        if levels % 2:  # by turns from two lines, or the traceback would say "repeated"
            deep(levels - 1)
        deep(levels - 1)

    lines = format_traceback(raised(deep, 100)).splitlines()
    assert len(lines) <= 60
    assert lines[-1] == "ValueError: at the bottom"
