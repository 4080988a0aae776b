"""Forkservers that need not import torch: they are forked from a process that has imported it, and done nothing else.

Every change of adapter, and every edit of one, gives the engine a new forkserver, of which the suite has some hundred;
each would import torch and transformers anew. What a forkserver preloads beside them it still imports for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import multiprocessing.util
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any

from verifier.engine import preload

# What a test may have taken over from the process that starts a forkserver: its standard streams.
_STREAMS = (0, 1, 2)
# Received file descriptors wait above what is in use, until each can have its number.
_ABOVE = 300
_MOST_DESCRIPTORS = 32
_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


class Template:
    """The process that forkservers are forked from, started when the first one is wanted; it ends with this one."""

    def __init__(self) -> None:
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def close(self) -> None:
        """End it; it reads to the end of what it is told."""
        if self._running is not None:
            process, connection = self._running
            connection.close()
            process.wait()

    def fork(self, code: str, descriptors: Sequence[int]) -> int:
        """Fork a process that runs the code, with these file descriptors under their numbers; its pid."""
        if self._running is not None and self._running[0].poll() is not None:
            self.close()  # something killed it; without a new one every later test would fail too
            self._running = None
        if self._running is None:
            self._running = _started()
        _, connection = self._running
        given = [*_STREAMS, *descriptors]
        order = {
            "code": code,
            "descriptors": given,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "group": os.getpgrp(),
            "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
        text = json.dumps(order).encode()
        # Who forked it ends at once; a subreaper then becomes its parent, as if it had started it. For that moment
        # alone: orphans of other processes are left to the system.
        _subreaper(True)
        try:
            socket.send_fds(connection, [len(text).to_bytes(8)], given)
            connection.sendall(text)
            return int.from_bytes(_received(connection, 8))
        finally:
            _subreaper(False)


@contextlib.contextmanager
def forked_from(template: Template) -> Iterator[None]:
    """Inside, `multiprocessing` has its forkservers from the template."""
    before = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]

    def spawn(path: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1]:
            return int(before(path, arguments, descriptors))
        return template.fork(arguments[-1], descriptors)

    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[attr-defined]
    try:
        yield
    finally:
        multiprocessing.util.spawnv_passfds = before  # type: ignore[attr-defined]


def _started() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        number = theirs.fileno()
        # What a forkserver is told to preload is not for its template.
        not_told = (preload.VARIABLE, preload.OWNER, preload.SAFE_PATH)
        told = {name: value for name, value in os.environ.items() if name not in not_told}
        # In a group of its own: what ends a test's processes, as `timeout` does, signals the whole group.
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(number)], pass_fds=[number], env=told, process_group=0
        )
    return process, ours


def _subreaper(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


# --- in the template -------------------------------------------------------------------------------------------------


def serve(connection: socket.socket) -> None:
    """Import what every forkserver preloads, then fork one for each order, until nobody can give any."""
    path = list(sys.path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _heavy():
        __import__(name)
    sys.modules.pop("verifier.engine.preload", None)  # it does its work when it is imported, in the forkserver
    sys.path[:] = path
    while True:
        head, descriptors, _flags, _address = socket.recv_fds(connection, 8, _MOST_DESCRIPTORS)
        if not head:
            return
        order = json.loads(_received(connection, int.from_bytes(head)))
        connection.sendall(_forked(order, connection, descriptors).to_bytes(8))
        for descriptor in descriptors:
            os.close(descriptor)


def _heavy() -> list[str]:
    from verifier.checks import MODULES
    from verifier.engine.server import HEAVY

    return [*HEAVY, *(f"verifier.checks.{module}" for module in MODULES)]


def _forked(order: dict[str, Any], connection: socket.socket, descriptors: list[int]) -> int:
    """The pid of a new forkserver, whose own parent has ended."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            connection.close()
            os.close(reading)
            os.close(writing)
            while os.getppid() == parent:
                time.sleep(0.001)  # it is to be the child of whoever gave the order
            _run(order, descriptors)
        os.write(writing, child.to_bytes(8))
        os._exit(0)
    os.waitpid(between, 0)
    os.close(writing)
    pid = int.from_bytes(os.read(reading, 8))
    os.close(reading)
    return pid


def _run(order: dict[str, Any], descriptors: list[int]) -> None:
    """Be what was ordered."""
    status = 1
    try:
        waiting = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        for descriptor, number in zip(waiting, order["descriptors"], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.setpgid(0, order["group"])
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, order["blocked"])
        sys.argv = ["-c"]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(order["code"], vars(main))
        status = 0
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        serve(given)
