"""Ctrl-C, SIGTERM and SIGHUP end the program as its own end does; the exit code says which of them it was."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_came: list[int] = []  # the exit codes of the signals so far
SAYS = {130: "interrupted", 143: "terminated", 129: "the terminal has gone"}
PATIENCE = 8.0  # seconds that the app has to close: a terminal that is gone can block it for ever


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end, with this exit code."""

    def __init__(self, code: int):
        super().__init__(SAYS.get(code, ""))
        self.code = code


def exit_code(stop: KeyboardInterrupt) -> int:
    return stop.code if isinstance(stop, Stopped) else 130


def listen(answer: Callable[[int], None]) -> None:
    """Call `answer` with the exit code at the first of these signals; the next one has its usual effect.

    A signal that is ignored, as under nohup, stays ignored. One that came before counts, too: the exception that it
    raised may have met code that lets no exception pass.
    """

    def handle(number: int, _: Any) -> None:
        _came.append(128 + number)
        for each in NUMBERS:
            if signal.getsignal(each) is handle:
                signal.signal(each, signal.SIG_DFL)
        answer(128 + number)

    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    if _came:
        answer(_came[0])


def stop(code: int) -> None:
    raise Stopped(code)


def ignore_interrupts() -> None:
    """In a process that works for this one, which a Ctrl-C reaches, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave_in_time(code: int, last: Callable[[], None]) -> None:
    """End the process after a while in any case, with `last` as the last thing that it does."""

    def leave() -> None:
        try:
            last()
        finally:
            os._exit(code)

    timer = threading.Timer(PATIENCE, leave)
    timer.daemon = True
    timer.start()


def end_with_parent(answer: Callable[[int], None]) -> None:
    """Call `answer`, from a thread, when the process that started this one has gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        answer(129)

    threading.Thread(target=watch, daemon=True).start()
