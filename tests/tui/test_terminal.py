"""The real program in a real (pseudo) terminal: keys as bytes, a resize as a signal, and what is left behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

termios = pytest.importorskip("termios", reason="Windows has no pseudo terminals")
from program import QUICK  # noqa: E402
from terminal import Terminal  # noqa: E402

LAST_LINE = r"arc step (\d+): log_px -?\d+\.\d{4}  elbo -?\d+\.\d{4}  .* residual \S+  [a-z]+ to \S+"


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


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_program_in_tmux(tmp_path):
    """A terminal that somebody else wrote: what tmux draws of the app after some keys."""
    socket = str(tmp_path / "socket")
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "LC_ALL")}
    environment["LANG"] = "C.UTF-8"

    def tmux(*arguments: str) -> str:
        made = subprocess.run(
            ["tmux", "-u", "-S", socket, *arguments],
            capture_output=True, text=True, check=True, timeout=20, env=environment,
        )  # fmt: skip
        return made.stdout

    def screen_with(*words: str) -> str:
        for _ in range(150):
            if all(word in (screen := tmux("capture-pane", "-p", "-t", "t")) for word in words):
                return screen
            time.sleep(0.2)
        raise AssertionError(f"{words} did not appear in\n{screen}")

    command = shlex.join([sys.executable, "-m", "tinyvae", *QUICK])
    tmux("-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", "140", "-y", "42", f"{command}; sleep 60")
    try:
        screen_with("log pθ(x)", "θ ● training", "▶")
        tmux("send-keys", "-t", "t", "t")
        while (
            int(re.findall(r"step (\d+)", screen_with("θ ○ frozen", "✓ θ frozen ⇒ log p constant in all"))[0])
            < 30
        ):
            time.sleep(0.2)  # fewer would not be zoomed into
        tmux("send-keys", "-t", "t", "Space", "Up")
        lines = screen_with("‖ paused", "last").splitlines()
        assert len(lines) == 42 and any(0x2800 < ord(c) < 0x2900 for c in "".join(lines))
        tmux("send-keys", "-t", "t", "q")
        assert "the same run again: tinyvae --share" in screen_with("log_px", "--share")
    finally:
        tmux("kill-server")
