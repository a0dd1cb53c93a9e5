"""Who may import whom: the contracts in pyproject.toml, and what Python has really loaded."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "tinyvae").rglob("*.py"))
PLOTS = sorted((ROOT / "tui" / "plots").rglob("*.py"))


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded_by(*modules: str) -> set[str]:
    """The packages that a fresh Python loads for these modules, without the standard library."""
    script = (
        "import sys, json\nbefore = set(sys.modules)\n"
        + "".join(f"import {name}\n" for name in modules)
        + "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        + "print(json.dumps(sorted(new - set(sys.stdlib_module_names))))"
    )
    inside_numpy = ("cython_runtime", "_cython_")
    return {name for name in json.loads(python(script)) if not name.startswith(inside_numpy)}


def imported(path: Path) -> set[str]:
    """The packages that a file names in an import anywhere, without the standard library and relative ones."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)


def test_the_contracts_are_kept():
    pytest.importorskip("importlinter")
    out = python(
        "import sys\nfrom importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    assert "0 broken" in out
    assert "6 kept" in out  # none has got lost


def test_the_library_loads_numpy_and_autograd_and_nothing_else():
    files = [path.relative_to(ROOT).with_suffix("") for path in ENGINE if not path.stem.startswith("__")]
    assert loaded_by("tinyvae", *[".".join(file.parts) for file in files]) == {"tinyvae", "numpy", "autograd"}


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_library_names_another_package(path):
    allowed = {"numpy", "autograd", "tinyvae"} | (
        {"tui"} if path == ROOT / "tinyvae" / "__main__.py" else set()
    )
    assert imported(path) <= allowed
    assert "autograd.scipy" not in path.read_text(encoding="utf-8")  # it needs SciPy, which users need not have


def test_session_and_history_load_no_screen():
    loaded = loaded_by("tui.session", "tui.history")
    assert not loaded & {"textual", "rich"}


def test_the_headless_run_loads_no_textual():
    assert "textual" not in loaded_by("tui.headless", "tui.cli")


@pytest.mark.parametrize("path", PLOTS, ids=lambda path: path.name)
def test_the_plots_know_neither_engine_nor_app(path):
    assert imported(path) <= {"numpy", "rich", "textual"}
    assert "from .." not in path.read_text(encoding="utf-8")


def test_the_check_of_loaded_packages_does_see_them():
    assert {"rich", "numpy"} <= loaded_by("rich", "numpy")


@pytest.mark.parametrize(("start", "threads"), [("-m", "1"), ("-c", "None")])
def test_the_program_takes_one_thread_for_matrices_and_the_library_sets_nothing(start, threads):
    clean = f"import os, sys; os.environ.pop('OPENBLAS_NUM_THREADS', None); sys.argv[0] = '{start}'"
    out = python(f"{clean}; import tinyvae; print(os.environ.get('OPENBLAS_NUM_THREADS'))")
    assert out.strip() == threads
