"""What every test stands on: the harness offline, on one thread, and the tiny models that are shared."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Hundreds of processes import the harness: what one has compiled the next one need not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import hypothesis
import pytest
import torch
import transformers
from made_once import MadeOnce
from warm_forkserver import Template, forked_from

from verifier import adapter, family
from verifier.adapter import Adapter
from verifier.families.falcon import FalconFamily
from verifier.observing import reuse
from verifier.reference import kept_answers
from verifier.system import cache_folder

collect_ignore = ["sample"]  # a project of its own, whose tests run in an environment of its own

# Started in a shell's background or by `nohup`, tests inherit that Ctrl-C or a hangup is ignored, which several send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tiny models: a second thread costs more than it gives.
torch.set_num_threads(1)
# How long an example takes hangs on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
transformers.logging.set_verbosity_error()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files lie together, so that what a file's tests share is made once and not in each process."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked as thinned, all but every n-th set of parameters are slow."""
    places: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("thinned")
        if mark is None:
            continue
        function = item.nodeid.partition("[")[0]
        if places[function] % mark.args[0]:
            item.add_marker(pytest.mark.slow)
        places[function] += 1


@pytest.fixture(scope="session")
def falcon() -> FalconFamily:
    """The family that the harness's own tests run on."""
    found = family.load("falcon")
    assert isinstance(found, FalconFamily)
    return found


@pytest.fixture(scope="session")
def bridge() -> Adapter:
    """An adapter that is right, so that what a check finds in it is a wrong check."""
    return adapter.load("bridge")


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own in which what Hugging Face said of configs is kept, by this process and others."""
    monkeypatch.setenv(cache_folder.VARIABLE, str(tmp_path / "answers"))
    kept_answers.forget_answers()
    yield tmp_path / "answers"
    kept_answers.forget_answers()


@pytest.fixture(scope="session")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """What is made once for all processes of this session; alone, a process's own folder is the session's."""
    place = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        place = place.parent
    place = place / "made-once"
    place.mkdir(exist_ok=True)
    return MadeOnce(place=place)


@pytest.fixture(scope="session", autouse=True)
def warm_forkservers() -> Iterator[None]:
    """The engine's forkservers are forked from a process that has torch, and import no more than is theirs."""
    with contextlib.closing(Template()) as template, forked_from(template):
        yield


# Modules that no test wrote: there are thousands of them, to be told from the others before each of thousands of tests.
_nobodys: dict[str, ModuleType] = {}


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test finds no module that another one wrote, many of which are called alike, nor what HF made while a test had
    changed how that is done, and leaves Ctrl-C as it was, which Python's debugger does not."""
    changes = "monkeypatch" in request.fixturenames
    if changes:
        reuse.forget()
    path, written, interrupt = list(sys.path), str(tmp_path_factory.getbasetemp()), signal.getsignal(signal.SIGINT)
    for name, module in list(sys.modules.items()):
        if _nobodys.get(name) is module:
            continue
        if str(vars(module).get("__file__") or "").startswith(written):
            del sys.modules[name]
        else:
            _nobodys[name] = module
    yield
    if changes:
        reuse.forget()
    sys.path[:] = path
    signal.signal(signal.SIGINT, interrupt)
