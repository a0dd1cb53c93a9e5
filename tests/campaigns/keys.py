"""Random keys and resizes for the real program in a real (pseudo) terminal; at its end SIGTERM must put all right."""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tui"))
from terminal import Terminal

# q and Ctrl-C would end it, Ctrl-Z stop it; e writes files.
BYTES = [
    *"stpbnNumozyvgGwaxklrdMc?SeS+-,. 123456",
    "\r",
    "\x1b",
    "\x1b",
    "\t",
    "\x7f",
    "\x10",
    "\x1b[A",
    "\x1b[B",
    "\x1b[C",
]
BYTES += [
    "\x1b[D",
    "\x1b[5~",
    "\x1b[6~",
    "\x1b[H",
    "\x1b[F",
    "\x1b[Z",
    "é",
    "\x1b[1;2C",
    "\x1b[1;2D",
    "\x01",
    "\x15",
    "\x10",
]
SIZES = [(120, 36), (80, 24), (160, 48), (240, 64), (62, 19), (30, 8), (2, 1), (100, 30)]


def session(chance: random.Random, keys: int, resizes: int) -> Counter[str]:
    """One program from its start to SIGTERM."""
    counts: Counter[str] = Counter()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        terminal = Terminal("--points", "24", "--hidden", "6", "--speed", "max")
        try:
            terminal.wait_for("the identity closes to", seconds=60)
            todo = ["key"] * keys + ["resize"] * resizes
            chance.shuffle(todo)
            for what in todo:
                if what == "key":
                    terminal.send(chance.choice(BYTES))
                else:
                    terminal.resize(*chance.choice(SIZES))
                counts[what] += 1
                terminal.read(chance.choice([0.0, 0.0, 0.005, 0.02]))
                assert terminal.process.poll() is None, f"it ended: {terminal.text[-1500:]}"
            pages = int(Path(f"/proc/{terminal.process.pid}/statm").read_text().split()[1])
            assert pages * os.sysconf("SC_PAGE_SIZE") < 1 << 30
            counts["MiB at most"] = max(counts["MiB at most"], pages * os.sysconf("SC_PAGE_SIZE") >> 20)
            time.sleep(0.5)
            terminal.process.send_signal(signal.SIGTERM)
            code = terminal.wait_for_the_end(seconds=20)
            assert code == 143, f"exit code {code}: {terminal.text[-1500:]}"
            assert b"\x1b[?1049l" in terminal.raw and b"Traceback" not in terminal.raw, terminal.text[-1500:]
            counts["programs ended well"] += 1
        finally:
            terminal.close()
            os.chdir(before)
    return counts
