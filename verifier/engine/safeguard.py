"""Put back what a case may have patched of Python, where the harness still has to say what went wrong."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import json
import linecache
import os
import re
import reprlib
import sys
import time
import tokenize
import traceback

import msgspec

# What is needed to describe an exception, to encode the description, and to hand it on.
_MODULES = (
    builtins,
    contextlib,
    dataclasses,
    functools,
    inspect,
    io,
    itertools,
    json,
    linecache,
    msgspec,
    os,
    re,
    reprlib,
    sys,
    time,
    tokenize,
    traceback,
)
# The functions and classes of each; its other values are settings, which a case may have good reasons to change.
_KEPT = tuple(
    (vars(module), {name: value for name, value in vars(module).items() if callable(value)}) for module in _MODULES
)


def restore() -> None:
    """Put back the functions and classes of these modules, as they were when this module was imported.

    Nothing is called here but methods of `dict`, which nobody can patch: the built-in functions may be gone.
    """
    for namespace, kept in _KEPT:
        namespace.update(kept)
