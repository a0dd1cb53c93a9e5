"""A person's own file: read right, or refused in one line; standardised, its terms stay those of the data in it."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from campaigns.data_files import campaign, traps
from sklearn import datasets as sklearn_sets

import tinyvae as tv
from tinyvae.datafiles import Choice, DataError
from tinyvae.datasets import Dataset, load_dataset
from tinyvae.evaluation import of_original
from tinyvae.exact import TERMS
from tinyvae.references import references
from tinyvae.runs import Config, parse_share, share
from tinyvae.textfiles import read_text

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(np.round(RNG.normal(size=(40, 3)), 3), columns=["a", "b", "c"])
SORTED = TABLE.sort_values("a").to_csv()


def written(folder: Path, text: str | bytes, name: str = "own.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "own")


# ---------------------------------------- what people have in their files ----------------------------------------


@pytest.mark.parametrize(
    ("text", "columns", "left_out"),
    [
        (TABLE.to_csv(index=False, header=["0", "1", "2"]), ("0", "1", "2"), ()),
        (TABLE.to_csv(header=["0", "1", "2"]), ("0", "1", "2"), ("column 1 (row numbers)",)),
        (TABLE.to_csv(), ("a", "b", "c"), ("column 1 (row numbers)",)),
        (TABLE.to_csv(index_label="Unnamed: 0"), ("a", "b", "c"), ("Unnamed: 0 (row numbers)",)),
        (TABLE.to_csv(index_label="Id"), ("a", "b", "c"), ("Id (row numbers)",)),
        (SORTED, ("a", "b", "c"), ("column 1 (row numbers)",)),
        (TABLE.rename(index=lambda i: f"row {i}").to_csv(), ("a", "b", "c"), ("column 1 (row names)",)),
        ("\ufeff" + TABLE.to_csv(index=False, sep=";", decimal=","), ("a", "b", "c"), ()),
        (TABLE.to_csv(index=False, sep="\t", decimal=",", header=False), ("x₁", "x₂", "x₃"), ()),
        (TABLE.to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\r"), ("a", "b", "c"), ()),
        (
            TABLE.rename(columns={"a": "length, mm", "b": 'the "b"', "c": "c;d"}).to_csv(index=False),
            ("length, mm", 'the "b"', "c;d"),
            (),
        ),
    ],
    ids=[
        "names 0, 1, 2", "index over names 0, 1, 2", "index", "Unnamed: 0", "Id", "shuffled index", "named rows",
        "decimal commas", "decimal commas, tabs, no header", "quoted, old line ends", "delimiters in names",
    ],
)  # fmt: skip
def test_a_table_in_the_dialects_of_pandas_and_spreadsheets_is_read_as_it_was_written(
    tmp_path: Path, text: str, columns: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    data = load_dataset(written(tmp_path, text))
    np.testing.assert_array_equal(data.x, TABLE.sort_values("a") if text == SORTED else TABLE)
    assert (data.columns, data.left_out) == (columns, left_out)
    for part in (", ".join(left_out), "40 rows, 3 columns", f"header {'no' if columns[0] == 'x₁' else 'yes'}"):
        assert part in data.description


def test_row_names_as_r_writes_them_are_left_out(tmp_path: Path) -> None:
    text = '"mpg" "cyl"\n"Mazda RX4" 21 6\n"Datsun 710" 22.8 4\n'
    data = load_dataset(written(tmp_path, text, "cars.txt"))
    np.testing.assert_array_equal(data.x, [[21, 6], [22.8, 4]])
    assert (data.columns, data.left_out) == (("mpg", "cyl"), ("column 1 (row names)",))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_unicode_text_of_spreadsheets_is_read(tmp_path: Path, encoding: str) -> None:
    text = TABLE.rename(columns={"a": "Größe"}).to_csv(
        index=False, sep="\t", decimal=",", lineterminator="\r\n"
    )
    mark = "" if encoding == "utf-16" else "\ufeff"  # Python writes it with the first one
    data = load_dataset(written(tmp_path, (mark + text).encode(encoding), "own.txt"))
    np.testing.assert_array_equal(data.x, TABLE)
    assert data.columns == ("Größe", "b", "c")


def test_columns_of_true_and_false_are_those_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [True, False, True], "b": [1.5, 2, 3]})
    np.testing.assert_array_equal(
        load_dataset(written(tmp_path, frame.to_csv(index=False))).x, frame.astype(float)
    )
    assert "line 2, column 1 'a'" in refusal(written(tmp_path, "a,b\nTrue,1\n2,3\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"3,25","1,5"\n"2,75","0,5"\n', "own, line 1, column 1: expected a number, got '3,25' (a decimal comma? put "
         "semicolons between the cells, or a point into the number)"),
        ("a;b\n1,250;2,500\n3,125;4,500\n", "own, line 2, column 1 'a': expected a number, got '1,250', which can be "
         "1.250 or 1250: say which"),
        ("a;b\n1.5;2\n1,5;3\n", "own, line 3, column 1 'a': expected a decimal point as in other cells, got '1,5'"),
        ("0,1,2\n3,4,5\n6,7,8\n", "own, line 1: expected names or a data point, got 0, 1, 2, which can be either "
         "(say --header yes, or no)"),
        ("2019,2020\n3.5,4.5\n6.5,7.5\n", "own, line 1: expected names or a data point, got 2019, 2020, which can be "
         "either (say --header yes, or no)"),
        ("height,2020\n3,4\n", "own, line 1, column 1: expected a number, got 'height' (is this line the header? say "
         "--header yes)"),
        ("a,b,kind\n1,2,setosa\n", "own, line 2, column 3 'kind': expected a number, got 'setosa' (not a column of "
         "numbers? leave it out: --skip-columns kind, or show it: --color kind)"),
        ("a,b\n1,2\n３,4\n", "own, line 3, column 1 'a': expected a number, got '３'"),
        ("a,b\n1,2\n3,x\n", "own, line 3, column 2 'b': expected a number, got 'x'"),
        ("Id,a,b\n1.5,2,3\n2.5,4,5\n", "own: expected row numbers or row names, which are left out, or a column that "
         "is chosen, got other numbers in column 1 (say --skip-columns Id, or choose with --columns)"),
        ('a,b\n1,2\n"3,4\n', "own, line 3: expected cells as RFC 4180 quotes them, got unexpected end of data"),
        ("6.1,9.4\n5.9,9.1\n6.4,9.96666667e14\n6.2,9.8\n", "own, line 3, column 2: expected a number of the size of "
         "the others in the column (at most 9.8), got 9.96667e+14 (a lost decimal point?)"),
        ("a,b\n1,2\n\n# note\n3,nan\n", "own: expected finite numbers, got 1 NaN or infinite of 4, the first nan in "
         "line 5, column 2 'b'"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_or_in_none_is_refused_with_line_and_column(
    tmp_path: Path, text: str, message: str
) -> None:
    assert refusal(written(tmp_path, text)) == message


def test_the_answer_to_the_question_settles_what_a_line_is(tmp_path: Path) -> None:
    path = written(tmp_path, "0,1,2\n3,4,5\n6,7,8\n")
    assert load_dataset(path, header=True).x.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert load_dataset(path, header=False).x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_columns_are_chosen_by_name_in_the_order_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE.assign(kind="w").to_csv())
    chosen = load_dataset(path, columns=["c", "a"])
    np.testing.assert_array_equal(chosen.x, TABLE[["c", "a"]])
    np.testing.assert_array_equal(load_dataset(path, skip_columns=["kind", "b"]).x, TABLE[["a", "c"]])
    np.testing.assert_array_equal(load_dataset(path, columns=["column 1", "b"]).x[:, 0], np.arange(40))
    nameless = written(tmp_path, TABLE.to_csv(index=False, header=False), "nameless.csv")
    np.save(tmp_path / "own.npy", TABLE)
    for other in (nameless, tmp_path / "own.npy"):
        for names in (["x3", "x1"], ["3", "1"], ["x₃", "x₁"]):
            assert (load_dataset(other, columns=names).x == chosen.x).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["b", "d"]}, "columns: expected names out of a, b, c, a, got 'd'"),
        ({"columns": ["b", "b"]}, "columns: expected each column once, got b, b"),
        (
            {"skip_columns": ["a"]},
            "own: expected one column 'a' (skip_columns), got columns 1 and 4 of that name",
        ),
        ({"columns": ["b"], "skip_columns": ["c"]}, "columns: expected columns or skip_columns, got both"),
        (
            {"columns": ["b", "c"], "color": "c"},
            "color: expected a column that is not trained on, got 'c', which",
        ),
        ({"columns": "bc"}, "columns: expected a sequence of names, got 'bc'"),
        ({"columns": ["b"]}, "own: expected at least two columns (data dimensions), got 1"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    text = pd.concat([TABLE, TABLE["a"]], axis=1).to_csv(index=False)
    assert refusal(written(tmp_path, text), **options).startswith(message)


def test_what_is_for_files_is_refused_for_a_built_in_set() -> None:
    for options in ({"columns": ["x1"]}, {"color": "x1"}, {"header": False}, {"standardize": True}):
        with pytest.raises(
            ValueError, match=f"{next(iter(options))}: expected none for arc, which is not a file"
        ):
            load_dataset("arc", **options)  # type: ignore[arg-type]


def test_a_column_of_words_colours_the_points_and_is_not_trained_on(tmp_path: Path) -> None:
    kinds = ["setosa", "rare, very"] * 20
    path = written(tmp_path, TABLE.assign(kind=kinds).to_csv(index=False))
    data = load_dataset(path, color="kind", holdout=0.25)
    assert data.columns == ("a", "b", "c") and "kind (colour)" in data.left_out
    of = {tuple(row): kind for row, kind in zip(TABLE.to_numpy().tolist(), kinds)}
    assert data.labels == tuple(of[tuple(row)] for row in data.x.tolist()) and len(data.x) == 30
    plain = load_dataset(path, skip_columns=["kind"], holdout=0.25)
    assert plain.x.tobytes() == data.x.tobytes()
    assert "at most 8 different values" in refusal(path, color="a", skip_columns=["kind"])


# ---------------------------------------- traps ----------------------------------------


@pytest.fixture(scope="module")
def trap_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return traps(tmp_path_factory.mktemp("traps"))


def test_what_would_wait_for_ever_or_fill_the_memory_is_refused_before_it_is_read(
    trap_files: list[Path],
) -> None:
    for trap in trap_files:
        message = refusal(trap)
        if trap.name == "bomb.npz":
            assert trap.stat().st_size < 2**21
            expected = r"own: expected at most 16,777,216 numbers .* got 1,073,741,\d\d\d bytes in 'x.npy'"
            assert re.fullmatch(expected, message)
        elif trap.name in ("pipe.csv", "zero.csv", "zero.npy", "zero.npz"):
            assert message == f"own: expected a file, got a {'pipe' if trap.name == 'pipe.csv' else 'device'}"


def test_a_short_campaign_of_fuzzed_files_finds_nothing_wrong() -> None:
    said: list[str] = []
    counts = campaign(count=400, seconds=120, seed=7, say=said.append, with_traps=False)
    assert counts["wrong"] == 0, said
    assert counts["not damaged: the numbers that were written"] > 80
    assert counts["damaged: the numbers that pandas or NumPy reads"] > 30
    assert counts["damaged: refused in one line"] > 100 and counts["files"] == 400


# ---------------------------------------- scale ----------------------------------------


def scaled(folder: Path) -> Path:
    """A time stamp, a year and a small column."""
    n = 60
    t = np.linspace(0, 1, n)
    frame = pd.DataFrame(
        {
            "t": 1.7e9 + 6e4 * t,
            "year": 2000 + np.sin(9 * t),
            "v": 1e-3 * np.cos(9 * t) + 1e-4 * np.sin(99 * t),
        }
    )
    return written(folder, frame.to_csv(index=False))


def test_columns_of_other_scale_or_far_from_0_are_named_and_standardizing_is_offered(tmp_path: Path) -> None:
    (note,) = load_dataset(scaled(tmp_path)).notes
    assert (
        "column 't'" in note
        and "times as wide as 'v'" in note
        and "far from 0" in note
        and "--standardize" in note
    )
    (note,) = load_dataset(scaled(tmp_path), columns=["year", "v"], standardize=True).notes
    assert note.startswith("standardized: log p(x), reconstruction and ELBO are those of the data as they are")
    assert load_dataset(written(tmp_path, TABLE.to_csv(index=False), "good.csv")).notes == ()


def test_a_column_that_counts_the_rows_is_named_where_its_name_does_not_say_so(tmp_path: Path) -> None:
    for first in (0, 1):
        path = written(tmp_path, TABLE.assign(X=TABLE.index + first).to_csv(index=False))
        assert load_dataset(path, n=20).notes[0].startswith("column 'X' counts the rows: if it is a row number")


def test_a_constant_column_is_named_and_cannot_be_standardized(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE.assign(c=7.25).to_csv(index=False))
    (note,) = load_dataset(path).notes
    assert note == "column 'c' is 7.25 everywhere: --skip-columns leaves it out"
    message = refusal(path, standardize=True)
    assert message == "own, column 3 'c': expected values that differ, to standardize them, got 7.25 everywhere"
    bits = written(tmp_path, "a,b\n1,1\n1,0\n", "bits.csv")
    assert "not only 0 and 1" in refusal(bits, standardize=True)


def test_standardized_columns_have_mean_0_and_std_1_by_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    plain, data = (load_dataset(scaled(tmp_path), 50, holdout=0.2, standardize=s) for s in (False, True))
    mean, std = plain.x.mean(axis=0), plain.x.std(axis=0)
    np.testing.assert_allclose(data.x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.x.std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(data.held_out, (plain.held_out - mean) / std, atol=1e-6)
    assert data.log_scale == pytest.approx(np.log(std).sum(), rel=1e-9) and plain.log_scale == 0


def log_density(x: Any, mean: Any, cov: Any) -> float:
    """Mean log N(x; mean, cov) by the Cholesky factor, which does not mind columns of very different scale."""
    factor = np.linalg.cholesky(cov)
    residual = np.linalg.solve(factor, (x - mean).T)
    return float(
        -0.5 * np.square(residual).sum(axis=0).mean() - np.log(np.diag(factor) * math.sqrt(2 * math.pi)).sum()
    )


def test_log_px_of_standardized_data_is_the_density_of_the_original_data(tmp_path: Path) -> None:
    path = written(tmp_path, (TABLE * [1e3, 1, 1e-3] + [5e4, 0, 7]).to_csv(index=False))
    linear = {"hidden": (), "noise": "per-dimension", "latent_dim": 1}
    run = Config(dataset=str(path), standardize=True, holdout=0.25, seed=3, **linear).open()  # type: ignore[arg-type]
    for _ in run.trainer.steps(120):
        pass
    theta, original = run.model.unpack_theta(run.trainer.theta), load_dataset(path, holdout=0.25)
    ((W, b),), noise = theta.layers, np.exp(theta.log_noise_std)
    mean, std = original.x.mean(axis=0), original.x.std(axis=0)
    of_original_data = mean + std * b, (W.T @ W + np.diag(noise**2)) * np.outer(std, std)
    terms = run.trainer.evaluate().terms
    assert terms.log_px == pytest.approx(log_density(original.x, *of_original_data), abs=1e-7)
    held_out = run.trainer.held_out_log_px()
    assert held_out == pytest.approx(log_density(original.held_out, *of_original_data), abs=1e-7)
    record = run.trainer.record()
    assert (record.as_row()["log_px"], record.held_out_log_px) == (terms.log_px, held_out)
    assert abs(terms.residual) <= 1e-8
    assert terms.log_px == pytest.approx(terms.reconstruction - terms.kl_prior + terms.kl_posterior, abs=1e-8)
    assert terms.elbo == pytest.approx(terms.reconstruction - terms.kl_prior, abs=1e-10)


def test_the_constant_shifts_three_terms_everywhere_and_the_divergences_never(tmp_path: Path) -> None:
    data = load_dataset(scaled(tmp_path), standardize=True, holdout=0.2)
    model = tv.VAE(3, 1, hidden=(4,))
    plain, shifted = (
        tv.Trainer(model, data.x, seed=1, held_out=data.held_out, log_scale=c) for c in (0.0, data.log_scale)
    )
    for before, after in zip(plain.steps(10), shifted.steps(10)):
        for name in TERMS:
            moved = getattr(before.terms, name) - getattr(after.terms, name)
            expected = 0.0 if name.startswith("kl") else data.log_scale
            assert moved == pytest.approx(expected, abs=1e-10), name
            for group in ("theta", "phi"):
                parts = (getattr(getattr(r.attribution, group), name) for r in (before, after))
                assert next(parts) == pytest.approx(next(parts), abs=1e-9)
        assert before.terms.kl_prior == after.terms.kl_prior and before.target_moved == after.target_moved
        assert before.terms.residual == after.terms.residual
    assert plain.theta.tobytes() == shifted.theta.tobytes()
    assert before.held_out_log_px - after.held_out_log_px == pytest.approx(data.log_scale, abs=1e-10)


def test_the_reference_of_standardized_data_is_that_of_the_original(tmp_path: Path) -> None:
    path = written(tmp_path, (TABLE * [1e3, 1, 1e-3] + [5e4, 0, 7]).to_csv(index=False))
    plain, data = load_dataset(path), load_dataset(path, standardize=True)
    (one,), (other,) = references(plain, plain.x[:9]), references(data, data.x[:9])
    assert one.log_px == pytest.approx(other.log_px, abs=1e-9)


def test_the_errors_grow_by_what_taking_off_a_constant_rounds() -> None:
    terms = load_terms = tv.Trainer(tv.VAE(2, 1, hidden=()), np.eye(2) * 0.5).evaluate().terms
    far = of_original(terms, 1e8)
    assert far.log_px_error >= 1e8 * 2**-53 and far.error >= far.log_px_error
    assert (far.kl_prior, far.kl_posterior_error) == (terms.kl_prior, terms.kl_posterior_error)
    assert of_original(terms, 0.0) is load_terms


def test_a_share_line_holds_columns_header_colour_and_the_standardizing(tmp_path: Path) -> None:
    frame = TABLE.rename(columns={"a": "length, mm", "b": "x=y:z"}).assign(kind="w")
    path = written(tmp_path, frame.to_csv())
    run = Config(dataset=str(path), color="kind", standardize=True).open()
    line = share(run.resolved, (), 5)
    config, _, step = parse_share(line)
    assert replace(config, defaults="v2") == run.resolved and step == 5
    assert config.columns == ("length, mm", "x=y:z", "c") and config.standardize and config.header
    again = config.open()
    assert again.data.x.tobytes() == run.data.x.tobytes() and again.data.labels == run.data.labels
    assert again.trainer.log_scale == run.trainer.log_scale == run.data.log_scale
    other = Config(dataset=str(path), skip_columns=("kind", "c"), header=True)
    config, *_ = parse_share(share(replace(other, learning_rate=1e-3, samples=1, batch_size=4), (), 0))
    assert (config.skip_columns, config.header) == (("kind", "c"), True)
    anew = other.with_dataset("arc").open()  # what is for files does not stay
    assert anew.data.name == "arc"


# ---------------------------------------- real small sets ----------------------------------------

SETS = {
    "iris": sklearn_sets.load_iris, "wine": sklearn_sets.load_wine, "digits": sklearn_sets.load_digits,
    "diabetes": sklearn_sets.load_diabetes, "breast cancer": sklearn_sets.load_breast_cancer,
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_scikit_learn_is_read_as_pandas_reads_it_learned_and_its_terms_close(
    tmp_path: Path, name: str
) -> None:
    frame = SETS[name](as_frame=True).frame
    varying = [c for c in frame.columns if c != "target" and frame[c].nunique() > 1]
    path = written(tmp_path, frame[[*varying, "target"]].to_csv(index=False))
    skip = {"color": "target"} if frame["target"].nunique() <= 8 else {"skip_columns": ("target",)}
    data: Dataset = load_dataset(path, **skip)  # type: ignore[arg-type]
    expected = pd.read_csv(path)[varying]
    np.testing.assert_array_equal(data.x, expected.to_numpy(dtype=float))
    assert data.columns == tuple(expected.columns)
    said = any("--standardize" in note for note in data.notes)
    run = Config(dataset=str(path), standardize=said, evaluate_every=0, **skip).open()  # type: ignore[arg-type]
    trainer, eps = run.trainer, np.random.default_rng(0).standard_normal((len(data.x), 2))
    sampled = [run.model.elbo_and_grad(trainer.theta, trainer.phi, trainer.x, eps)[0].elbo]
    for _ in trainer.steps(200):
        pass
    sampled.append(run.model.elbo_and_grad(trainer.theta, trainer.phi, trainer.x, eps)[0].elbo)
    assert sampled[1] > sampled[0]
    trainer.evaluation_x = trainer.x[:4]
    terms = trainer.evaluate().terms
    errors = terms.log_px_error + terms.reconstruction_error + terms.kl_prior_error + terms.kl_posterior_error
    assert abs(terms.residual) <= errors <= 1e-6 * 4


def test_the_reader_reads_what_pandas_reads_digit_by_digit(tmp_path: Path) -> None:
    values = RNG.normal(size=(200, 4)) * 10.0 ** RNG.integers(-300, 300, (200, 4))
    path = written(tmp_path, pd.DataFrame(values, columns=list("abcd")).to_csv(index=False))
    assert (
        read_text(path, Choice()).values.tobytes()
        == np.ascontiguousarray(pd.read_csv(path).to_numpy()).tobytes()
    )
