"""Runs cases one after the other, each with a number to have it again by, and counts what they ended in."""

import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 20.0  # seconds of a processor that a case may take; the machine may have other work
MOST = 1 << 30  # bytes that a case may take


class TooLong(BaseException):
    """Not an Exception: the program must not be able to catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TooLong(f"more than {seconds:g} seconds")

    timers = {  # nor may it wait for ever
        signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, 10 * seconds),
    }  # fmt: skip
    before = {number: signal.signal(number, late) for number, _ in timers.values()}
    for timer, (_, after) in timers.items():
        signal.setitimer(timer, after)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def peak() -> int:
    """The most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """The memory that this process has now, bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def play(
    case: Callable[[random.Random], str],
    seed: int,
    first: int,
    count: int,
    seconds: float,
    longest: float = LONGEST,
) -> tuple[Counter[str], list[str]]:
    """What the cases ended in, and those that failed, each as one line. Stops when the time is up."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    deadline = time.monotonic() + seconds
    for k in range(first, first + count):
        if time.monotonic() > deadline:
            break
        before, held = peak(), resident()
        try:
            with limited(longest):
                outcome = case(random.Random(f"{seed} {k}"))
            more = peak() - held if peak() > before else 0
            assert more <= MOST, f"{more / 2**20:.0f} MiB of memory"
            outcomes[outcome] += 1
        except (Exception, TooLong) as problem:
            outcomes["FAILED"] += 1
            where = f"--seed {seed} --first {k} --count 1"
            failures.append(f"{where}: {type(problem).__name__}: {problem} ({peak() >> 20} MiB at most so far)")
    return outcomes, failures
