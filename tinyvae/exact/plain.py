"""The whole idea in one page: every term is an integral over z ∈ R¹ or R², and on a lattice an integral is a sum.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz           E_q[f] = ∫ N(ε; 0, I) f(mean + C ε) dε

The sum over the nodes k·h, times h^L, is the trapezoid rule. On integrands that are analytic and vanish far out its
error falls like exp(−const/h) (Trefethen & Weideman 2014, SIAM Review 56): the sum over every second node is far
worse than the sum over all, so the difference of the two says how good the better one is.

The lattices here are fixed: right while p(x, z) lies within |z| <= REACH and nothing is narrower than the spacing.
After 2,000 steps on `bars` that is no longer so; the sums are off by up to 6e-5 nats, and their errors say it. The
rest of this folder finds where the mass is, so that few nodes do, and shares them between data points. E_q is taken
over ε and not over z, because q may be wider or narrower than any lattice of z, and nothing would tell.

N data points, M nodes, L latent dims; nats. All of it can be differentiated by autograd.
"""

import autograd.numpy as np

from .. import ops
from .terms import Decomposition

REACH, NODES = 12.0, {1: 6401, 2: 385}  # of the lattice of z, and how many nodes along each axis
REACH_Q, NODES_Q = 9.0, {1: 1441, 2: 145}  # the same of ε, which is in standard deviations of q


def lattice(dim, reach, nodes, shift=0.0):
    """The nodes (M, L), moved by `shift` of the spacing h, and log h^L."""
    ticks = np.linspace(-reach, reach, nodes)
    h = ticks[1] - ticks[0]
    grid = np.meshgrid(*[ticks + shift * h] * dim, indexing="ij")
    return np.stack(grid, axis=-1).reshape((-1, dim)), dim * np.log(h)


def log_normal(z):
    """log N(z; 0, I), (M, L) -> (M,)."""
    return -0.5 * np.sum(z**2, axis=-1) - 0.5 * z.shape[-1] * ops.LOG_2PI


def log_px(model, theta, x, every=1):
    """log p_θ(x) of x (N, D), (N,); `every` = 2 takes every second node along each axis."""
    z, log_cell = lattice(model.latent_dim, REACH, (NODES[model.latent_dim] - 1) // every + 1)
    out, log_prior, values = model.decode(theta, z), log_normal(z), []
    for x_n in x:
        log_joint = log_prior + model.log_density(theta, x_n, out)  # (M,)
        peak = np.max(log_joint)
        values.append(np.log(np.sum(np.exp(log_joint - peak))) + peak + log_cell)
    return np.array(values)


def under_q(model, theta, phi, x, every=1, shift=0.0):
    """E_q[log p_θ(x|z)] and E_q[log q(z|x) − log p(z)] of x (N, D), (2, N)."""
    eps, log_cell = lattice(model.latent_dim, REACH_Q, (NODES_Q[model.latent_dim] - 1) // every + 1, shift)
    weight, same, values = np.exp(log_normal(eps) + log_cell), np.ones((len(eps), 1)), []
    for x_n, *q in zip(x, *model.encode_differentiably(phi, x)):
        mean, log_diag, lower = (same * part for part in q)
        z = ops.reparameterise(mean, log_diag, lower, eps)
        log_q = log_normal(eps) - np.sum(log_diag, axis=1)
        log_likelihood = model.log_density(theta, x_n, model.decode(theta, z))
        values.append([weight @ log_likelihood, weight @ (log_q - log_normal(z))])
    return np.array(values).T


def terms(model, theta, phi, x, every=1):
    """log_px, reconstruction, kl_prior and kl_posterior of x (N, D): (4, N), nats."""
    log_p = log_px(model, theta, x, every)
    reconstruction, kl_prior = under_q(model, theta, phi, x, every)
    # KL(q ‖ p_θ(z|x)) = E_q[log q − log p(z) − log p(x|z)] + log p(x): on other nodes, so that it checks the rest
    again = under_q(model, theta, phi, x, every, shift=0.5)
    return np.array([log_p, reconstruction, kl_prior, again[1] - again[0] + log_p])


def decompose(model, theta, phi, x):
    """The terms as the engine gives them; the error of each is how far the sum over every second node is away."""
    fine, coarse = terms(model, theta, phi, x), terms(model, theta, phi, x, every=2)
    return Decomposition(*fine, *np.abs(fine - coarse))
