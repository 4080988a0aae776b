"""A baseline written: it reads back as what was written, and leaves what people wrote as they wrote it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import date

import pytest
from known_toys import ID, baseline, failure, file, spec

from verifier.baseline.file import read
from verifier.baseline.writing import remove, write
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError

ODD = CaseSpec(
    family="toy",
    config={"bias": None, "kind": "it's \"\\ \u00fc", "sizes": [1, 2], "rope": {"type": "linear", "factor": 1.5}},
    label="odd",
    length=9,
    dtypes=("float32",),
    depth="sampled",
)

# As a person leaves it: comments above entries, between them, in them and at the end.
WRITTEN = f"""\
# Ours. Ask Ada before you add one.

schema = 1
family = "toy"
adapter = "mine:Adapter"

[ran]
"qkv.rows" = 12

# --- rows ---

# the first one
[[failure]]
id = "{ID}"
check = "qkv.rows"
rule = "bias"  # and not alibi
# Ada looked at it.
reason = '''
the rows
# are in another order'''
issue = "#7"
case = '{{"family": "toy", "config": {{"bias": true}}}}'

# the second one
[[failure]]
reason = "who knows"
expires = 2027-01-31
case = '{{"family": "toy", "config": {{}}}}'
check = "forward.logits"
id = "second22"

