"""The data: the synthetic sets are what they say, a person's file is read as it is, errors say what to do."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.special import expit, ndtri

from tinyvae.checks import Array
from tinyvae.datafiles import Choice, DataError, check_data
from tinyvae.datasets import DATASETS, Generator, load_dataset
from tinyvae.textfiles import read_text

PLANE = ["arc", "crossing", "pinwheel"]


def truth_of(name: str) -> Generator:
    truth = load_dataset(name).truth
    assert truth is not None
    return truth


# ---------------------------------------- the synthetic sets ----------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_agrees_with_what_it_says_of_itself(name: str) -> None:
    data = load_dataset(name)
    assert data.name == name
    assert data.x.dtype == np.float64
    assert len(data.x) == data.recommended.n
    assert data.truth is not None and data.latent_dim == data.truth.latent_dim
    assert (data.likelihood == "bernoulli") == (data.truth.noise_std is None) == (name == "bars")
    assert data.description.endswith(".") and "\n" not in data.description
    outputs = data.truth.outputs(np.zeros((5, data.latent_dim)))
    assert outputs.shape == (5, data.x.shape[1])
    assert data.truth.support == (-math.inf, math.inf)
    check_data(data.x, data.likelihood)


def test_the_names_are_sorted_and_the_dataset_is_frozen() -> None:
    assert DATASETS == sorted(DATASETS) == ["arc", "bars", "crossing", "linear", "linear-test", "pinwheel"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_dataset("arc").name = "bow"  # type: ignore[misc]


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("n", [None, 2, 77])
def test_same_name_n_and_seed_give_the_same_bits_and_another_seed_does_not(name: str, n: int | None) -> None:
    first, again, other = (load_dataset(name, n, seed).x for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.shape == other.shape and (first != other).any()
    assert n is None or len(first) == n


@pytest.mark.parametrize(
    ("name", "first_row", "total"),
    [
        ("arc", [0.15019553347307613, 0.9925039479535607], 95.39015617902022),
        ("crossing", [1.284392230395158, 0.5763584116216237], 7.610796476158928),
        ("pinwheel", [0.12230219479067075, 0.03179475852686209], -12.140871804477063),
        ("bars", [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0], 1361.0),
    ],
)
def test_the_draws_stay_those_that_shared_runs_refer_to(
    name: str, first_row: list[float], total: float
) -> None:
    x = load_dataset(name, n=256).x
    np.testing.assert_allclose(x[0], first_row, rtol=1e-12)
    assert x.sum() == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("name", PLANE)
def test_the_plane_sets_are_roughly_of_unit_scale(name: str) -> None:
    x = load_dataset(name, 5000).x
    assert np.all(np.abs(x.mean(axis=0)) < 0.5)
    assert np.all((x.std(axis=0) > 0.4) & (x.std(axis=0) < 1.2))


@pytest.mark.parametrize("name", DATASETS)
def test_prior_and_likelihood_equal_scipys(name: str) -> None:
    data, truth = load_dataset(name, 7, 1), truth_of(name)
    z = np.random.default_rng(0).standard_normal((4, truth.latent_dim))
    np.testing.assert_allclose(truth.log_prior(z), stats.norm.logpdf(z).sum(axis=-1), rtol=1e-12)
    outputs = truth.outputs(z)
    got = truth.log_likelihood(data.x[:, None, :], outputs)  # leading axes broadcast: (7,1,D) with (4,D)
    if truth.noise_std is None:
        expected = stats.bernoulli.logpmf(data.x[:, None, :], expit(outputs))
    else:
        expected = stats.norm.logpdf(data.x[:, None, :], outputs, truth.noise_std)
    assert got.shape == (7, 4)
    np.testing.assert_allclose(got, expected.sum(axis=-1), rtol=1e-10)


def test_bernoulli_log_likelihood_stays_finite_at_huge_logits() -> None:
    x, logits = np.array([1.0, 0.0, 1.0]), np.array([-800.0, 800.0, 900.0])
    assert truth_of("bars").log_likelihood(x, logits) == pytest.approx(-1600.0)


@pytest.mark.parametrize("name", DATASETS)
def test_samples_follow_the_density_of_the_truth(name: str) -> None:
    truth, n = truth_of(name), 20_000
    x, z = truth.sample(n, np.random.default_rng(3))
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    if truth.noise_std is None:
        assert set(np.unique(x)) == {0.0, 1.0}
        p = expit(truth.outputs(z))
        surprise = (x - p).sum(axis=0) / np.sqrt((p * (1 - p)).sum(axis=0))  # each N(0, 1) by the limit theorem
        assert np.all(np.abs(surprise) < 4.5)
    else:
        assert stats.kstest(((x - truth.outputs(z)) / truth.noise_std).ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", ["arc", "crossing"])
def test_the_data_of_a_set_are_as_probable_as_fresh_draws_from_its_truth(name: str) -> None:
    truth = truth_of(name)
    grid = np.linspace(-9, 9, 8001)[:, None]
    outputs, log_prior = truth.outputs(grid), truth.log_prior(grid)

    def log_px(x: Array) -> Array:
        log_joint = truth.log_likelihood(x[:, None, :], outputs) + log_prior
        result: Array = np.logaddexp.reduce(log_joint, axis=1) + math.log(grid[1, 0] - grid[0, 0])
        return result

    ours = log_px(load_dataset(name, 400, 11).x)
    fresh = log_px(truth.sample(400, np.random.default_rng(99))[0])
    assert abs(ours.mean() - fresh.mean()) < 4 * math.sqrt(ours.var() / 400 + fresh.var() / 400)


def test_arc_is_an_arc_of_250_degrees_whose_angle_rises_with_z() -> None:
    mean = truth_of("arc").outputs(np.linspace(-8, 8, 4001)[:, None])
    np.testing.assert_allclose(np.linalg.norm(mean, axis=1), 1.0, rtol=1e-12)
    angle = np.degrees(np.arctan2(mean[:, 0], mean[:, 1]))  # 0 at the top, clockwise
    assert np.all(np.diff(angle) > 0)
    assert angle[-1] - angle[0] == pytest.approx(250, abs=0.01)
    quantiles = ndtri(np.linspace(0.1, 0.9, 9))[:, None]  # nine z's that cut the prior into tenths …
    gaps = np.diff(truth_of("arc").outputs(quantiles) @ np.array([1.0, 0.0]))
    assert np.all(gaps[2:6] > 0)  # … run from left to right over the top


def modes_of_posterior(truth: Generator, x: Array) -> list[float]:
    """The mass of each mode of p(z|x), z in R¹: the posterior on a fine grid, cut at its local minima."""
    z = np.linspace(-8, 8, 32_001)[:, None]
    density = np.exp(truth.log_prior(z) + truth.log_likelihood(x, truth.outputs(z)))
    density /= density.sum()
    inner = density[1:-1]
    minima = 1 + np.flatnonzero((inner < density[:-2]) & (inner <= density[2:]))
    return [float(part.sum()) for part in np.split(density, minima) if part.sum() > 1e-6]


def test_crossing_posterior_has_two_modes_at_the_crossing() -> None:
    truth = truth_of("crossing")
    masses = modes_of_posterior(truth, np.array([0.0, 0.0]))
    assert len(masses) == 2 and min(masses) > 0.3
    masses = modes_of_posterior(truth, np.array([0.03, 0.0]))  # a noise away both explanations still hold
    assert len(masses) == 2 and min(masses) > 0.3


@pytest.mark.parametrize("x", [(1.4, 0.0), (1.0, 1.0), (-1.0, -1.0)])
def test_crossing_posterior_has_one_mode_away_from_the_crossing(x: tuple[float, float]) -> None:
    assert max(modes_of_posterior(truth_of("crossing"), np.array(x))) > 1 - 1e-6


def test_crossing_data_hold_points_whose_posterior_really_is_split() -> None:
    truth, x = truth_of("crossing"), load_dataset("crossing").x
    near = x[np.linalg.norm(x, axis=1) < 0.25]
    masses = [modes_of_posterior(truth, point) for point in near]
    assert sum(len(m) == 2 and min(m) > 0.3 for m in masses) >= 3


def test_pinwheel_map_is_one_to_one_and_keeps_the_radius() -> None:
    truth = truth_of("pinwheel")
    z = np.random.default_rng(0).standard_normal((4000, 2)) * 2
    np.testing.assert_allclose(np.linalg.norm(truth.outputs(z), axis=1), np.linalg.norm(z, axis=1), rtol=1e-10)
    h = 1e-6
    columns = [(truth.outputs(z + h * e) - truth.outputs(z - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.all(np.linalg.det(np.stack(columns, axis=-1)) > 0.05)  # never folds over


def test_pinwheel_has_three_arms() -> None:
    truth = truth_of("pinwheel")
    x, _ = truth.sample(20_000, np.random.default_rng(1))
    ring = x[np.abs(np.linalg.norm(x, axis=1) - 1.5) < 0.1]
    angle = np.arctan2(ring[:, 1], ring[:, 0])
    strength = [abs(np.exp(1j * k * angle).mean()) for k in (1, 2, 3, 4, 5)]
    assert int(np.argmax(strength)) == 2 and strength[2] > 0.5


def test_bars_show_a_bar_that_z1_moves_and_z2_turns() -> None:
    truth = truth_of("bars")
    for z1, line in ((-3.0, 0), (3.0, 3)):
        horizontal, vertical = truth.outputs(np.array([[z1, -2.0], [z1, 2.0]])).reshape(2, 4, 4)
        expected = np.zeros((4, 4), dtype=bool)
        expected[line] = True
        np.testing.assert_array_equal(horizontal > 0, expected)
        np.testing.assert_array_equal(vertical > 0, expected.T)
    z = np.random.default_rng(0).standard_normal((1000, 2)) * 3
    assert np.abs(truth.outputs(z)).max() <= 4


LINEAR_W = np.array([[-0.5, -1], [-1, -1], [2, 0.5]])
LINEAR_MARGINAL = stats.multivariate_normal(
    np.zeros(3), LINEAR_W @ LINEAR_W.T + np.diag(np.square([0.4, 0.2, 0.3]))
)


@pytest.mark.parametrize(("name", "mean_log_px"), [("linear", -3.934837), ("linear-test", -3.970452)])
def test_linear_default_draws_have_the_known_mean_log_p(name: str, mean_log_px: float) -> None:
    data = load_dataset(name)
    assert LINEAR_MARGINAL.logpdf(data.x).mean() == pytest.approx(mean_log_px, abs=1e-6)
    np.testing.assert_array_equal(truth_of(name).outputs(np.eye(2)), LINEAR_W.T)
    assert data.x.tobytes() == load_dataset(name, n=1000, seed=0).x.tobytes()


def test_linear_at_other_seeds_is_the_same_generator_and_its_halves_are_independent() -> None:
    train, test = load_dataset("linear", 4000, 7).x, load_dataset("linear-test", 4000, 7).x
    for x in (train, test):
        np.testing.assert_allclose(np.cov(x.T), LINEAR_MARGINAL.cov, atol=0.3)
    assert np.abs(np.corrcoef(train.T, test.T)[:3, 3:]).max() < 0.07
    rng = np.random.default_rng(0)  # only the default n has the legacy draws
    z, _, noise = (rng.standard_normal((500, k)) for k in (2, 2, 3))
    np.testing.assert_allclose(
        load_dataset("linear", 500).x, z @ LINEAR_W.T + noise * [0.4, 0.2, 0.3], rtol=1e-12
    )


# ---------------------------------------- a person's own file ----------------------------------------

ROWS = np.array([[1.5, -2.0], [3.25, 4.0], [0.0, 1e-3]])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.csv", "1.5,-2\n3.25,4\n0,1e-3\n"),
        ("header.csv", "height,weight\n1.5,-2\n3.25,4\n0,1e-3\n"),
        ("quoted.csv", '"height","weight"\n"1.5","-2"\n"3.25","4"\n"0","1e-3"\n'),
        ("semicolon.csv", "1.5;-2\n3.25;4\n0;1e-3"),
        ("tab.tsv", "a b\tc\n1.5\t-2\n3.25\t4\n0\t1e-3\n"),
        ("white.txt", "  1.5   -2\n 3.25\t 4\n0 1e-3 \n".replace("\t", " ")),
        ("spaces.csv", "1.5, -2\n3.25, 4\n0, 1e-3\n"),
        ("windows.CSV", "\ufeffx,y\r\n1.5,-2\r\n3.25,4\r\n0,1e-3\r\n"),
        ("mark.csv", "\ufeff1.5,-2\n3.25,4\n0,1e-3\n"),
        ("comments.txt", "# made by hand\n\n1.5 -2\n# half way\n3.25 4\n\n0 1e-3\n\n"),
    ],
)
def test_text_files_of_every_dialect_give_their_numbers(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_bytes(text.encode())
    data = load_dataset(tmp_path / file)
    np.testing.assert_array_equal(data.x, ROWS)
    assert (data.truth, data.likelihood, data.name, data.latent_dim) == (None, "gaussian", file, 1)
    header = "yes" if file in ("header.csv", "quoted.csv", "tab.tsv", "windows.CSV") else "no"
    names = {
        "header.csv": "height, weight",
        "quoted.csv": "height, weight",
        "tab.tsv": "a b, c",
        "windows.CSV": "x, y",
    }
    columns = names.get(file, "x₁, x₂")
    assert data.description == f"Your own file {file}: 3 rows, 2 columns ({columns}), header {header}."


@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 6), st.integers(2, 5)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    delimiter=st.sampled_from([",", ";", "\t", " ", ", "]),
    header=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_a_csv_round_trip_keeps_every_bit(
    x: Array, delimiter: str, header: bool, newline: str, last: bool
) -> None:
    lines = [delimiter.join(f"x{i}" for i in range(x.shape[1]))] if header else []
    lines += [delimiter.join(repr(float(value)) for value in row) for row in x]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes((newline.join(lines) + newline * last).encode())
        assert read_text(path, Choice()).values.tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float64, ">f8"])
def test_npy_of_any_real_dtype_becomes_float64(tmp_path: Path, dtype: Any) -> None:
    values = np.array([[1, 2], [3, 5], [7, 11]], dtype=dtype)
    np.save(tmp_path / "a.npy", values)
    x = load_dataset(str(tmp_path / "a.npy")).x
    assert x.dtype == np.dtype(np.float64)
    np.testing.assert_array_equal(x, values)


def test_npz_gives_its_only_array_or_the_one_named_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", points=ROWS)
    np.savez_compressed(tmp_path / "x.npz", y=np.ones(3), x=ROWS)
    for file in ("one.npz", "x.npz"):
        np.testing.assert_array_equal(load_dataset(tmp_path / file).x, ROWS)


def test_likelihood_is_bernoulli_exactly_when_all_values_are_0_or_1(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    np.save(tmp_path / "bits.npy", bits)
    np.save(tmp_path / "almost.npy", bits * 1.0 + [[0, 0, 0], [0, 0, 1e-9]])
    assert load_dataset(tmp_path / "bits.npy").likelihood == "bernoulli"
    assert load_dataset(tmp_path / "bits.npy", likelihood="bernoulli").x.dtype == np.float64
    assert load_dataset(tmp_path / "almost.npy").likelihood == "gaussian"
    assert load_dataset(tmp_path / "bits.npy").latent_dim == 2


def test_n_takes_a_seeded_subset_of_the_rows_in_file_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(200.0).reshape(100, 2))
    first, again, other = (load_dataset(tmp_path / "a.npy", 30, seed).x for seed in (1, 1, 2))
    assert first.shape == (30, 2) and (first == again).all() and (first != other).any()
    assert np.all(np.diff(first[:, 0]) >= 2) and np.all(first[:, 1] - first[:, 0] == 1)
    np.testing.assert_array_equal(
        load_dataset(tmp_path / "a.npy", 100, 5).x, load_dataset(tmp_path / "a.npy").x
    )


def test_the_likelihood_of_a_file_does_not_depend_on_the_subset(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.vstack([np.eye(50), np.full((1, 50), 2.0)]))
    assert {load_dataset(tmp_path / "a.npy", 2, seed).likelihood for seed in range(20)} == {"gaussian"}


def test_a_home_directory_in_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(load_dataset("~/a.npy").x, ROWS)


# ---------------------------------------- errors ----------------------------------------


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


OBJECTS = np.array([[1, "a"], [2, "b"]], dtype=object)
NAN = np.array([[1.0, 2.0], [np.inf, 3.0], [4.0, np.nan]])


@pytest.mark.parametrize(
    ("file", "content", "likelihood", "message"),
    [
        ("e.csv", b"", None, "{}: expected rows of numbers, got an empty file"),
        ("e.csv", b"\n# nothing\n\n", None, "{}: expected rows of numbers, got an empty file"),
        ("e.csv", b"a,b\n", None, "{}: expected rows of numbers, got only a header"),
        ("e.csv", b"1,2\n3,4\n\n5,6,7\n", None, "{}, line 4: expected 2 columns as in the first line, got 3"),
        ("e.csv", b"a,b,c\n1,2\n", None, "{}, line 2: expected 3 columns as in the first line, got 2"),
        ("e.csv", b"a,b\n1,2\n3,four\n", None, "{}, line 3, column 2 'b': expected a number, got 'four'"),
        ("e.csv", b"1,2\n3,\n", None, "{}, line 2, column 2: expected a number, got ''"),
        (
            "e.csv",
            b"x,1\n3,4\n",
            None,
            "{}, line 1, column 1: expected a number, got 'x' (is this line the header? say --header yes)",
        ),
        ("e.csv", b"1,2\n1_0,2\n", None, "{}, line 2, column 1: expected a number, got '1_0'"),
        (
            "e.csv",
            b"1,2\n3," + b"z" * 99,
            None,
            "{}, line 2, column 2: expected a number, got '" + "z" * 39 + "…'",
        ),
        (
            "e.csv",
            b",a,b\n0.5,1,2\n1.5,3,4\n",
            None,
            "{}: expected row numbers or row names, which are left out, or a column that is chosen, "
            "got other numbers in column 1 (say --skip-columns 'column 1', or choose with --columns)",
        ),
        (
            "e.csv",
            "Größe,b\n1,2\n".encode("cp1252"),
            None,
            "{}: expected UTF-8 text (spreadsheets save it as CSV UTF-8), got other bytes",
        ),
        (
            "e.csv",
            b"a,b\n1,2\n3,nan\n-inf,\tinf\n".replace(b"\t", b""),
            None,
            "{}: expected finite numbers, got 3 NaN or infinite of 6, the first nan in line 3, column 2 'b'",
        ),
        ("e.csv", b"1\n2\n3\n", None, "{}: expected at least two columns (data dimensions), got 1"),
        ("e.csv", b"1,2,3\n", None, "{}: expected at least two rows (data points), got 1"),
        (
            "e.npy",
            npy(np.ones((5, 1)) * 2),
            None,
            "{}: expected at least two columns (data dimensions), got 1",
        ),
        (
            "e.npy",
            npy(NAN),
            None,
            "{}: expected finite numbers, got 2 NaN or infinite of 6, the first inf in data row 2, column 1",
        ),
        (
            "e.npy",
            npy(np.ones((9, 4, 4))),
            None,
            "{}: expected rows and columns, shape (N, D), got shape (9, 4, 4) "
            "(for images: x.reshape(len(x), -1))",
        ),
        ("e.npy", npy(np.ones(9)), None, "{}: expected rows and columns, shape (N, D), got shape (9,)"),
        (
            "e.npy",
            npy(np.ones((0, 3))),
            None,
            "{}: expected rows and columns, shape (N, D), got shape (0, 3)",
        ),
        (
            "e.npy",
            npy(np.ones((3, 2)) * 1j),
            None,
            "{}: expected real numbers, got complex numbers (dtype complex128)",
        ),
        (
            "e.npy",
            npy(np.array([["1", "2"], ["3", "4"]])),
            None,
            "{}: expected real numbers, got something else (dtype <U1)",
        ),
        (
            "e.npy",
            npy(OBJECTS),
            None,
            "{}: expected plain numbers, got Python objects (not read: they can run code)",
        ),
        (
            "e.npz",
            npz(x=OBJECTS),
            None,
            "{}: expected plain numbers, got Python objects (not read: they can run code)",
        ),
        (
            "e.npy",
            pickle.dumps([[1, 2], [3, 4]]),
            None,
            "{}: expected a NumPy file, got another format (pickles are not read: they can run code)",
        ),
        ("e.npz", npz(a=ROWS, b=ROWS), None, "{}: expected one array, or one named x, got a, b"),
        ("e.npz", npz(), None, "{}: expected one array, or one named x, got none"),
        (
            "e.npz",
            npz(x=ROWS)[:100],
            None,
            "{}: expected a NumPy file, got a damaged one (File is not a zip file)",
        ),
        (
            "e.npz",
            npz(x=ROWS).replace(ROWS.tobytes(), bytes(48)),
            None,
            "{}: expected a NumPy file, got a damaged one (Bad CRC-32 for file 'x.npy')",
        ),
        (
            "e.csv",
            b"1,1\n0,1\n",
            "gaussian",
            "{}: expected continuous values for likelihood 'gaussian', got only 0 and 1 "
            "(use likelihood='bernoulli')",
        ),
        (
            "e.csv",
            b"1,1\n1,0.37\n",
            "bernoulli",
            "{}: expected only 0 and 1 for likelihood 'bernoulli', got 0.37 in line 2, column 2 "
            "(use likelihood='gaussian', or make the data 0 and 1)",
        ),
        (
            "e.json",
            b"[[1, 2]]",
            None,
            "{}: expected a file that ends in .csv, .tsv, .txt, .npy, .npz, got '.json'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, file: str, content: bytes, likelihood: str | None, message: str
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(path, likelihood=likelihood)
    assert str(caught.value) == message.format(path)


@pytest.mark.parametrize("content", [npy(ROWS)[:-8], npy(ROWS)[:30], npy(ROWS)[:7]])
def test_a_truncated_npy_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"cut\.npy: expected a NumPy file, got a damaged one \(.+\)"):
        load_dataset(tmp_path / "cut.npy")


@settings(max_examples=100, deadline=None)
@given(data=st.data(), archive=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_numpy_file_never_escapes_as_anything_but_a_data_error(
    data: st.DataObject, archive: bool
) -> None:
    content = bytearray(npz(x=ROWS) if archive else npy(ROWS))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.npz"
        path.write_bytes(content)
        try:
            load_dataset(path)
        except DataError as error:
            assert "\n" not in str(error)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    bomb = np.empty((2, 2), dtype=object)
    bomb[:] = Bomb()
    for file, content in (("a.npy", pickle.dumps(Bomb())), ("b.npy", npy(bomb)), ("c.npz", npz(x=bomb))):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(DataError, match="can run code"):
            load_dataset(tmp_path / file)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_name_lists_what_there_is_and_guesses_what_was_meant() -> None:
    expected = "expected one of arc, bars, crossing, linear, linear-test, pinwheel or a .csv, .npy or .npz file"
    for name, hint in (
        ("ark", " (did you mean 'arc'?)"),
        ("ARC", " (did you mean 'arc'?)"),
        ("mnist", ""),
    ):
        with pytest.raises(DataError) as caught:
            load_dataset(name)
        assert str(caught.value) == f"unknown dataset {name!r}: {expected}{hint}"


@pytest.mark.parametrize("name", ["", "a" * 5000, "arc\0", "~nobody-here/arc"])
def test_a_strange_name_is_an_unknown_dataset(name: str) -> None:
    with pytest.raises(DataError, match="^unknown dataset"):
        load_dataset(name)


def test_a_missing_file_a_directory_and_a_file_without_ending_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bare").write_text("1,2\n3,4\n")
    for file, message in (
        ("none.csv", "{}: expected a file, got nothing: there is no such file"),
        ("folder.csv", "{}: expected a .csv, .npy or .npz file, got a directory"),
        ("bare", "{}: expected a file that ends in .csv, .tsv, .txt, .npy, .npz, got 'no ending'"),
    ):
        with pytest.raises(DataError) as caught:
            load_dataset(tmp_path / file)
        assert str(caught.value) == message.format(tmp_path / file)


@pytest.mark.parametrize("file", ["locked.csv", "locked.npy"])
def test_a_file_that_the_system_will_not_open_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / file).write_text("1,2\n3,4\n")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DataError, match=r"expected a file that can be read, got Permission denied$"):
        load_dataset(tmp_path / file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, "n: expected a whole number >= 2, got 1"),
        ({"n": 10.0}, "n: expected a whole number >= 2, got 10.0"),
        ({"n": "10"}, "n: expected a whole number >= 2, got '10'"),
        ({"n": True}, "n: expected a whole number >= 2, got True"),
        ({"seed": -1}, "seed: expected a whole number >= 0, got -1"),
        ({"seed": True}, "seed: expected a whole number >= 0, got True"),
        ({"seed": None}, "seed: expected a whole number >= 0, got None"),
        ({"likelihood": "poisson"}, "likelihood: expected 'gaussian' or 'bernoulli', got 'poisson'"),
        ({"name_or_path": 3}, "dataset: expected a name or a path, got int"),
        ({"name_or_path": ROWS}, "dataset: expected a name or a path, got ndarray"),
    ],
)
def test_a_bad_argument_is_refused_with_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_dataset(**{"name_or_path": "arc", **arguments})
    assert str(caught.value) == message


def test_numpy_integers_are_integers() -> None:
    assert len(load_dataset("arc", np.int32(9), np.uint8(3)).x) == 9  # type: ignore[arg-type]


def test_more_points_than_the_file_has_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "a.npy", n=4)
    assert str(caught.value) == f"n: expected at most 3, the number of rows in {tmp_path / 'a.npy'}, got 4"


def test_a_synthetic_set_refuses_the_other_likelihood() -> None:
    assert load_dataset("bars", likelihood="bernoulli").likelihood == "bernoulli"
    with pytest.raises(
        DataError, match=r"^dataset 'bars': .* got only 0 and 1 \(use likelihood='bernoulli'\)$"
    ):
        load_dataset("bars", likelihood="gaussian")
    with pytest.raises(DataError, match=r"^dataset 'arc': .* \(use likelihood='gaussian', or make"):
        load_dataset("arc", likelihood="bernoulli")


def test_check_data_copies_what_it_accepts() -> None:
    mine = np.asfortranarray(ROWS)
    checked = check_data(mine, "gaussian")
    mine[0, 0] = 99.0
    np.testing.assert_array_equal(checked, ROWS)
    assert checked.flags.c_contiguous and checked.dtype == np.float64
    np.testing.assert_array_equal(check_data([[1, 0], [0, 1]], "bernoulli"), np.eye(2))
    assert check_data(np.full((1, 1), 0.5), "gaussian").shape == (
        1,
        1,
    )  # one point, one dimension: for a library user


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1, 2], [3]], "data: expected a rectangular array of numbers, got rows of unequal length"),
        (None, "data: expected real numbers, got something else (dtype object)"),
        (ROWS[0], "data: expected rows and columns, shape (N, D), got shape (2,)"),
        (np.full((2, 2), np.nan), "the first nan in data row 1, column 1"),
        (np.array([[0.0, 1.0], [2.0, np.inf]]), "the first inf in data row 2, column 2"),
    ],
)
def test_check_data_refuses_arrays_with_the_same_messages(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message) + "$"):
        check_data(x)


def test_a_value_that_is_almost_1_is_not_shown_as_1() -> None:
    with pytest.raises(DataError, match=r"got 1\.000000001 in data row 1, column 2"):
        check_data([[0.0, 1 + 1e-9]], "bernoulli")


def test_data_error_is_a_value_error() -> None:
    assert issubclass(DataError, ValueError)
