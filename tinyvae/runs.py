"""A run and its files: one Config says all that a run depends on; a RecordWriter keeps its records.

The same Config gives the same run, bit for bit, on screen, headless or from Python.
"""

import contextlib
import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .datasets import Dataset, load_dataset
from .model import VAE
from .training import StepRecord, Trainer, Update


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
    evaluate_every: int = 1
    tolerance: float | None = None
    update: Update = field(default_factory=Update)

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


FORMATS = (".jsonl", ".csv")


class RecordWriter:
    """Writes one record a step to a .jsonl or .csv file; each is on disk before the next step begins.

    Raises ValueError for another suffix and OSError where the file cannot be written; what was written
    before stays.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"out: expected a file ending in {' or '.join(FORMATS)}, got {str(path)!r}")
        self.count = 0
        self._file: IO[str] = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115 (close() does)

    def write(self, record: StepRecord) -> None:
        row = record.as_row()
        if self.path.suffix == ".csv":
            writer = csv.DictWriter(self._file, row)
            if self.count == 0:
                writer.writeheader()
            writer.writerow({k: int(v) if isinstance(v, bool) else v for k, v in row.items()})
        else:
            self._file.write(json.dumps({k: _finite(v) for k, v in row.items()}) + "\n")
        self._file.flush()
        self.count += 1

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported by `write`; closing would say it again
            self._file.close()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _finite(value: Any) -> Any:
    """JSON knows no infinity: an error bound that could not be had becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
