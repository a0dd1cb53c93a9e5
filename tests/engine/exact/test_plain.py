"""The page on the exact terms: the engine is held against it, and what it says of itself is true."""

from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

import tinyvae as tv
from tinyvae import ops
from tinyvae.exact import plain

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior")


def trained(name, steps, n=3, **arguments):
    data = tv.load_dataset(name, n=256)
    model = tv.VAE(data.x.shape[1], data.latent_dim, likelihood=data.likelihood, **arguments)
    trainer = tv.Trainer(model, data.x, evaluate_every=0)
    for _ in trainer.steps(steps):
        pass
    return model, trainer.theta, trainer.phi, data.x[:n]


@pytest.mark.parametrize(
    ("name", "steps", "covariance"),
    [("arc", 300, "diagonal"), ("crossing", 100, "diagonal"), ("pinwheel", 100, "full"), ("bars", 100, "full")],
)
def test_the_engine_agrees_with_the_page_within_their_errors(name, steps, covariance):
    setting = trained(name, steps, covariance=covariance)
    page, engine = plain.decompose(*setting), tv.decompose(*setting)
    for term in TERMS:
        error = getattr(page, f"{term}_error") + getattr(engine, f"{term}_error") + 1e-12
        assert (np.abs(getattr(page, term) - getattr(engine, term)) <= error).all(), term
        assert (error < 1e-5).all(), term
    assert np.abs(page.residual).max() < 1e-9


def test_the_page_can_be_differentiated_and_phi_moves_towards_the_posterior():
    model, theta, phi, x = trained("arc", 50, hidden=(6,))

    def elbo(phi):
        reconstruction = plain.under_q(model, theta, phi, x)[0]
        return anp.mean(reconstruction - ops.gaussian_kl(*model.encode_differentiably(phi, x)))

    up = grad(elbo)(phi)
    down = grad(lambda phi: anp.mean(plain.terms(model, theta, phi, x)[3]))(phi)
    assert np.linalg.norm(up + down) < 1e-8 * np.linalg.norm(up)  # log p(x) does not depend on φ
    assert np.linalg.norm(up) > 1e-3
    d = 1e-6 * up / np.linalg.norm(up)
    slope = (elbo(phi + d) - elbo(phi - d)) / 2e-6
    assert slope == pytest.approx(np.linalg.norm(up), rel=1e-6)


def test_expectations_on_a_lattice_of_z_would_be_wrong_without_a_word():
    """A first version of the page did so: half of the nodes agreed, because both sums missed the same tail."""
    model = tv.VAE(1, 1, hidden=(), noise_std=1.0)
    theta, phi = model.init(0)
    phi[:] = 0.0
    ((_, bias),) = model.unpack_phi(phi).layers
    bias[:] = 6.0, np.log(5.0)  # q = N(6, 5²), as an encoder may begin
    ((W, b),) = model.unpack_theta(theta).layers
    W[:], b[:] = 1.0, 0.0
    x = np.array([[0.5]])
    right = -0.5 * ((0.5 - 6.0) ** 2 + 25.0) - 0.5 * ops.LOG_2PI  # E_q of −½ (x − z)² − ½ log 2π

    def on_z(every):
        z, log_cell = plain.lattice(1, plain.REACH, (plain.NODES[1] - 1) // every + 1)
        weight = np.exp(plain.log_normal((z - 6.0) / 5.0) - np.log(5.0) + log_cell)
        return weight @ model.log_density(theta, x, z)

    assert abs(on_z(1) - on_z(2)) < 0.05 < 1 < abs(on_z(1) - right)
    page = plain.decompose(model, theta, phi, x)
    assert page.reconstruction[0] == pytest.approx(right, abs=1e-9)
    assert page.reconstruction_error[0] < 1e-9


def test_where_the_page_is_not_right_its_error_says_so():
    model, theta, phi, x = trained("bars", 2000, n=6, hidden=(32, 32))
    page, engine = plain.decompose(model, theta, phi, x), tv.Target(model, theta, x)
    off = np.abs(page.log_px - engine.log_px)
    assert (off <= page.log_px_error + engine.error).all()
    assert page.log_px_error.max() > 1e-5  # the logits are steep by now, and this lattice is too coarse


def test_it_is_one_page():
    assert len(Path(plain.__file__).read_text(encoding="utf-8").splitlines()) <= 80
