"""The landscape says what the essay says: log_px depends on θ alone, kl_prior on φ alone."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.exact.landscape import landscape


@pytest.fixture(scope="module")
def found():
    data, model = tv.load_dataset("arc", n=12), tv.VAE(2, 1, (6,))
    theta, phi = model.init(1)
    rng = np.random.default_rng(0)
    directions = rng.standard_normal(theta.size) * 0.2, rng.standard_normal(phi.size) * 0.2
    *_, last = landscape(model, theta, phi, *directions, data.x, reach=1.0, size=5)
    return model, theta, phi, directions, data.x, last


def test_log_px_changes_across_and_not_up_to_the_bit(found):
    log_px = found[-1].terms["log_px"]
    assert (log_px == log_px[0]).all()
    assert len(np.unique(log_px[0])) == 5


def test_kl_prior_changes_up_and_not_across_to_the_bit(found):
    kl_prior = found[-1].terms["kl_prior"]
    assert (kl_prior == kl_prior[:, :1]).all()
    assert len(np.unique(kl_prior[:, 0])) == 5


def test_a_corner_is_what_decompose_gives_there(found):
    model, theta, phi, (across, up), x, last = found
    terms = tv.decompose(model, theta + across, phi - up, x).mean()
    for name in tv.TERMS:
        assert last.terms[name][0, -1] == pytest.approx(getattr(terms, name), abs=1e-4)


def test_columns_arrive_one_after_the_other():
    data, model = tv.load_dataset("arc", n=6), tv.VAE(2, 1, (4,))
    theta, phi = model.init(0)
    partial = next(landscape(model, theta, phi, theta, phi, data.x, size=3))
    assert np.isfinite(partial.terms["elbo"][:, 0]).all() and np.isnan(partial.terms["elbo"][:, 1:]).all()
