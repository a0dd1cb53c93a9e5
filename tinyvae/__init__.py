"""tinyvae: watch, exactly, what a variational autoencoder does at every training step.

The public names are those of names.py, which is read when the first of them is asked for: so the program can answer
Ctrl-C from its first moment, and not only when NumPy has been loaded.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .names import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):  # those are asked for by Python's own machinery
        if find_spec(f"tinyvae.{name}"):  # first: while names.py is read, files import each other
            return import_module(f"tinyvae.{name}")
        names = import_module("tinyvae.names")
        if hasattr(names, name):
            globals()[name] = getattr(names, name)  # asked for once
            return globals()[name]
    raise AttributeError(f"module 'tinyvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name in vars(import_module("tinyvae.names")) if name[0] != "_")})
