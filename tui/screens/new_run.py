"""What a run is made of, data and model: to change it is to begin another run."""

from dataclasses import replace
from typing import Any

from tinyvae.runs import Config

from ..arguments import latent_dim, one_of, or_empty, positive, whole, widths
from .form import Field, Form


class NewRun(Form):
    """Returns the Config of the new run, or None."""

    def __init__(self, config: Config, resolved: Config):
        self.config = config
        hidden = ",".join(map(str, resolved.hidden or ())) or "none"
        fields = [
            Field("dataset", "dataset: its name, or a file", config.dataset, str),
            Field("n", f"data points (empty: {resolved.n or 'all'})", config.n, or_empty(whole(2))),
            Field("data_seed", "seed of the dataset", config.data_seed, whole(0)),
            Field("latent_dim", "dimensions of z: 1, 2 (empty: its own)", config.latent_dim, or_empty(latent_dim)),
            Field("hidden", f"hidden widths, or none (empty: {hidden})", config.hidden, or_empty(widths)),
            Field(
                "likelihood", "p(x|z): gaussian, bernoulli (empty: its own)", config.likelihood,
                or_empty(one_of("gaussian", "bernoulli")),
            ),
            Field(
                "covariance", f"covariance of q: diagonal, full (empty: {resolved.covariance})", config.covariance,
                or_empty(one_of("diagonal", "full")),
            ),
            Field("noise", "noise: shared, per-dimension", config.noise, one_of("shared", "per-dimension")),
            Field("noise_std", "noise std (empty: learned)", config.noise_std, or_empty(positive)),
            Field(
                "noise_init", f"noise std is born at (empty: {resolved.noise_init or 'recommended'})",
                config.noise_init, or_empty(positive),
            ),
            Field("seed", "seed of weights, minibatches and noise", config.seed, whole(0)),
            Field("precision", "precision: float64, float32", config.precision, one_of("float64", "float32")),
        ]  # fmt: skip
        super().__init__("Data and model of a new run", "Begin the new run", fields)

    def accept(self, changes: dict[str, Any]) -> Config:
        config = replace(self.config, **changes)
        config.open()  # what is wrong with it is said here, and the present run goes on
        return config
