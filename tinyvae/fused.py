"""The ELBO and its gradient in one fused pass: the chain rule of the model written out by hand.

The same mathematics as `VAE.elbo_terms` under autograd, but with one column for each data point, in buffers
allocated once, with each bias folded into its matrix product (inputs carry a last row of ones) and no work
for a frozen group. Shapes: B data points, S samples of z for each, R = S·B columns in the decoder.
"""

import numpy as np

from . import networks, ops


class FusedGradient:
    """Buffers for one (model, batch size B, samples S); call it to get the terms and both gradients."""

    def __init__(self, model, batch, samples=1, dtype=np.float64):
        self.model, self.batch, self.samples = model, batch, samples
        self.encoder = networks.MLPBuffers(model.encoder_sizes, batch, dtype)
        self.decoder = networks.MLPBuffers(model.decoder_sizes, batch * samples, dtype)
        self.grad_theta, self.grad_phi = np.zeros(model.theta_size, dtype), np.zeros(model.phi_size, dtype)
        self.grads_encoder = networks.matrices(self.grad_phi, model.encoder_sizes)
        self.grads_decoder = networks.matrices(self.grad_theta, model.decoder_sizes)
        self.lower = ops.strictly_lower(model.latent_dim) if model.covariance == "full" else []
        self.noise, self.spread = np.empty((2, model.latent_dim, samples, batch), dtype)
        self.std = np.empty((model.latent_dim, batch), dtype)
        self.residual = np.empty((model.data_dim, samples, batch), dtype)

    def __call__(self, theta, phi, x, eps, beta=1.0, want_theta=True, want_phi=True, want_terms=True):
        """x (B, D), eps (S, B, L) -> (reconstruction (B,), kl_prior (B,), grad_theta, grad_phi).

        The gradients are those of the batch mean of reconstruction − β·kl_prior, the ELBO if β is 1; what is
        not wanted comes as None. The gradients returned are buffers: the next call overwrites them.
        """
        model, L, S, B = self.model, self.model.latent_dim, self.samples, self.batch
        noise, spread, std, residual = self.noise, self.spread, self.std, self.residual

        # Forward: x -> (mean, log_diag, lower) -> z = mean + C eps -> mean or logits of p(x|z).
        columns = self.encoder.input  # x, (D, B)
        columns[:] = x.T
        noise[:] = eps.transpose(2, 0, 1)
        q = self.encoder.forward(phi)  # (heads, B)
        mean, log_diag, lower = q[:L], q[L : 2 * L], q[2 * L :]
        np.exp(log_diag, out=std)
        np.multiply(noise, std[:, None], out=spread)
        z = np.add(spread, mean[:, None], out=self.decoder.input.reshape(L, S, B))
        for k, (i, j) in enumerate(self.lower):
            z[i] += lower[k] * noise[j]
        out = self.decoder.forward(theta).reshape(-1, S, B)
        terms = self.terms(theta, out, mean, log_diag, lower) if want_terms else (None, None)

        # ∂ log p(x|z)/∂out is (x − mean)/σ², or x − σ(logits); the ELBO is a mean over S and B.
        gaussian = model.likelihood == "gaussian"
        np.subtract(columns[:, None], out if gaussian else ops.sigmoid(out), out=residual)
        g, scale = residual.reshape(len(residual), S * B), 1.0 / (B * S)
        if gaussian:
            log_std = model.log_noise_std(theta)
            shared, precisions = len(log_std) == 1, np.exp(-2 * log_std)
            precision = float(precisions[0]) if shared else precisions  # a plain number is faster
            if want_theta and model.learns_noise:  # ∂/∂ log σ_d is the mean of r_d² − 1, r = (x − mean)/σ
                squares = np.vdot(g, g) if shared else np.einsum("dr,dr->d", g, g)
                self.grad_theta[model.decoder_size :] = precision * squares * scale - (len(g) if shared else 1)
            scale = precision * scale if shared else precisions[:, None] * scale
        g *= scale

        # Backward through the decoder: weights of θ if wanted, down to z if φ is wanted.
        g_z = self.decoder.backward(g, self.grads_decoder if want_theta else None, to_input=want_phi)
        if want_phi:  # through z = mean + C eps, and through the closed-form KL (see ops.gaussian_kl)
            g_z, g_q = g_z.reshape(L, S, B), self.encoder.g_output
            per_kl = B / beta if beta else np.inf  # what a gradient of kl_prior is divided by
            for k, (i, j) in enumerate(self.lower):
                g_q[2 * L + k] = (g_z[i] * noise[j]).sum(axis=0) - lower[k] / per_kl
            spread *= g_z
            np.subtract(_over_samples(g_z), mean / per_kl, out=g_q[:L])
            np.subtract(_over_samples(spread), (std * std - 1) / per_kl, out=g_q[L : 2 * L])
            self.encoder.backward(g_q, self.grads_encoder, to_input=False)
        return *terms, self.grad_theta if want_theta else None, self.grad_phi if want_phi else None

    def terms(self, theta, out, mean, log_diag, lower):
        """reconstruction and kl_prior of each data point, (B,) each; out (D, S, B)."""
        log_likelihood = self.model.log_density(theta, self.encoder.input.T[:, None], out.T)  # (B, S)
        return log_likelihood.mean(axis=1), ops.gaussian_kl(mean.T, log_diag.T, lower.T)


def _over_samples(values):
    """The sum over S: (L, S, B) -> (L, B)."""
    return values[:, 0] if values.shape[1] == 1 else values.sum(axis=1)
