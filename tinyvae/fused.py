"""The ELBO and its gradient in one fused pass: the chain rule of the model written out by hand.

The same mathematics as `VAE.elbo_terms` under autograd, but on buffers allocated once, with each bias
folded into its matrix product (inputs carry a last column of ones) and no work for a frozen group.
Shapes: B data points, S samples of z for each, R = S·B rows in the decoder.
"""

import numpy as np

from . import networks, ops


class FusedGradient:
    """Buffers for one (model, batch size B, samples S); call it to get the terms and both gradients."""

    def __init__(self, model, batch, samples=1):
        self.model, self.batch, self.samples = model, batch, samples
        self.encoder = [_with_ones(batch, width) for width in model.encoder_sizes[:-1]]
        self.decoder = [_with_ones(batch * samples, width) for width in model.decoder_sizes[:-1]]
        self.grad_theta = np.zeros(model.theta_size)
        self.grad_phi = np.zeros(model.phi_size)

    def __call__(self, theta, phi, x, eps, want_theta=True, want_phi=True):
        """x (B, D), eps (S, B, L) -> (reconstruction (B,), kl_prior (B,), grad_theta, grad_phi).

        The gradients are those of the batch mean of the ELBO; a group that is not wanted gets None.
        The arrays returned are buffers: the next call overwrites them.
        """
        model, L = self.model, self.model.latent_dim
        encoder = networks.matrices(phi, model.encoder_sizes)
        decoder = networks.matrices(theta[: model.decoder_size], model.decoder_sizes)

        # Forward: x -> (mean, log_diag, lower) -> z = mean + C eps -> mean or logits of p(x|z).
        self.encoder[0][:, :-1] = x
        q = _forward(self.encoder, encoder)
        mean, log_diag, lower = q[:, :L], q[:, L : 2 * L], q[:, 2 * L :]
        std = np.exp(log_diag)
        z = mean + std * eps
        for k, (i, j) in enumerate(ops.strictly_lower(L)[: lower.shape[1]]):
            z[..., i] += lower[:, k] * eps[..., j]
        self.decoder[0][:, :-1] = z.reshape(-1, L)
        out = _forward(self.decoder, decoder).reshape(self.samples, self.batch, -1)
        kl_prior = ops.gaussian_kl(mean, log_diag, lower)

        # log p(x|z) and its gradient with respect to `out`.
        residual = x - out if model.likelihood == "gaussian" else x - ops.sigmoid(out)
        if model.likelihood == "gaussian":
            log_std = model.log_noise_std(theta)
            precision = np.exp(-2 * log_std)
            squares = residual * residual * precision
            constant = np.sum(np.broadcast_to(log_std, x.shape[1])) + 0.5 * x.shape[1] * ops.LOG_2PI
            reconstruction = -0.5 * np.einsum("sbd->b", squares) / self.samples - constant
            g = residual * precision
        else:
            reconstruction = ops.bernoulli_log_likelihood(x, out).mean(axis=0)
            g = residual
        g *= 1.0 / (self.batch * self.samples)

        # Backward through the decoder: weights of θ if wanted, down to z if φ is wanted.
        grads = networks.matrices(self.grad_theta, model.decoder_sizes) if want_theta else None
        g_z = _backward(self.decoder, decoder, g.reshape(-1, x.shape[1]), grads, to_input=want_phi)
        if want_theta and model.learns_noise:  # d/d log σ_d = mean over rows of (r_d² − 1)
            per_dim = np.einsum("sbd->d", squares) / (self.batch * self.samples) - 1.0
            self.grad_theta[model.decoder_size :] = (
                per_dim if log_std.size > 1 or x.shape[1] == 1 else per_dim.sum()
            )
        if want_phi:  # through z = mean + C eps, and the closed-form KL
            g_z = g_z.reshape(self.samples, self.batch, L)
            g_q = np.empty_like(q)
            g_q[:, :L] = g_z.sum(axis=0) - mean / self.batch
            g_q[:, L : 2 * L] = (g_z * eps).sum(axis=0) * std - (std * std - 1) / self.batch
            for k, (i, j) in enumerate(ops.strictly_lower(L)[: lower.shape[1]]):
                g_q[:, 2 * L + k] = (g_z[..., i] * eps[..., j]).sum(axis=0) - lower[:, k] / self.batch
            grads = networks.matrices(self.grad_phi, model.encoder_sizes)
            _backward(self.encoder, encoder, g_q, grads, to_input=False)
        return (
            reconstruction,
            kl_prior,
            self.grad_theta if want_theta else None,
            self.grad_phi if want_phi else None,
        )


def _with_ones(rows, width):
    buffer = np.ones((rows, width + 1))
    return buffer


def _forward(inputs, matrices):
    """inputs[i] is the buffer [a_i, 1] that layer i reads; a_0 is filled in, the others are filled here."""
    for i, M in enumerate(matrices[:-1]):
        np.tanh(inputs[i] @ M, out=inputs[i + 1][:, :-1])
    return inputs[-1] @ matrices[-1]


def _backward(inputs, matrices, g, grads, to_input):
    """g is the gradient of the last layer's output; writes [a, 1]ᵀ g for each layer into `grads`.

    Returns the gradient of a_0 if `to_input`, else None. Layer below: g ← (g Wᵀ)(1 − a²).
    """
    for i in reversed(range(len(matrices))):
        if grads is not None:
            np.matmul(inputs[i].T, g, out=grads[i])
        if i == 0 and not to_input:
            return None
        g = g @ matrices[i][:-1].T
        if i > 0:
            a = inputs[i][:, :-1]
            g *= 1 - a * a
    return g
