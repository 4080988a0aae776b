"""What shrinking ended with is found again, and whatever else is in its folder does no harm."""

from __future__ import annotations

import pytest
from hypothesis.database import choices_to_bytes

from verifier.fuzz.remembered import Remembered

SIZES = [2, 3, 9]


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_later_campaign_finds_it(tmp_path):
    Remembered(tmp_path).keep("abcdefgh", (0, 2, 8))
    assert Remembered(tmp_path).of("abcdefgh", SIZES) == ((0, 2, 8),)
    assert Remembered(tmp_path).of("another", SIZES) == ()


def test_one_choice_is_remembered_of_a_failure(tmp_path):
    for choice in ((1, 2, 8), (0, 2, 8), (0, 0, 8)):
        Remembered(tmp_path).keep("abcdefgh", choice)
    assert Remembered(tmp_path).of("abcdefgh", SIZES) == ((0, 0, 8),)


def test_without_a_folder_it_is_forgotten_at_the_end():
    remembered = Remembered(None)
    remembered.keep("abcdefgh", (0, 2, 8))
    assert remembered.of("abcdefgh", SIZES) == ((0, 2, 8),)
    assert Remembered(None).of("abcdefgh", SIZES) == ()


def test_looking_writes_nothing(tmp_path):
    assert Remembered(tmp_path / "choices").of("abcdefgh", SIZES) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"\xff" * 64,
        choices_to_bytes((0, 2)),
        choices_to_bytes((0, 2, 8, 0)),
        choices_to_bytes((0, 2, 9)),
        choices_to_bytes((0, -1, 8)),
        choices_to_bytes((False, 2, 8)),
        choices_to_bytes((0.0, 2, 8)),
        choices_to_bytes(("0", 2, 8)),
    ],
)
def test_what_is_no_choice_is_left_aside(tmp_path, stored):
    remembered = Remembered(tmp_path)
    remembered.keep("abcdefgh", (0, 2, 8))
    for path in files(tmp_path):
        path.write_bytes(stored)
    assert remembered.of("abcdefgh", SIZES) == ()
    remembered.keep("abcdefgh", (0, 2, 8))
    assert remembered.of("abcdefgh", SIZES) == ((0, 2, 8),)


def test_a_folder_that_is_none_does_no_harm(tmp_path):
    file = tmp_path / "choices"
    file.write_text("no folder")
    remembered = Remembered(file)
    remembered.keep("abcdefgh", (0, 2, 8))
    assert remembered.of("abcdefgh", SIZES) == ()
    assert file.read_text() == "no folder"
