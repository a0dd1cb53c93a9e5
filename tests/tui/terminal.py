"""The real program in a (pseudo) terminal, for tests and benchmarks: keys as bytes, a resize as a signal."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time

SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P_^].*?(?:\x07|\x1b\\)|[=>78]|\([A-Z0-9])", re.DOTALL)
# The terminal becomes the one that controls the program, as in a shell: so it is told of a resize.
START = (
    "import fcntl, runpy, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "sys.argv[0] = '-m'; runpy.run_module('tinyvae', run_name='__main__')"  # as `python -m tinyvae` does
)


class Terminal:
    """`python -m tinyvae ARGUMENTS` in a terminal of this size."""

    def __init__(self, *arguments: str, columns: int = 120, rows: int = 36):
        self.end, inside = os.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(inside)
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        environment.pop("LC_ALL", None)
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environment,
        )  # fmt: skip
        self.inside = inside  # kept open, so that the last words can be read after the end
        self.raw = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> None:
        """Take what comes within some time, and then all that is there already."""
        for _ in range(1000):
            if not select.select([self.end], [], [], seconds)[0]:
                break
            self.raw += os.read(self.end, 1 << 16)
            seconds = 0.0
        self.raw = self.raw[-200_000:]  # a second of the app at full speed is about half of that

    @property
    def text(self) -> str:
        """All that was written so far, without the control sequences."""
        return SEQUENCES.sub("", self.raw.decode("utf-8", "replace"))

    def send(self, keys: str) -> None:
        self.raw = b""  # from here on only what comes after
        os.write(self.end, keys.encode())

    def wait_for(self, *words: str, seconds: float = 30.0) -> str:
        deadline = time.monotonic() + seconds
        while not all(word in self.text for word in words):
            assert self.process.poll() is None, self.text[-2000:]
            assert time.monotonic() < deadline, f"{words} did not appear in\n{self.text[-3000:]}"
            self.read(0.2)
        return self.text

    def wait_for_the_end(self, seconds: float = 20.0) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-2000:]
            self.read(0.1)  # a program that cannot write would never end
        for _ in range(3):
            self.read(0.05)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.end)
        os.close(self.inside)
