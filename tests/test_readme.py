"""What the README promises is run: its example prints its output, its tour names the files as they are."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no {kind} block"
    return found[1]


def test_the_example_prints_what_the_readme_says():
    said, printed = block("text").splitlines(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block("python"), {})
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(said)
    for mine, line in zip(lines, said):
        # The numbers may differ in the last digits on another machine; the errors only in their size.
        theirs = re.findall(r"[-+]?\d+\.\d+(?:e[-+]\d+)?", line)
        ours = re.findall(r"[-+]?\d+\.\d+(?:e[-+]\d+)?", mine)
        assert [float(v) for v in ours] == pytest.approx([float(v) for v in theirs], rel=1e-3, abs=2e-5), mine


def lines_of(path: Path) -> int:
    files = [path] if path.is_file() else sorted(path.glob("*.py"))
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_the_tour_names_every_file_of_the_library_with_about_its_lines():
    rows = dict(re.findall(r"^\| `(tinyvae/[\w/.]+)` \|.*\| (\d+) \|$", README, re.MULTILINE))
    found = [path for folder in ("tinyvae", "tinyvae/exact") for path in (ROOT / folder).glob("[!_]*.py")]
    assert set(rows) == {path.relative_to(ROOT).as_posix() for path in found} | {"tinyvae/lessons"}
    actual = {name: lines_of(ROOT / name) for name in rows}
    assert rows == {name: str(10 * max(1, round(lines / 10))) for name, lines in actual.items()}


def test_the_core_can_be_read_in_one_sitting():
    core = README[README.index("**The VAE, in one sitting.**") : README.index("**What the exact terms are")]
    files = re.findall(r"`(tinyvae/\w+\.py)`", core)
    assert len(files) == 7 and sum(lines_of(ROOT / name) for name in files) <= 900


def test_the_two_commands_are_there_and_the_picture_exists():
    assert len(re.findall(r"^    python3 -m venv .*(?:pytest|bin/tinyvae)$", README, re.MULTILINE)) == 2
    picture = re.search(r"!\[.*?\]\((.*?)\)", README)
    assert picture and (ROOT / picture[1]).stat().st_size > 10_000
