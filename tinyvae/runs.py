"""A run: one Config says all that it depends on, and one line of text says it again.

The same Config gives the same run, bit for bit, on screen, headless or from Python.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from .checks import digest, expect_room
from .datafiles import DataError
from .datasets import DATASETS, Dataset, load_dataset
from .model import VAE
from .presets import Recommended, of_v1
from .records import StepRecord
from .settings import Settings, Update
from .training import Trainer

_RECOMMENDED = ("hidden", "covariance", "learning_rate", "batch_size", "samples", "noise_init")
MOST_COLUMNS = 64  # numbers that a point of a built-in set takes while it is made, at most


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. None means: as recommended for the data (`presets.py`), or as it is born.

    The names are those of `load_dataset`, `VAE` and `Trainer`, where they are explained.
    """

    dataset: str = "arc"  # a name, or the path of a file
    n: int | None = None
    data_seed: int = 0
    holdout: float | None = None
    latent_dim: int | None = None
    hidden: Sequence[int] | None = None
    likelihood: str | None = None
    covariance: str | None = None
    noise: str = "shared"
    noise_std: float | None = None
    noise_init: float | None = None
    learning_rate: float | None = None
    optimizer: str = "adam"
    batch_size: int | None = None
    samples: int | None = None
    beta: float = 1.0
    seed: int = 0
    precision: str = "float64"
    evaluate_every: int = 1
    certify_every: int = 0
    tolerance: float | None = None
    columns: Sequence[str] | None = None
    skip_columns: Sequence[str] | None = None
    color: str | None = None
    header: bool | None = None
    standardize: bool = False
    update: Update = field(default_factory=Update)
    data: str | None = None  # the digest of a file's data; another one is refused
    defaults: str = "v2"  # the version of the recommendations; a `v1:` line asks for those of then

    def with_dataset(self, name: str) -> "Config":
        """The same run on other data, all of it as recommended for them."""
        anew: dict[str, Any] = dict.fromkeys(
            (*_RECOMMENDED, "n", "holdout", "latent_dim", "likelihood", "data")
        )
        anew |= dict.fromkeys(("columns", "skip_columns", "color", "header")) | {"standardize": False}
        return replace(self, **anew, dataset=name, data_seed=0, noise_std=None, defaults="v2")

    @property
    def settings(self) -> Settings:
        """The settings that a run with this config begins with. Raises ValueError unless they are all said."""
        rate, samples, batch_size = self.learning_rate, self.samples, self.batch_size
        if rate is None or samples is None or batch_size is None:
            expected = "learning_rate, samples and batch_size before the first @STEP"
            raise ValueError(f"share: expected {expected}, got {rate}, {samples} and {batch_size}")
        return Settings(self.update, rate, rate, self.optimizer, samples, batch_size, self.beta)

    def open(self) -> "Run":
        """Load the data, make the model and the trainer. Raises ValueError with one clear line."""
        old = of_v1(self.dataset) if self.defaults == "v1" else None
        n = old.n if old and self.n is None else self.n
        if n is not None and self.dataset in DATASETS:
            expect_room("points", n * MOST_COLUMNS, "take fewer")
        data = load_dataset(
            self.dataset, n, self.data_seed, self.likelihood, self.holdout, self.columns, self.skip_columns,
            self.color, self.header, self.standardize,
        )  # fmt: skip
        self._check_data(data)
        config = self._resolve(data, old or data.recommended)
        model = VAE(
            data.x.shape[1],
            config.latent_dim,  # type: ignore[arg-type]  # VAE checks what is given to it
            config.hidden,  # type: ignore[arg-type]
            data.likelihood,  # type: ignore[arg-type]
            config.covariance,  # type: ignore[arg-type]
            config.noise,  # type: ignore[arg-type]
            config.noise_std,
            config.noise_init,
        )
        trainer = Trainer(
            model,
            data.x,
            seed=config.seed,
            batch_size=config.batch_size,  # type: ignore[arg-type]
            learning_rate=config.learning_rate,  # type: ignore[arg-type]
            optimizer=config.optimizer,  # type: ignore[arg-type]
            samples=config.samples,  # type: ignore[arg-type]
            beta=config.beta,
            precision=config.precision,  # type: ignore[arg-type]
            evaluate_every=config.evaluate_every,
            certify_every=config.certify_every,
            tolerance=config.tolerance,
            held_out=data.held_out,
            log_scale=data.log_scale,
            update=config.update,
        )
        trainer.config = config
        return Run(self, config, data, model, trainer)

    def _check_data(self, data: Dataset) -> None:
        found = _digest_of(data)
        if self.data is not None and found != self.data:
            expected = f"the data that this run was made with (data={self.data})"
            got = f"others (data={found}): the file has changed; a line without data={self.data} begins on them"
            raise DataError(f"{self.dataset}: expected {expected}, got {got}")

    def _resolve(self, data: Dataset, recommended: Recommended) -> "Config":
        """The same config with nothing left to recommend."""
        learns_noise = data.likelihood == "gaussian" and self.noise_std is None
        fill: dict[str, Any] = {name: getattr(recommended, name) for name in _RECOMMENDED}
        fill |= {"latent_dim": data.latent_dim, "likelihood": data.likelihood}
        fill |= {} if learns_noise else {"noise_init": None}
        fill["data"] = _digest_of(data)
        fill["n"] = None if data.truth is None else len(data.x)  # of a file all rows, however many it has
        fill["header"], said = data.header, self
        if data.left_out and self.columns is None and len(set(data.columns)) == len(data.columns):
            # What was recognised as row numbers is written down, too.
            fill["columns"], said = data.columns, replace(self, skip_columns=None)
        missing = {name: value for name, value in fill.items() if getattr(said, name) is None}
        return replace(said, **missing, defaults="v2")


