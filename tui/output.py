"""What goes out: text of others is shown literally, no encoding stops the program, a lost reader is noticed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LONGEST = 1000  # characters of a text of others that are shown


def printable(text: object) -> str:
    """A text from outside (a file's name, a share line) with its control characters written out, as \\x1b.

    What a terminal would take for a command, or turn around, is seen and does nothing.
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: LONGEST + 1])
    return shown if len(str(text)) <= LONGEST else shown[:LONGEST] + "…"


def prepare_streams() -> None:
    """No character stops the program where the encoding lacks it, and a stream that is closed is an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open as long as the program)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def give_up_stdout() -> None:
    """Nothing more can be written there, and nothing more is to be said about it at the end."""
    with suppress(OSError, ValueError):  # a test's stdout has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def last_words(code: int) -> Iterator[None]:
    """What is printed after the run: where a signal has ended it, the terminal may be gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        if code < 128:
            raise
        give_up_stdout()
