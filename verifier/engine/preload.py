"""Imported by the forkserver alone: what every worker needs is imported once, here, before the first fork.

Python's own preloading (up to 3.13 at least) swallows import errors, dies of any other exception, and knows nothing
of entries that were put into `sys.path`; so the forkserver preloads this module only, and what is to be imported
comes in an environment variable. A module that fails here fails again in the worker, which reports it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence

from verifier.engine.descendants import adopt_orphans
from verifier.engine.guard import guard_from_above
from verifier.engine.process import redirect_output

VARIABLE = "VERIFIER_PRELOAD"
OWNER = "VERIFIER_COORDINATOR"  # the process that starts the forkserver, which may be gone by the time this runs
SAFE_PATH, OURS = "PYTHONSAFEPATH", "verifier"  # Python asks only whether the variable has a value


def spell(modules: Sequence[str], attributes: Sequence[tuple[str, str]], folders: Sequence[str]) -> str:
    """Spell the variable's value: modules, lazily imported attributes of them, and the first folders of `sys.path`.

    Args:
        modules: the names of the modules.
        attributes: pairs of a module's name and the name of an attribute in it.
        folders: the folders that imports search before all others.
    """
    return json.dumps([list(modules), [list(pair) for pair in attributes], list(folders)])


def preload(spelt: str) -> None:
    """Import what `spell` spelt; what fails is left to the workers."""
    modules, attributes, folders = json.loads(spelt)
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    with _nothing_collected(), _orphans_kept():
        for module in modules:
            # Code from outside may raise anything at import, SystemExit included; the worker sees it again and says so.
            with contextlib.suppress(BaseException):
                importlib.import_module(module)
        for module, attribute in attributes:
            with contextlib.suppress(BaseException):
                getattr(importlib.import_module(module), attribute)


@contextlib.contextmanager
def _orphans_kept() -> Iterator[None]:
    """Adopt what is started inside the block and loses its parent: a server that a module starts serves all workers."""
    adopt_orphans()
    try:
        yield
    finally:
        adopt_orphans(False)


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Collect no garbage inside the block, and never look through the objects that exist at its end.

    What is imported stays, and looking through it takes a fifth of the time of importing torch and transformers. Each
    worker's first collection would copy every memory page of it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


if VARIABLE in os.environ:
    if os.environ.get(SAFE_PATH) == OURS:
        del os.environ[SAFE_PATH]  # what an adapter starts is to look for its modules as ever
    # What imports print would break a progress bar; a worker repeats a failing import and keeps its output.
    redirect_output(os.devnull)
    guard_from_above(int(os.environ.pop(OWNER)))
    preload(os.environ.pop(VARIABLE))
