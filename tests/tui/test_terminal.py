"""The real program in a real (pseudo) terminal: keys as bytes, a resize as a signal, and what is left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("termios", reason="Windows has no pseudo terminals")
import fcntl
import termios

SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P_^].*?(?:\x07|\x1b\\)|[=>78]|\([A-Z0-9])", re.DOTALL)
# The terminal becomes the one that controls the program, as in a shell: so it is told of a resize.
START = (
    "import fcntl, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "runpy.run_module('tinyvae', run_name='__main__')"
)
QUICK = ["--points", "40", "--hidden", "8", "--batch", "16"]


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


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


LAST_LINE = r"arc step (\d+): log_px -?\d+\.\d{4}  elbo -?\d+\.\d{4}  .* residual \S+  error \S+"


def test_a_session_from_start_to_quit(terminals):
    terminal = Terminal(*QUICK)
    terminals.append(terminal)
    terminal.wait_for("log pθ(x)", "KL(q‖pθ(z|x))", "θ ● training", "the identity closes to", "▶")
    terminal.send("t")
    terminal.wait_for("θ ○ frozen")
    terminal.wait_for("✓ θ frozen ⇒ log p constant")
    terminal.send(" ")
    terminal.wait_for("‖ paused")
    terminal.raw = b""
    terminal.resize(80, 24)
    terminal.wait_for("log pθ(x)", "1 log p(x) and its bound")
    terminal.send("q")
    assert terminal.wait_for_the_end() == 0
    found = re.search(LAST_LINE, terminal.text)
    assert found is not None, terminal.text
    assert int(found[1]) >= 1
    raw = terminal.raw.decode("utf-8", "replace")
    left, line = raw.index("\x1b[?1049l"), raw.index("arc step")
    assert left < line  # the line is on the user's own screen
    assert "\x1b[?25h" in raw  # the cursor is back
    assert termios.tcgetattr(terminal.inside) == terminal.before  # and so is the echo
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("speed", ["max", "1"])
def test_quitting_while_it_trains_is_clean(terminals, speed):
    terminal = Terminal(*QUICK, "--speed", speed)
    terminals.append(terminal)
    terminal.wait_for("▶", "the identity closes to")
    time.sleep(1.0)
    terminal.send("q")
    assert terminal.wait_for_the_end() == 0, terminal.text
    assert "Traceback" not in terminal.text
    assert re.search(LAST_LINE, terminal.text)


def test_a_run_that_diverges_stays_on_screen_and_says_so_at_the_end(terminals):
    terminal = Terminal(*QUICK, "--learning-rate", "5", "--speed", "max")
    terminals.append(terminal)
    terminal.wait_for("■ diverged", "is not finite")
    terminal.send("q")
    assert terminal.wait_for_the_end() == 3
    assert re.search(LAST_LINE, terminal.text)
    assert "Traceback" not in terminal.text


def test_bad_input_never_touches_the_screen(terminals):
    terminal = Terminal("--dataset", "ark")
    terminals.append(terminal)
    assert terminal.wait_for_the_end() == 2
    assert "did you mean 'arc'" in terminal.text
    assert "\x1b" not in terminal.raw.decode()


def test_train_in_a_terminal_shows_progress_and_ctrl_c_ends_it(terminals):
    terminal = Terminal("train", *QUICK, "--steps", "100000")
    terminals.append(terminal)
    terminal.wait_for("arc", "/100000", "log_px", "residual")
    os.killpg(terminal.process.pid, signal.SIGCONT)
    terminal.send("\x03")
    assert terminal.wait_for_the_end() == 130
    assert "interrupted after step" in terminal.text
    assert "Traceback" not in terminal.text
    assert "\x1b[?25h" in terminal.raw.decode("utf-8", "replace")  # the cursor is back


def test_ascii_where_the_locale_has_nothing_else(terminals):
    terminal = Terminal(*QUICK, "--paused", "--charset", "ascii")
    terminals.append(terminal)
    terminal.wait_for("‖ paused", "log pθ(x)")
    terminal.send("s")
    text = terminal.wait_for("step 1 ")
    assert not re.search("[\u2801-\u28ff]", text)
    terminal.send("q")
    assert terminal.wait_for_the_end() == 0
