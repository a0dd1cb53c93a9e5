"""Data to look at: synthetic sets whose true posterior is known, and a person's own file.

    load_dataset("arc")                       one of `DATASETS`
    load_dataset("mine.csv", n=500, seed=1)   a file: .csv .tsv .txt .npy .npz

Every synthetic set is drawn from a `Generator`: z ~ N(0, I), then x from a fixed p(x|z). It answers the
questions that a decoder answers, so that Target(truth, None, x) is log p(x) and p(z|x) of the truth. All maps
z -> x are analytic: on those the trapezoid rule converges exponentially. Whatever is wrong with a name, a file or an
array is a `DataError` of one line.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checks import Array, expect, one_of, positive, whole
from .datafiles import READERS, DataError, check_data, wrong
from .presets import RECOMMENDED, Recommended, for_file

# ---------------------------------------- what a data set is ----------------------------------------


@dataclass(frozen=True, eq=False)
class Generator:
    """The fixed p(x, z) that a synthetic set is drawn from.

        z ~ N(0, I_L),   x | z ~ N(output(z), diag(noise_std²))   or, where noise_std is None,
                         x | z ~ Bernoulli(sigmoid(output(z)))

    Shapes: output maps z (M,L) to the noiseless mean or the logits (M,D); noise_std (D,). Unit: nats.
    """

    latent_dim: int
    output: Callable[[Array], Array]
    noise_std: Array | None
    support: tuple[float, float] = (-math.inf, math.inf)  # of each latent coordinate

    def log_prior(self, z: Array) -> Array:
        """log N(z; 0, I) = −½ Σ_l (z_l² + log 2π), for z (M,L) -> (M,)."""
        log_density: Array = -0.5 * np.sum(z**2 + math.log(2 * math.pi), axis=-1)
        return log_density

    def outputs(self, z: Array) -> Array:
        """All that the likelihood needs from z: the noiseless mean or the logits, (M,L) -> (M,D)."""
        return self.output(z)

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        """log p(x|z) for x (..., D) and outputs(z) (..., D); leading axes broadcast -> (...)."""
        if self.noise_std is None:  # x·logit − log(1 + e^logit), safe at any logit
            per_dimension = x * outputs - np.logaddexp(0.0, outputs)
        else:
            scaled = (x - outputs) / self.noise_std
            per_dimension = -0.5 * (scaled**2 + np.log(2 * math.pi * self.noise_std**2))
        log_density: Array = np.sum(per_dimension, axis=-1)
        return log_density

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """n draws (x (n,D), z (n,L)) from p(x, z)."""
        z = rng.standard_normal((n, self.latent_dim))
        outputs = self.outputs(z)
        if self.noise_std is None:  # a logistic variable is below the logit with probability sigmoid(logit)
            return (rng.logistic(size=outputs.shape) < outputs).astype(np.float64), z
        return outputs + self.noise_std * rng.standard_normal(outputs.shape), z


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data points and what is known about them."""

    x: Array  # (N, D)
    name: str
    likelihood: str  # "gaussian" or "bernoulli"
    truth: Generator | None  # None for a person's own file
    latent_dim: int  # recommended; the true one where there is a truth
    description: str  # one plain sentence
    recommended: Recommended  # settings with which it is learned
    held_out: Array | None  # points that are not trained on, (M, D): fresh ones from the truth, or of a file


# ---------------------------------------- the synthetic sets ----------------------------------------


def _arc_mean(z: Array) -> Array:
    # tanh(0.8 z) is close to 2Φ(z) − 1, which is uniform: the 250 degrees are covered almost evenly
    angle = math.radians(125) * np.tanh(0.8 * z[:, 0])
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _crossing_mean(z: Array) -> Array:
    # Gerono's lemniscate, crossing itself at t = ±π/2. The ends stop short of t = ±π: if they met, the
    # posterior would have two modes there too, far out in the tails of the prior.
    t = 0.95 * math.pi * np.tanh(0.8 * z[:, 0])
    return np.stack([1.4 * np.cos(t), np.sin(2 * t)], axis=1)


