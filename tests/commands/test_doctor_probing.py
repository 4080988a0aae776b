"""What code from outside does at its import costs one answer."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from verifier.commands.doctor import imports
from verifier.engine import server
from verifier.engine.isolated_imports import ask
from verifier.errors import ExitStatus
from verifier.requests.request import RunRequest

SOURCES = {
    "right": "class Adapter:\n    name = 'right'\n    version = '2'\n    def wrap(self, model): ...",
    "loud": "print('noise' * 100_000)\nclass Adapter:\n    name = version = 'loud'\n    def wrap(self, model): ...",
    "raises": "raise ValueError('two\\nlines')",
    "exits": "import sys\nsys.exit(0)",
    "quits": "import os\nprint('goodbye', flush=True)\nos._exit(7)",
    "dies": "import os\nos.abort()",
    "none": "Adapter = 3",
}


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Asks whether the adapters of these modules load."""
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)

    def given(*names, seconds=60.0):
        questions = [partial(imports.describe, "adapter", f"{name}:Adapter") for name in names]
        return ask(questions, at_once=2, seconds=seconds)

    return given


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("right", ExitStatus.CONFORMS, "right 2"),
        ("loud", ExitStatus.CONFORMS, "loud loud"),
        ("raises", ExitStatus.BROKEN, "adapter 'raises:Adapter' raised at import: ValueError: two lines"),
        ("exits", ExitStatus.BROKEN, "adapter 'exits:Adapter' raised at import: SystemExit: 0"),
        ("quits", ExitStatus.BROKEN, "the process that imported it ended with exit status 7: goodbye"),
        ("dies", ExitStatus.BROKEN, "the process that imported it was ended by SIGABRT"),
        ("none", ExitStatus.USAGE, "'none:Adapter' is no adapter: it is an int"),
        ("gone", ExitStatus.USAGE, "adapter 'gone:Adapter': there is no module 'gone' here or installed"),
    ],
)
def test_an_import_is_told_in_one_answer(answer, name, status, said):
    (found,) = answer(name)
    assert (found.status, found.said) == (status, said)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (partial(imports.describe, "family", "falcno"), "unknown family 'falcno' (did you mean 'falcon'?)"),
        (partial(imports.describe, "adapter", "brigde"), "unknown adapter 'brigde' (did you mean 'bridge'?)"),
        (partial(imports.describe, "check", "none"), "unknown check 'none'; registered: none is installed"),
        (
            partial(imports.count_plan, RunRequest(family="falcon", where=("alibbi=true",))),
            "--where: falcon has no flag, dim or axis 'alibbi'",
        ),
    ],
)
def test_a_wrong_name_is_the_users(question, said):
    (found,) = ask([question], at_once=1, seconds=60.0)
    assert found.status is ExitStatus.USAGE
    assert said in found.said


def test_a_plan_is_counted():
    plan = partial(imports.count_plan, RunRequest(family="falcon", only=("qkv",), where=("alibi=true",), seed=3))
    (found,) = ask([plan], at_once=1, seconds=120.0)
    assert found.status is ExitStatus.CONFORMS
    assert found.found["checks"] == 6
    assert found.found["valid"] + found.found["refused"] > 100


def test_answers_come_in_the_order_of_the_questions(answer):
    assert [one.said for one in answer("right", "loud", "right")] == ["right 2", "loud loud", "right 2"]


@pytest.mark.slow
def test_an_import_that_hangs_is_ended_with_what_it_started(answer, tmp_path):
    (tmp_path / "hangs.py").write_text(
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    (found,) = answer("hangs", seconds=3.0)
    assert (found.status, found.said) == (ExitStatus.BROKEN, "it was not imported after 3 s")
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.05)
    pytest.fail("what it started is still there")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("source", ["import os\nos.abort()", "import time\ntime.sleep(600)"], ids=["dies", "hangs"])
def test_where_what_all_need_cannot_be_imported_each_tries_for_itself(answer, tmp_path, monkeypatch, source):
    (tmp_path / "needed.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(server, "HEAVY", ("needed",))
    try:
        found = answer("right", "raises", seconds=6.0)
    finally:
        server.discard()
    assert [one.said for one in found] == [
        "right 2",
        "adapter 'raises:Adapter' raised at import: ValueError: two lines",
    ]
