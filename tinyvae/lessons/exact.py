"""Exact gradients for z ∈ R¹: expectations as sums over a fine grid, differentiated by autograd.

The trapezoid rule on a grid that reaches far enough is exact to rounding for these smooth integrands
(see tinyvae.quadrature); here it stands apart from the certified terms, so that the two check each other.
"""

import autograd.numpy as np
from autograd import grad

from .. import networks, ops

EPS = np.linspace(-9.0, 9.0, 1441)  # ε of z = mean + std·ε
NODES = np.linspace(-40.0, 40.0, 6401)  # z; the spacing is 1/80 on both


def elbo(model, theta, phi, x):
    """Mean ELBO: E_q[log p(x|z)] over z = mean + std·ε, minus the closed KL to the prior."""
    mean, log_std = _encode(model, phi, x)
    weight = np.exp(-0.5 * EPS**2) / np.sum(np.exp(-0.5 * EPS**2))
    z = mean + np.exp(log_std) * EPS  # (N, G)
    log_likelihood = _log_likelihood(model, theta, x[:, None], np.reshape(z, (-1, 1)), z.shape)
    kl_prior = ops.gaussian_kl(mean, log_std, np.zeros((len(x), 0)))
    return np.mean(log_likelihood @ weight - kl_prior)


def log_px(model, theta, x):
    """Mean log p_θ(x) = log ∫ p(x|z) p(z) dz, on a grid of z."""
    return np.mean(_log_sum(_log_joint(model, theta, x)) + np.log(NODES[1] - NODES[0]))


def kl_posterior(model, theta, phi, x):
    """Mean KL(q ‖ p_θ(z|x)) = ∫ q (log q − log p_θ(z|x)) dz, on a grid of z: no reparameterisation in it."""
    mean, log_std = _encode(model, phi, x)
    log_joint = _log_joint(model, theta, x)
    h = NODES[1] - NODES[0]
    log_posterior = log_joint - _log_sum(log_joint)[:, None] - np.log(h)
    log_q = -0.5 * ((NODES - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * ops.LOG_2PI
    return np.mean(np.sum(np.exp(log_q) * (log_q - log_posterior), axis=1) * h)


grad_elbo_theta, grad_elbo_phi = grad(elbo, 1), grad(elbo, 2)
grad_log_px_theta = grad(log_px, 1)
grad_kl_theta, grad_kl_phi = grad(kl_posterior, 1), grad(kl_posterior, 2)


def _encode(model, phi, x):
    out = networks.forward(networks.layers(phi, model.encoder_sizes), x)
    return out[:, :1], out[:, 1:]


def _log_joint(model, theta, x):
    log_likelihood = _log_likelihood(model, theta, x[:, None], NODES[:, None], (1, len(NODES)))
    return log_likelihood - 0.5 * NODES**2 - 0.5 * ops.LOG_2PI


def _log_likelihood(model, theta, x, z, shape):
    """x (N, 1, D); z (M, 1), whose decoder outputs are laid out as `shape` (N or 1, G) -> (N, G)."""
    out = networks.forward(networks.layers(theta[: model.decoder_size], model.decoder_sizes), z)
    out = np.reshape(out, (*shape, -1))
    return ops.gaussian_log_likelihood(x, out, model.log_noise_std(theta))


def _log_sum(table):
    """log Σ exp over each row, (N, G) -> (N,)."""
    top = np.max(table, axis=1, keepdims=True)
    return np.log(np.sum(np.exp(table - top), axis=1)) + top[:, 0]
