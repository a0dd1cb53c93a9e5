"""The program on a person's own file: it says what it took, names the columns, and colours the points."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from program import complaint, read, run
from test_app import lines, opened, press, shown, until

from tinyvae.runs import Config
from tinyvae.tui.palette import KINDS_DARK
from tinyvae.tui.widgets.spaces import DataPanel

QUICK = ["--hidden", "4", "--batch", "8", "--latent-dim", "1"]


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two columns of numbers of very different size, row numbers, and a column of words."""
    rng, path = np.random.default_rng(0), tmp_path / "flowers.csv"
    width = rng.normal(5, 1, 24)
    frame = pd.DataFrame({"sepal, cm": width, "weight": 1e5 * width + rng.normal(size=24)})
    frame.assign(species=["setosa", "rosa"] * 12).to_csv(path)
    return path


def test_a_run_without_a_screen_says_first_what_it_took_of_the_file(capsys, flowers):
    assert run("train", "--dataset", str(flowers), *QUICK, "--color", "species", "--steps", "2") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "Your own file flowers.csv: 24 rows, 2 columns ('sepal, cm', weight), header yes; "
        "left out: column 1 (row numbers), species (colour)."
    )
    assert said[1].startswith("column 'weight' (std ") and "--standardize" in said[1]
    assert said[2].startswith("flowers.csv step 1: ")


def test_a_column_of_words_is_refused_with_the_two_ways_out(capsys, flowers):
    line = complaint(capsys, "train", "--dataset", str(flowers), "--steps", "2")
    assert (
        "line 2, column 4 'species'" in line and "--skip-columns species" in line and "--color species" in line
    )


def test_standardized_and_plain_runs_are_measured_in_the_same_units(capsys, tmp_path, flowers):
    for name, more in (("plain", ()), ("unit", ("--standardize",))):
        out = str(tmp_path / f"{name}.csv")
        arguments = ("--dataset", str(flowers), "--skip-columns", "species", *more, "--out", out)
        assert run("train", *QUICK, *arguments, "--steps", "3") == 0
    printed = capsys.readouterr().out
    gaussian = re.findall(r"log_px of one Gaussian\D+(-?[\d.]+)", printed)
    assert len(gaussian) == 2 and gaussian[0] == gaussian[1]
    (constant,) = re.findall(r"Σ log s = ([\d.]+) nats taken off", printed)
    run_of_it = Config(
        dataset=str(flowers),
        skip_columns=("species",),
        standardize=True,
        hidden=(4,),
        batch_size=8,
        latent_dim=1,
    ).open()
    inside = run_of_it.trainer.evaluate()
    assert read(tmp_path / "unit.csv")[0]["log_px"] == inside.terms.log_px
    assert inside.target.log_px.mean() - inside.terms.log_px == pytest.approx(float(constant), abs=1e-4)


def test_names_with_commas_are_written_as_in_a_line_of_csv(capsys, flowers):
    arguments = ("--dataset", str(flowers), "--columns", '"sepal, cm",weight', "--steps", "1")
    assert run("train", *QUICK, *arguments) == 0
    assert "2 columns ('sepal, cm', weight)" in capsys.readouterr().out
    assert "names of columns such as a,b,c" in complaint(capsys, "train", "--columns", '"a')
    assert "expected yes or no, got 'maybe'" in complaint(capsys, "train", "--header", "maybe")


async def test_the_screen_says_what_was_taken_and_shows_names_values_and_colours(flowers):
    config = Config(dataset=str(flowers), color="species", standardize=True, hidden=(4,), latent_dim=1)
    async with opened(config, size=(200, 55)) as (app, pilot):
        said = " ".join(note.message for note in app._notifications)
        assert "24 rows, 2 columns" in said and "left out: column 1 (row numbers), species (colour)" in said
        assert "standardized: log p(x)" in said
        await press(pilot, "escape")
        screen = shown(app)
        assert "24 points · z∈R¹ · standardized" in screen
        assert "data: ↑ weight → sepal, cm" in screen
        assert "setosa" in screen and "rosa" in screen
        panel = app.query_one(DataPanel)
        x = app.session.data.original(app.session.view().x[None])[0]
        assert f"sepal, cm {x[0]:.4g} + " in str(panel.border_subtitle)
        styles = [s.style for strip in panel.plot.strips for s in strip if s.style and s.style.color]
        colors = {style.color.name.upper() for style in styles}
        assert set(KINDS_DARK[:2]) <= colors
        await press(pilot, "v")
        assert f"sepal, cm {x[0]:.4g} + " in shown(app) and f"weight {x[1]:.4g} + " in shown(app)
        await press(pilot, "escape")
        app.session.step_once()
        row = app.session.history.row(1)
        assert row["log_px"] == app.session.trainer.evaluate().terms.log_px


async def test_the_form_of_a_new_run_chooses_columns(flowers):
    async with opened() as (app, pilot):
        await press(pilot, "M")
        texts = {"dataset": str(flowers), "n": "", "columns": '"sepal, cm",weight', "standardize": "yes"}
        for name, text in texts.items():
            app.screen.query_one(f"#{name}").value = text
        await press(pilot, "enter")
        await until(lambda: app.session.data.name == "flowers.csv")
        app.session.run(False)
        config = app.session.config
        assert (config.columns, config.standardize) == (("sepal, cm", "weight"), True)
        await press(pilot, "M")
        assert app.screen.query_one("#columns").value == '"sepal, cm",weight'
        assert app.screen.query_one("#standardize").value == "yes"
        assert any("columns of a file" in line for line in lines(app))


async def test_the_axes_of_more_than_two_columns_name_the_column_with_the_largest_part(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20, 3)) * [1, 9, 4], columns=["a", "big", "mid"])
    frame.to_csv(tmp_path / "own.csv", index=False)
    config = Config(dataset=str(tmp_path / "own.csv"), hidden=(4,), latent_dim=1)
    async with opened(config, size=(200, 55)) as (app, pilot):
        await press(pilot, "escape")
        assert "data: ↑ mostly mid → mostly big" in shown(app)
