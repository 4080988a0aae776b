"""Adapters that break what runs them on models with biases: the harness' pipe, files, functions and messages."""

from __future__ import annotations

SOURCE = '''
import asyncio, builtins, os, pickle, signal, sys, time
import msgspec
from subjects import Biased

def gone(*args, **kwargs):
    raise RuntimeError("it is gone")

class NoLength(Biased):
    def act(self):
        builtins.len = builtins.isinstance = gone

class NoTime(Biased):
    def act(self):
        time.perf_counter = lambda: "soon"

class ClosesFiles(Biased):
    def act(self):
        os.closerange(3, 200)

def sockets():
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                yield number
        except OSError:
            pass

def say(data):
    for number in sockets():
        try:
            os.write(number, len(data).to_bytes(4, "big") + data)
        except OSError:
            pass

class Touches:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)

class SaysCode(Biased):
    def act(self):
        say(pickle.dumps(Touches()))
        time.sleep(20)

class SaysOthers(Biased):
    """Says that a case is over which is not its own."""
    def act(self):
        say(msgspec.msgpack.encode({"type": "CaseFinished", "case": "aaaaaaaa", "seconds": 1.0}))
        time.sleep(20)

class Own(BaseException):
    pass

class RaisesInterrupt(Biased):
    def act(self):
        raise KeyboardInterrupt("mine")

class PressesInterrupt(Biased):
    """As a user does."""
    def act(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

class RaisesOwn(Biased):
    def act(self):
        raise Own("mine")

class RaisesCancelled(Biased):
    def act(self):
        raise asyncio.CancelledError("mine")

class Leaves(Biased):
    def act(self):
        os._exit(1)

class LeavesElsewhere(Biased):
    def act(self):
        self.away()
    def away(self):
        os._exit(1)

class InterruptsImport:
    name, version = "exits", "1"
    def __init__(self):
        raise KeyboardInterrupt("at import")
'''
