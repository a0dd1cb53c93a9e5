"""Data on which arithmetic loses its digits: what is shown is right within its error, or is said not to be."""

import math

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.runs import Config


def exact(model, theta, x):
    """log p(x) of a linear Gaussian model, from its covariance, with the offset taken out first."""
    named = model.unpack_theta(theta)
    ((W, b),) = named.layers
    noise = np.exp(2 * model.log_noise_std(theta)) * np.ones(model.data_dim)
    cov = W.T @ W + np.diag(noise)
    r = x - b
    quad = np.einsum("nd,nd->n", r, np.linalg.solve(cov, r.T).T)
    return -0.5 * (quad + np.linalg.slogdet(2 * math.pi * cov)[1])


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, 1.7e9], ids="{:g}".format)
def test_data_far_from_0_are_right_within_the_error_or_not_certified(offset):
    r = np.random.default_rng(0)
    x = r.standard_normal((40, 2)) * [1.0, 0.3] + offset
    model = tv.VAE(2, 1, hidden=())
    theta, _ = model.init(0)
    named = model.unpack_theta(theta)
    named.layers[0][1][:] = offset  # a model that has found where the data are
    target = tv.Target(model, theta, x)
    wrong = np.abs(target.log_px - exact(model, theta, x)) > target.error + 1e-9
    assert not (wrong & target.certified).any()
    assert not wrong.any()


@pytest.mark.parametrize(
    "column",
    [np.zeros(40), np.ones(40), 1e8 + np.arange(40.0), 1.7e9 + 60 * np.arange(40.0)],
    ids=["0", "1", "1e8", "epoch"],
)
def test_a_column_without_scale_trains_or_is_said_to_diverge(column, tmp_path):
    x = np.column_stack([np.random.default_rng(0).standard_normal((40, 2)), column])
    np.savetxt(tmp_path / "own.csv", x, delimiter=",")
    trainer = Config(dataset=str(tmp_path / "own.csv"), hidden=(4,), latent_dim=1).open().trainer
    try:
        records = [trainer.record(), *trainer.steps(20)]
    except tv.Diverged as problem:
        assert "is not finite" in str(problem)
        return
    for record in records:
        terms = record.terms
        assert math.isfinite(terms.log_px) and terms.error >= 0  # infinite where it is not known
        assert abs(terms.residual) <= max(terms.error, 1e-9 * abs(terms.log_px))
        assert terms.kl_posterior >= -terms.error


def test_noise_that_goes_to_0_on_duplicated_points_ends_as_diverged_or_stays_within_its_error():
    x = np.repeat([[0.3, -0.2], [1.0, 1.0]], 20, axis=0)  # the likelihood has no maximum: σ → 0
    trainer = tv.Trainer(tv.VAE(2, 1, hidden=(4,)), x, learning_rate=0.1, evaluate_every=25)
    try:
        for record in trainer.steps(200):
            if record.terms:
                assert abs(record.terms.residual) <= max(record.terms.error, 1e-9 * abs(record.terms.log_px))
                assert record.terms.elbo <= record.terms.log_px + record.terms.error
    except tv.Diverged as problem:
        assert "is not finite" in str(problem)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_rate_of_1e3_ends_as_diverged_or_stays_within_its_error(optimizer, precision):
    trainer = tv.Trainer(
        tv.VAE(2, 1, hidden=(4,)), np.random.default_rng(0).standard_normal((40, 2)),
        learning_rate=1e3, optimizer=optimizer, precision=precision,
    )  # fmt: skip
    with pytest.raises(tv.Diverged, match="is not finite; try a smaller learning rate"):
        for record in trainer.steps(100):
            terms = record.terms
            assert abs(terms.residual) <= max(terms.error, 1e-9 * abs(terms.log_px)), terms
    assert np.isfinite(trainer.theta).all() and np.isfinite(trainer.phi).all()


@pytest.mark.parametrize("rate", [1e14, 1e300])
def test_parameters_that_have_left_the_world_are_divergence_and_not_an_endless_integral(rate):
    trainer = (
        Config(
            dataset="pinwheel",
            n=5,
            hidden=(),
            batch_size=4,
            samples=2,
            seed=4,
            optimizer="sgd",
            learning_rate=rate,
        )
        .open()
        .trainer
    )
    before = trainer.theta.copy()
    with pytest.raises(tv.Diverged, match="step 1: θ is not finite; try a smaller learning rate"):
        trainer.step()
    assert np.array_equal(trainer.theta, before)