def _pinwheel_mean(z: Array) -> Array:
    # Let w = z1 + i z2 = r e^{iφ} and v = (w / √(0.1 + r²))³. Subtracting ⅔ arg(1 + ¾v) pulls φ towards three
    # arms and keeps the order of the angles (|¾v| < 1); turning each circle by √(1 + r²) bends the arms.
    w = z[:, 0] + 1j * z[:, 1]
    r2 = np.abs(w) ** 2
    v = (w / np.sqrt(0.1 + r2)) ** 3
    w = w * np.exp(1j * (np.sqrt(1 + r2) - 2 / 3 * np.angle(1 + 0.75 * v)))
    return np.stack([w.real, w.imag], axis=1)


def _bars_logits(z: Array) -> Array:
    # z1 moves the bar over the four rows or columns, z2 makes it horizontal (below 0) or vertical (above)
    position = 1.5 + 1.5 * np.tanh(0.8 * z[:, 0])
    bar = np.exp(-0.5 * ((np.arange(4) - position[:, None]) / 0.55) ** 2)  # (M, 4), in (0, 1]
    vertical = 0.5 + 0.5 * np.tanh(3 * z[:, 1])[:, None, None]
    image = (1 - vertical) * bar[:, :, None] + vertical * bar[:, None, :]  # (M, row, column)
    # From −4 at 0 to 4 at 1, steepest between: as sharp as a sigmoid, but without its poles, which would cost
    # the quadrature nodes. Within ±4 each pixel stays a little uncertain.
    return -4 * np.cos(math.pi * image).reshape(len(z), 16)


_LINEAR_W = np.array([[-0.5, -1.0], [-1.0, -1.0], [2.0, 0.5]])  # (D, L)


def _linear_mean(z: Array) -> Array:
    mean: Array = z @ _LINEAR_W.T
    return mean


_LINEAR_NOISE = np.array([0.4, 0.2, 0.3])
_LINEAR = Generator(2, _linear_mean, _LINEAR_NOISE)
_SETS: dict[str, tuple[Generator, str]] = {
    "arc": (
        Generator(1, _arc_mean, np.full(2, 0.1)),
        "Points along a horseshoe in the plane: one latent number says where on it.",
    ),
    "bars": (
        Generator(2, _bars_logits, None),
        "Binary 4×4 images of one bar: one latent number moves it, the other turns it.",
    ),
    "crossing": (
        Generator(1, _crossing_mean, np.full(2, 0.08)),
        "A figure of eight: a point at its crossing has two explanations, so the posterior has two modes.",
    ),
    "linear": (
        _LINEAR,
        "Factor analysis in three dimensions (train half): all that is exact here has a closed form.",
    ),
    "linear-test": (
        _LINEAR,
        "Factor analysis in three dimensions (test half): all that is exact here has a closed form.",
    ),
    "pinwheel": (
        Generator(2, _pinwheel_mean, np.full(2, 0.1)),
        "A pinwheel of three bent arms: two latent numbers, twisted smoothly and one to one.",
    ),
}
DATASETS: list[str] = sorted(_SETS)
FRESH = 256  # points that the truth gives beside the data, for held-out terms


def _built_in(name: str, n: int | None, seed: int) -> Dataset:
    (truth, text), recommended = _SETS[name], RECOMMENDED[name]
    n = recommended.n if n is None else n
    assert n is not None  # every built-in set has a size
    if truth is _LINEAR:
        x = _linear(n, seed)[name]
    else:
        x, _ = truth.sample(n, np.random.default_rng(seed))
    fresh, _ = truth.sample(FRESH, np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))))
    likelihood = "bernoulli" if truth.noise_std is None else "gaussian"
    return Dataset(x, name, likelihood, truth, truth.latent_dim, text, recommended, fresh)