def _digest_of(data: Dataset) -> str | None:
    """The digest of a file's data, held-out rows included; None for a built-in set, which never changes."""
    if data.truth is not None:
        return None
    return digest(data.x if data.held_out is None else np.concatenate([data.x, data.held_out]))


@dataclass(frozen=True)
class Run:
    """What `Config.open` made."""

    config: Config  # as it was asked for
    resolved: Config  # with the recommended settings filled in
    data: Dataset
    model: VAE
    trainer: Trainer


# ----- a run as one line of text -----

Schedule = tuple[tuple[int, Settings], ...]  # after which step which settings came into force

_SHARED: dict[str, Callable[[str], Any]] = {  # what a line may hold of a Config, and how to read it back
    "n": int, "data_seed": int, "holdout": float, "latent_dim": int, "likelihood": str, "covariance": str,
    "noise": str, "noise_std": float, "noise_init": float, "learning_rate": float, "optimizer": str,
    "batch_size": int, "samples": int, "beta": float, "seed": int, "precision": str, "data": str,
    "hidden": lambda text: tuple(int(part) for part in text.split("-") if part),
    "columns": lambda text: tuple(unquote(name) for name in text.split(",")), "color": unquote,
    "skip_columns": lambda text: tuple(unquote(name) for name in text.split(",")),
    "header": lambda text: bool(int(text)), "standardize": lambda text: bool(int(text)),
}  # fmt: skip
_CHANGES: dict[str, Callable[[str], Any]] = {
    "theta": lambda text: bool(int(text)), "phi": lambda text: bool(int(text)),
    "theta_steps": int, "phi_steps": int, "theta_rate": float, "phi_rate": float,
    "optimizer": str, "samples": int, "batch_size": int, "beta": float,
}  # fmt: skip
OF_UPDATE = ("theta", "phi", "theta_steps", "phi_steps")
# What a line of each version leaves out. Not the defaults of today: a line opens the same run tomorrow.
_V2 = Config(
    n=None, data_seed=0, holdout=None, latent_dim=None, hidden=None, likelihood=None, covariance=None,
    noise="shared", noise_std=None, noise_init=None, learning_rate=None, optimizer="adam", batch_size=None,
    samples=None, beta=1.0, seed=0, precision="float64", data=None,
    columns=None, skip_columns=None, color=None, header=None, standardize=False,
)  # fmt: skip
_V1 = replace(
    _V2, hidden=(32, 32), covariance="diagonal", learning_rate=3e-3, samples=1, batch_size=64, defaults="v1"
)
_LEFT_OUT = {"v1": _V1, "v2": _V2}


