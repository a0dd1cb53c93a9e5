"""A run: one Config says all that it depends on, and one line of text says it again.

The same Config gives the same run, bit for bit, on screen, headless or from Python.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from .datasets import Dataset, load_dataset
from .model import VAE
from .records import StepRecord
from .settings import Settings, Update
from .training import Trainer


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. None means: as the dataset suggests, or the engine's default."""

    dataset: str = "arc"  # a name, or the path of a file
    n: int | None = None
    data_seed: int = 0
    latent_dim: int | None = None
    hidden: Sequence[int] = (32, 32)
    likelihood: str | None = None
    covariance: str = "diagonal"
    noise: str = "shared"
    noise_std: float | None = None
    learning_rate: float = 3e-3
    optimizer: str = "adam"
    batch_size: int = 64
    samples: int = 1
    seed: int = 0
    precision: str = "float64"
    evaluate_every: int = 1
    tolerance: float | None = None
    update: Update = field(default_factory=Update)

    @property
    def settings(self) -> Settings:
        """The settings that the run begins with."""
        rate = self.learning_rate
        return Settings(self.update, rate, rate, self.optimizer, self.samples, self.batch_size)

    def open(self) -> "Run":
        """Load the data, make the model and the trainer. Raises ValueError with one clear line."""
        data = load_dataset(self.dataset, n=self.n, seed=self.data_seed, likelihood=self.likelihood)
        model = VAE(
            data.x.shape[1],
            data.latent_dim if self.latent_dim is None else self.latent_dim,
            tuple(self.hidden),
            data.likelihood,  # type: ignore[arg-type]  # VAE checks it
            self.covariance,  # type: ignore[arg-type]
            self.noise,  # type: ignore[arg-type]
            self.noise_std,
        )
        trainer = Trainer(
            model,
            data.x,
            seed=self.seed,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,  # type: ignore[arg-type]
            samples=self.samples,
            precision=self.precision,  # type: ignore[arg-type]
            evaluate_every=self.evaluate_every,
            tolerance=self.tolerance,
            update=self.update,
        )
        return Run(self, data, model, trainer)


@dataclass(frozen=True)
class Run:
    """What `Config.open` made."""

    config: Config
    data: Dataset
    model: VAE
    trainer: Trainer


# ----- a run as one line of text -----

Schedule = tuple[tuple[int, Settings], ...]  # after which step which settings came into force

_SHARED: dict[str, Callable[[str], Any]] = {  # what a share string may hold of a Config, and how to read it back
    "n": int, "data_seed": int, "latent_dim": int, "likelihood": str, "covariance": str, "noise": str,
    "noise_std": float, "learning_rate": float, "optimizer": str, "batch_size": int, "samples": int, "seed": int,
    "precision": str, "hidden": lambda text: tuple(int(part) for part in text.split("-") if part),
}  # fmt: skip
_CHANGES: dict[str, Callable[[str], Any]] = {
    "theta": lambda text: bool(int(text)), "phi": lambda text: bool(int(text)),
    "theta_steps": int, "phi_steps": int, "theta_rate": float, "phi_rate": float,
    "optimizer": str, "samples": int, "batch_size": int,
}  # fmt: skip
_OF_UPDATE = ("theta", "phi", "theta_steps", "phi_steps")


def share(config: Config, schedule: Schedule, step: int) -> str:
    """Everything that the run up to `step` depends on, as one line: `v1:arc:seed=3:@120:theta=0:@300`.

    Only what differs from the defaults is written. `@120` opens what changed after step 120; the last one is
    where the run stood.
    """
    words, plain = ["v1", quote(config.dataset, safe="")], Config()
    for name in _SHARED:
        value = getattr(config, name)
        if value != getattr(plain, name):
            words.append(f"{name}={'-'.join(map(str, value)) if name == 'hidden' else value}")
    before = first = _flat(config.settings)
    if changes := _difference(_flat(Config().settings), first, _OF_UPDATE):
        words += ["@0", *changes]
    for at, settings in schedule:
        words += [f"@{at}", *_difference(before, _flat(settings), tuple(_CHANGES))]
        before = _flat(settings)
    return ":".join([*words, f"@{step}"])


def parse_share(text: str) -> tuple[Config, Schedule, int]:
    """The config, the schedule and the last step of a share string. Raises ValueError with one clear line."""
    version, *words = text.strip().split(":")
    if version != "v1" or not words:
        raise ValueError(f"share: expected a string that begins with v1:DATASET, got {text!r}")
    config, at, schedule = Config(dataset=unquote(words[0])), 0, []
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
            elif name in _OF_UPDATE:
                update = replace(settings.update, **{name: _CHANGES[name](value)})
                settings = replace(settings, update=update)
            else:
                settings = replace(settings, **{name: _CHANGES[name](value)})
        except (ValueError, KeyError) as problem:
            raise ValueError(
                f"share: expected NAME=VALUE with known names, or @STEP, got {word!r}"
            ) from problem
    return config, tuple(schedule), at


def scheduled_steps(trainer: Trainer, schedule: Schedule, n: int) -> Iterator[StepRecord]:
    """The next n steps of a trainer, with the changes of the schedule made when their steps come."""
    for _ in range(n):
        for at, settings in schedule:
            if at == trainer.step_count:
                trainer.settings = settings
        yield trainer.step()


def _flat(settings: Settings) -> dict[str, Any]:
    flat = {name: getattr(settings.update, name) for name in _OF_UPDATE}
    return flat | {name: getattr(settings, name) for name in _CHANGES if name not in _OF_UPDATE}


def _difference(old: dict[str, Any], new: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [f"{k}={int(new[k]) if isinstance(new[k], bool) else new[k]}" for k in names if new[k] != old[k]]
