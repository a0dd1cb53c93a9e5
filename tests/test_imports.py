"""Who may import whom: the contracts in pyproject.toml, and what Python has really loaded."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "tinyvae").rglob("*.py"))
TUI = sorted((ROOT / "tui").rglob("*.py"))
PLOTS = sorted((ROOT / "tui" / "plots").rglob("*.py"))
# What the program takes from the library, besides the public names of `tinyvae` itself.
PUBLIC = {
    "tinyvae.datasets", "tinyvae.evaluation", "tinyvae.exact.gap", "tinyvae.exact.landscape", "tinyvae.lessons",
    "tinyvae.lessons.coin", "tinyvae.model", "tinyvae.presets", "tinyvae.records", "tinyvae.references",
    "tinyvae.runfile", "tinyvae.runs", "tinyvae.settings", "tinyvae.threads", "tinyvae.training",
}  # fmt: skip
SOURCES = {  # that the key c shows, beside the door
    "tinyvae.exact.plain", "tinyvae.fused", "tinyvae.gaussian", "tinyvae.ops",
}  # fmt: skip


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
    assert imported(path) <= {"numpy", "autograd", "tinyvae"}
    assert "autograd.scipy" not in path.read_text(encoding="utf-8")  # it needs SciPy, which users need not have


def test_session_and_history_load_no_screen():
    loaded = loaded_by("tinyvae.tui.session", "tinyvae.tui.history")
    assert not loaded & {"textual", "rich"}


def test_the_headless_run_loads_no_textual():
    assert "textual" not in loaded_by("tinyvae.tui.headless", "tinyvae.tui.cli")


@pytest.mark.parametrize("path", PLOTS, ids=lambda path: path.name)
def test_the_plots_know_neither_engine_nor_app(path):
    assert imported(path) <= {"numpy", "rich", "textual"}
    assert "from .." not in path.read_text(encoding="utf-8")


def test_the_check_of_loaded_packages_does_see_them():
    assert {"rich", "numpy"} <= loaded_by("rich", "numpy")


# ----- tinyvae and tui as one package: who imports whom, for type checking too -----


def name_of(path: Path) -> str:
    """The name under which a file is imported: tui/ is installed as tinyvae.tui."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("tinyvae", *parts) if parts[0] == "tui" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(source: str, name: str, is_package: bool, known: set[str]) -> set[str]:
    """The modules out of `known` that a source text with this name imports, anywhere and in whatever way."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) + is_package - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & known
            found |= submodules or {base}
    return found & known


def imports_of(*paths: Path) -> dict[str, set[str]]:
    known = {name_of(path) for path in (*ENGINE, *TUI)}
    return {
        name_of(path): imports_in(
            path.read_text(encoding="utf-8"), name_of(path), path.stem == "__init__", known
        )
        for path in paths
    }


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from .session import Session", {"tinyvae.tui.session"}),
        ("from . import session", {"tinyvae.tui.session"}),
        ("from .. import ops, Target", {"tinyvae.ops"}),
        ("from .. import Target", {"tinyvae"}),
        ("def f():\n    import tinyvae.runs", {"tinyvae.runs"}),
        ("if TYPE_CHECKING:\n    from tinyvae.tui.app import TinyVAE", {"tinyvae.tui.app"}),
        ("import numpy", set()),
    ],
)
def test_imports_are_found_however_they_are_written(source, expected):
    known = {"tinyvae", "tinyvae.ops", "tinyvae.runs", "tinyvae.tui.app", "tinyvae.tui.session"}
    assert imports_in(source, "tinyvae.tui.this", False, known) == expected
    assert imports_in("from .session import Session", "tinyvae.tui", True, known) == {"tinyvae.tui.session"}


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter(imports_of(*ENGINE, *TUI)).prepare()  # a CycleError names the files


def test_nothing_in_the_library_but_its_main_points_to_the_program():
    up = {
        name for name, those in imports_of(*ENGINE).items() if any(t.startswith("tinyvae.tui") for t in those)
    }
    assert up == {"tinyvae.__main__"}


def test_the_program_takes_only_public_modules_of_the_library():
    used = {
        name: {t for t in those if not t.startswith("tinyvae.tui")} - PUBLIC - {"tinyvae"}
        for name, those in imports_of(*TUI).items()
    }
    assert {name: those for name, those in used.items() if those} == {"tinyvae.tui.screens.code": SOURCES}
    assert set().union(*imports_of(*TUI).values()) >= PUBLIC  # none is listed that is not used


# ----- threads -----

AT_EXIT = """\
import atexit, os

@atexit.register
def tell():
    import threadpoolctl  # comes with scikit-learn
    threads = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    print("BLAS", os.environ.get("OPENBLAS_NUM_THREADS"), *threads)
"""


@pytest.mark.parametrize("door", [["-m", "tinyvae"], [str(Path(sysconfig.get_path("scripts")) / "tinyvae")]])
@pytest.mark.parametrize("wanted", [None, "2"])
def test_the_program_computes_with_one_thread_unless_it_is_told_otherwise(door, wanted, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PYTHONPATH": str(tmp_path)} | ({"OPENBLAS_NUM_THREADS": wanted} if wanted else {})
    run = subprocess.run(
        [sys.executable, *door, "--version"], capture_output=True, text=True, timeout=60, env=environment
    )
    version, blas = run.stdout.splitlines()
    assert version.startswith("tinyvae ")  # the arguments are still there
    threads = blas.split()[1:]
    assert threads[0] == (wanted or "1")
    assert wanted or set(threads) == {"1"}


def test_importing_the_library_sets_nothing():
    script = "import os; before = dict(os.environ); import tinyvae; print(os.environ == before)"
    assert python(script).strip() == "True"
