"""Before the first process of a run is started: make sure that this machine lets it start, and sweep what is left over.

What is missing here would otherwise be told as a fault of whatever is imported first, or of the adapter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import resource
import tempfile

from verifier.errors import UsageError, VerifierError
from verifier.output import text
from verifier.system.temporary import sweep, temporary_folder

_SOCKET_NAME = 107  # the bytes of a socket's name in a folder, on Linux
_BELOW_TEMPORARY = len("/verifier-4194304-abcdefgh/listener-abcdefgh")
_FILES, _FILES_PER_WORKER = 64, 8  # a run without an adapter that opens files has a third of them open
_ADDRESS_SPACE = 2**30  # importing torch and transformers takes three quarters of it


def prepare(workers: int = 1) -> None:
    """Make sure that processes can be started, and remove the temporary folders of runs that died.

    Args:
        workers: how many processes run at the same time.

    Raises:
        UsageError: the folder for temporary files cannot be used.
        VerifierError: this process may not have as many files or as much memory as a run needs.
    """
    _require_temporary_folder()
    _require_files(_FILES + _FILES_PER_WORKER * workers)
    _require_memory()
    sweep()
    _place_sockets()


def _require_temporary_folder() -> None:
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError("there is no folder for temporary files: let TMPDIR name one") from error
    most = _SOCKET_NAME - _BELOW_TEMPORARY
    if (length := len(os.fsencode(place))) > most:
        raise UsageError(
            f"TMPDIR has {length} characters, and a socket in it would have a longer name than the system allows: let "
            f"it name a folder of at most {most}"
        )


def _require_files(wanted: int) -> None:
    """Make sure that this process, and those that it starts, may have as many files open; more are asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and hard < wanted:
        raise VerifierError(
            f"a process may have {hard} files open here, and this run needs {wanted}: raise it (`ulimit -n {wanted}`)"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _require_memory() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY and soft < _ADDRESS_SPACE:
        raise VerifierError(
            f"a process may have {text.size(soft // 2**20 * 2**20)} of address space, and one that runs cases needs "
            f"{text.size(_ADDRESS_SPACE)}: raise it (`ulimit -v {_ADDRESS_SPACE // 1024}`)"
        )


@functools.cache  # one folder a process, as long as it lives
def _place_sockets() -> None:
    """Let `multiprocessing` have its sockets in a folder of ours, which is swept where its own would stay."""
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if "tempdir" in config:  # somebody has used it before, or this process was started by it
        return
    resources = contextlib.ExitStack()
    config["tempdir"] = str(resources.enter_context(temporary_folder()))
    atexit.register(_leave, resources, os.getpid())


def _leave(resources: contextlib.ExitStack, owner: int) -> None:
    """Remove the folder as the process ends that made it, but not as a fork of that process ends."""
    if os.getpid() == owner:
        resources.close()