def _linear(n: int, seed: int) -> dict[str, Array]:
    # As it comes this set is a benchmark with known numbers: 1000 points of the legacy seed 42, drawn in this
    # order. The order keeps the halves independent at any other n and seed too.
    rng = np.random.RandomState(42) if (n, seed) == (1000, 0) else np.random.default_rng(seed)
    z = [rng.standard_normal((n, 2)) for _ in range(2)]
    noise = [rng.standard_normal((n, 3)) for _ in range(2)]
    halves = [_linear_mean(z[k]) + _LINEAR_NOISE * noise[k] for k in range(2)]
    return dict(zip(("linear", "linear-test"), halves))


def _load_file(path: Path, n: int | None, seed: int, likelihood: str | None, holdout: float | None) -> Dataset:
    try:
        x = check_data(READERS[path.suffix.lower()](path), likelihood, path)
    except OSError as error:
        raise wrong(path, "a file that can be read", str(error.strerror or error)) from None
    rows, columns = x.shape
    if columns < 2:
        raise wrong(path, "at least two columns (data dimensions)", f"{columns}")
    if rows < 2:
        raise wrong(path, "at least two rows (data points)", f"{rows}")
    if n is not None and n > rows:
        raise wrong("n", f"at most {rows}, the number of rows in {path}", f"{n}")
    if likelihood is None:  # from the whole file, so that it does not depend on the subset
        likelihood = "gaussian" if np.any((x != 0) & (x != 1)) else "bernoulli"
    if n is not None and n < rows:
        x = x[np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))]
    held_out = None
    if holdout is not None:
        kept = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))).permutation(len(x))
        first = math.ceil(holdout * len(x))
        if len(x) - first < 2:
            raise wrong("holdout", f"a part of {len(x)} rows that leaves at least 2", f"{holdout:g}")
        x, held_out = x[np.sort(kept[first:])], x[np.sort(kept[:first])]
    text = f"{len(x)} rows of {columns} columns from your own file {path.name}."
    return Dataset(x, path.name, likelihood, None, min(2, columns - 1), text, for_file(x), held_out)


# ---------------------------------------- the one door ----------------------------------------


def load_dataset(
    name_or_path: str | os.PathLike[str],
    n: int | None = None,
    seed: int = 0,
    likelihood: str | None = None,
    holdout: float | None = None,
) -> Dataset:
    """One of the synthetic `DATASETS` by name, or a person's own file by path.

    Args:
        n: how many points; None: as recommended for the set (`presets.py`), or the whole file. From a file a
            smaller n takes a random subset, in file order.
        seed: the same name, n and seed give the same bits.
        likelihood: None takes that of the set; for a file "bernoulli" if all values are 0 or 1, else "gaussian".
        holdout: the part of a file's rows, chosen at random, that is not trained on: above 0, at most 0.5. A
            built-in set has fresh points from its truth instead.

    Raises ValueError (DataError where it is the data), one line that says what was expected and what came.
    """
    if likelihood is not None:
        one_of("likelihood", likelihood, ("gaussian", "bernoulli"))
    n, seed = None if n is None else whole("n", n, 2), whole("seed", seed, 0)
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise wrong("dataset", "a name or a path", type(name_or_path).__name__)
    name = os.fspath(name_or_path)
    if holdout is not None:
        expect(0 < positive("holdout", holdout) <= 0.5, "holdout", "a number above 0, at most 0.5", holdout)
    if name in _SETS:
        expect(holdout is None, "holdout", f"none for {name}, whose truth gives fresh points", holdout)
        dataset = _built_in(name, n, seed)
        check_data(dataset.x, likelihood, f"dataset '{name}'")
        return dataset
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):
        raise wrong(path, "a .csv, .npy or .npz file", "a directory")
    if path.suffix.lower() in READERS:
        if not os.path.exists(path):
            raise wrong(path, "a file", "nothing: there is no such file")
        return _load_file(path, n, seed, likelihood, holdout)
    if name and os.path.exists(path):
        raise wrong(path, f"a file that ends in {', '.join(READERS)}", repr(path.suffix or "no ending"))
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    expected = f"expected one of {', '.join(DATASETS)} or a .csv, .npy or .npz file"
    raise DataError(f"unknown dataset {name!r}: {expected}{hint}")
