"""What can be asked for is said once, in the fields of a request; every door has what it says there."""

from __future__ import annotations

import dataclasses

import pytest

import verifier
from verifier import cli
from verifier.errors import Inconclusive, UsageError
from verifier.record.known_failure import NARROWING
from verifier.requests.cases import select_cases
from verifier.requests.configuration import known_keys
from verifier.requests.option import Door
from verifier.requests.python import PythonOptions, python_request
from verifier.requests.request import RunRequest, options


def test_every_field_can_be_asked_for_through_some_door() -> None:
    fields = {one.name for one in dataclasses.fields(RunRequest)} - {"configured"}
    assert options().keys() == fields
    assert all(option.doors for option in options().values())


@pytest.mark.parametrize(("command", "door"), [("run", Door.RUN), ("fuzz", Door.FUZZ), ("selftest", Door.SELFTEST)])
def test_a_command_has_the_options_of_its_door(command: str, door: Door) -> None:
    there = {name for one in cli.cli.commands[command].params for name in one.opts}
    assert {"family" if name == "family" else f"--{one.flag}" for name, one in options(door).items()} <= there


def test_python_has_the_types_and_the_words_of_its_options() -> None:
    assert PythonOptions.__annotations__.keys() == options(Door.PYTHON).keys()
    assert all(option.help_for(Door.PYTHON) in str(verifier.run.__doc__) for option in options(Door.PYTHON).values())


def test_what_narrows_a_run_is_recorded() -> None:
    recorded = {option.key for option in options().values() if option.recorded}
    assert set(NARROWING) - {"fuzz", "items"} <= recorded


def test_each_example_of_a_key_is_of_that_key() -> None:
    assert all(option.example.startswith(f"{key} = ") for key, option in known_keys().items())


def test_a_value_from_python_is_read_as_everywhere_else() -> None:
    made = python_request("falcon", "bridge", {"where": {"alibi": True}, "only": "qkv", "timeout": "2m", "gate": None})
    assert (made.where, made.only, made.timeout, made.gate) == (("alibi=true",), ("qkv",), 120, ())
    with pytest.raises(UsageError, match=r"^seed must be a whole number from 0 to 4294967295, not 1\.5$"):
        python_request("falcon", "bridge", {"seed": 1.5})
    with pytest.raises(UsageError, match=r"there is no option 'wheer' \(did you mean 'where'\?\)"):
        python_request("falcon", "bridge", {"wheer": "alibi=true"})


def test_what_a_quick_run_lacks_is_inconclusive() -> None:
    where = ("new_decoder_architecture=false,multi_query=true,alibi=true,num_kv_heads=12",)
    assert select_cases(RunRequest(family="falcon", where=where))
    with pytest.raises(
        Inconclusive, match=r"^no case of 'falcon' of those of --quick is as --where asks; nothing ran$"
    ):
        select_cases(RunRequest(family="falcon", where=where, quick=True))


def test_a_repeated_gate_is_kept_once() -> None:
    assert RunRequest(family="falcon", gate=("skip", "reduced", "skip")).gate == ("skip", "reduced")