def share(config: Config, schedule: Schedule, step: int) -> str:
    """Everything that the run up to `step` depends on, as one line: `v2:arc:n=256:…:@120:theta=0:@300`.

    `config` is a resolved one (`Run.resolved`): what was recommended is written down, so that no later change of a
    default changes the run. `@120` opens what changed after step 120; the last one is where the run stood.
    """
    words = ["v2", quote(config.dataset, safe="", errors="surrogateescape")]  # a name need not be UTF-8
    for name in _SHARED:
        value = getattr(config, name)
        if value != getattr(_V2, name):
            words.append(f"{name}={_written(name, value)}")
    before = first = flat(config.settings)
    if changes := _difference(flat(Settings()), first, OF_UPDATE):
        words += ["@0", *changes]
    for at, settings in schedule:
        words += [f"@{at}", *_difference(before, flat(settings), tuple(_CHANGES))]
        before = flat(settings)
    return ":".join([*words, f"@{step}"])


def _written(name: str, value: Any) -> str:
    if name == "hidden":
        return "-".join(map(str, value))
    if name in ("columns", "skip_columns", "color"):
        return ",".join(quote(each, safe="") for each in ([value] if name == "color" else value))
    return str(int(value) if isinstance(value, bool) else value)


def parse_share(text: str) -> tuple[Config, Schedule, int]:
    """The config, the schedule and the last step of a share string. Raises ValueError with one clear line."""
    version, *words = text.strip().split(":")
    if version not in _LEFT_OUT or not words:
        raise ValueError(f"share: expected a line that begins with v2:DATASET, got {text!r}")
    config, at, schedule = (
        replace(_LEFT_OUT[version], dataset=unquote(words[0], errors="surrogateescape")),
        0,
        [],
    )
    settings: Settings | None = None
    for word in words[1:]:
        try:
            if word.startswith("@"):
                if settings is not None:
                    schedule.append((at, settings))
                if int(word[1:]) < at:
                    raise ValueError
                at, settings = int(word[1:]), (schedule[-1][1] if schedule else config.settings)
                continue
            name, value = word.split("=")
            if settings is None:
                config = replace(config, **{name: _SHARED[name](value)})
            elif name in OF_UPDATE:
                update = replace(settings.update, **{name: _CHANGES[name](value)})
                settings = replace(settings, update=update)
            else:
                settings = replace(settings, **{name: _CHANGES[name](value)})
        except (ValueError, KeyError) as problem:
            expected = "NAME=VALUE with known names, or @STEP"
            raise ValueError(f"share: expected {expected}, got {word!r}") from problem
    assert config.settings  # raises ValueError where the line leaves out what a run begins with
    return config, tuple(schedule), at


def scheduled_steps(trainer: Trainer, schedule: Schedule, n: int) -> Iterator[StepRecord]:
    """The next n steps of a trainer, with the changes of the schedule made when their steps come."""
    for _ in range(n):
        for at, settings in schedule:
            if at == trainer.step_count:
                trainer.settings = settings
        yield trainer.step()


def flat(settings: Settings) -> dict[str, Any]:
    flat = {name: getattr(settings.update, name) for name in OF_UPDATE}
    return flat | {name: getattr(settings, name) for name in _CHANGES if name not in OF_UPDATE}


def _difference(old: dict[str, Any], new: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [f"{k}={int(new[k]) if isinstance(new[k], bool) else new[k]}" for k in names if new[k] != old[k]]
