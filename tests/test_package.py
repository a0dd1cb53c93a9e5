"""What `pip install` brings: one import name, every file of the repository that belongs to it, and nothing stale."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    return run("git", "ls-files", cwd=ROOT).splitlines()


@pytest.fixture(scope="module")
def wheel(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked files alone: a build/ of earlier times is not among them."""
    folder = tmp_path_factory.mktemp("export")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "out", ".", cwd=folder)
    (made,) = (folder / "out").iterdir()
    return made


def test_the_wheel_has_one_top_level_name_and_exactly_the_files_of_the_repository(tracked, wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"tinyvae"}
    ours = [name for name in tracked if name.startswith(("tinyvae/", "tui/")) and not name.endswith(".svg")]
    assert {"tinyvae/py.typed", "tui/app.tcss"} <= set(ours)
    assert sorted(names) == sorted(f"tinyvae/{name}" if name.startswith("tui/") else name for name in ours)


def test_the_installed_wheel_runs_away_from_the_repository(wheel, tmp_path):
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", f"--python={python}"]
    run(*pip, "install", "--quiet", "--no-deps", str(wheel), cwd=tmp_path)
    (here,) = (tmp_path / "env").glob("**/site-packages")
    others = sysconfig.get_path("purelib")  # NumPy, Textual and so on: looked at after what was installed
    (here / "others.pth").write_text(others)
    where = "import tinyvae, tinyvae.tui.app as app; print(tinyvae.__file__, app.__file__)"
    assert run(str(python), "-c", where, cwd=tmp_path).count(str(here / "tinyvae")) == 2
    for door in (["-m", "tinyvae"], [str(next(python.parent.glob("tinyvae*")))]):
        assert run(str(python), *door, "--version", cwd=tmp_path).startswith("tinyvae ")
    train = [str(python), "-m", "tinyvae", "train", "--steps", "1", "--out", "run.csv"]
    assert "2 records" in run(*train, cwd=tmp_path)