# --- nothing else ---
"""


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "k.toml"
    path.write_text(WRITTEN)
    return path


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "k.toml"
    made = baseline(
        failure(also=("alibi=true heads=4", "a\"b'c\\"), excepted=("heads=1",), spec=ODD, expires=date(2027, 1, 31)),
        failure(fingerprint="second22", rule="kind == 'b\"' and heads < 6"),
        asked={"only": ["qkv"], "everywhere": True},
        ran={"qkv.rows": 12, "forward.logits": 0},
    )
    write(path, made)
    found = read(path)
    assert replace(found, path=made.path, digest=made.digest) == made


def test_what_is_written_without_a_reason_has_room_for_one(tmp_path):
    path = tmp_path / "k.toml"
    write(path, baseline(failure(reason="", issue="")))
    assert 'reason = ""\nissue = ""\n' in path.read_text()
    with pytest.raises(UsageError, match="has no reason"):
        read(path)


def test_the_head_says_what_to_do(tmp_path):
    path = tmp_path / "k.toml"
    write(path, baseline())
    assert path.read_text().startswith("# Failures of mine:Adapter on toy that are accepted, each with the reason.\n")
    assert "`verifier run toy --adapter mine:Adapter --baseline FILE`" in path.read_text()


def test_writing_the_same_again_changes_nothing(tmp_path):
    path = tmp_path / "k.toml"
    made = baseline(failure(also=("a", "b")), failure(fingerprint="second22"), asked={"only": ["qkv"]})
    write(path, made)
    before = path.read_text()
    write(path, made)
    assert path.read_text() == before


def test_what_people_wrote_survives_rewriting(written):
    write(written, baseline(failure(rule="bias and heads", spec=spec()), failure(fingerprint="third333")))
    text = written.read_text()
    assert text.startswith("# Ours. Ask Ada before you add one.\n\nschema = 1\n")
    assert (
        f'# --- rows ---\n\n# the first one\n[[failure]]\nid = "{ID}"\ncheck = "qkv.rows"\nrule = "bias and heads"  '
        "# and not alibi\n# Ada looked at it.\nreason = '''\nthe rows\n# are in another order'''\nissue = \"#7\"\n"
    ) in text
    assert text.endswith("\n# --- nothing else ---\n")
    assert "who knows" not in text
    assert "the second one" not in text
    assert [one.fingerprint for one in read(written, finished=False).failures] == [ID, "third333"]


def test_comments_stay_above_their_entry_whatever_comes_before_it(written):
    entries = (failure(fingerprint="second22"), failure(fingerprint="third333"), failure())
    write(written, baseline(*entries, asked={"only": ["x"]}, ran={"a.b": 1}))
    text = written.read_text()
    assert '# the second one\n[[failure]]\nreason = "who knows"\nexpires = 2027-01-31\n' in text
    assert f'# the first one\n[[failure]]\nid = "{ID}"\n' in text
    found = read(written, finished=False)
    assert [one.fingerprint for one in found.failures] == ["second22", "third333", ID]
    assert (found.asked, found.ran) == ({"only": ["x"]}, {"a.b": 1})


def test_a_comment_on_the_line_of_the_header_stays(written):
    written.write_text(WRITTEN.replace("# the second one\n[[failure]]", "[[failure]]  # since May"))
    write(written, baseline(failure(), failure(fingerprint="second22")))
    assert '\n[[failure]]  # since May\nreason = "who knows"\n' in written.read_text()


def test_what_a_run_no_longer_says_goes(written):
    write(written, baseline(failure(also=("heads=1",), excepted=("heads=4",)), asked={"only": ["x"]}))
    assert read(written).failures[0].also == ("heads=1",)
    write(written, baseline(failure(rule="")))
    found = read(written)
    assert (found.failures[0].rule, found.failures[0].also, found.failures[0].excepted) == ("", (), ())
    assert found.asked == {}


def test_an_entry_that_is_removed_takes_its_comment_with_it_and_nothing_else(written):
    remove(written, ["second22"])
    assert written.read_text() == WRITTEN[: WRITTEN.index("\n# the second one")] + "\n# --- nothing else ---\n"


def test_a_comment_that_stands_apart_from_the_entry_that_is_removed_stays(written):
    remove(written, [ID])
    text = written.read_text()
    assert "# --- rows ---\n" in text
    assert "the first one" not in text
    assert text.endswith(WRITTEN[WRITTEN.index("# the second one") :])


def test_the_last_entry_can_be_removed(written):
    remove(written, ["second22", ID])
    assert read(written).failures == ()
    assert "Ask Ada" in written.read_text()
    assert tomllib.loads(written.read_text())["ran"] == {"qkv.rows": 12}


def test_an_id_that_is_not_there_is_told_with_the_nearest_and_nothing_is_removed(written):
    with pytest.raises(UsageError, match="has no entry 'secnod22' \\(did you mean 'second22'\\?\\)"):
        remove(written, [ID, "secnod22"])
    assert written.read_text() == WRITTEN


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_file_that_ends_anyhow_can_be_added_to(tmp_path, end):
    path = file(tmp_path / "k.toml", {})
    path.write_text(path.read_text().rstrip("\n") + end)
    write(path, baseline(failure(also=("heads=1",)), failure(fingerprint="second22")))
    assert [one.also for one in read(path).failures] == [("heads=1",), ()]


def test_what_is_there_and_no_baseline_is_left_alone(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "mine"\n')
    for change in (lambda: write(path, baseline(failure())), lambda: remove(path, [ID])):
        with pytest.raises(UsageError, match="unknown key 'project'"):
            change()
    assert path.read_text() == '[project]\nname = "mine"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "failure = [{id = 'a', check = 'b', case = '{\"family\": \"toy\", \"config\": {}}'}]",
            r"under \[\[failure\]\]",
        ),
        (
            "[[failure]]\nid = 'a'\ncheck = 'b'\ncase = '{\"family\": \"toy\", \"config\": {}}'\n[ran]\nb = 1\n# so",
            "must stand after everything else",
        ),
    ],
)
def test_a_file_that_cannot_be_rewritten_without_loss_is_left_alone(tmp_path, text, said):
    path = tmp_path / "k.toml"
    path.write_text(f"schema = 1\nfamily = 'toy'\nadapter = 'mine:Adapter'\n{text}")
    before = path.read_text()
    with pytest.raises(UsageError, match=said):
        remove(path, ["a"])
    assert path.read_text() == before


def test_hostile_texts_of_a_record_are_read_back_as_they_were(tmp_path):
    path = tmp_path / "k.toml"
    odd = "'''\"\"\" \\ # [x]\n[[failure]]\nid = 'evil' \x1b[2J \x7f \u202e"
    write(path, baseline(failure(fingerprint=odd, check=odd, also=(odd, "b"), spec=spec(kind=odd)), ran={odd: 1}))
    found = read(path)
    [one] = found.failures
    assert (one.fingerprint, one.check, one.also) == (odd, odd, (odd, "b"))
    assert one.spec.config["kind"] == odd
    assert found.ran == {odd: 1}
    assert "\x1b" not in path.read_text()


def test_what_no_file_can_hold_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a baseline cannot hold '\\ud800', which the record has"):
        write(tmp_path / "k.toml", baseline(failure(check="\ud800")))
    assert not (tmp_path / "k.toml").exists()
