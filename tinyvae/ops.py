"""The few differentiable primitives of a VAE, each with its hand-built VJP.

A primitive is a plain NumPy function; `defvjp` tells autograd how a gradient g of the result flows
back to each argument (vector-Jacobian product). The VJPs are written with autograd's NumPy, so they
can be differentiated again. Shapes: B rows, D data dims, L latent dims.
"""

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast

LOG_2PI = float(np.log(2 * np.pi))


def _to_shape_of(target, g):
    """Sum g over the axes along which target was broadcast (the adjoint of broadcasting)."""
    return unbroadcast(g, np.metadata(target))


# ----- network layers -----


@primitive
def affine(x, W, b):
    """x @ W + b with x (B, in), W (in, out), b (out,) -> (B, out)."""
    return x @ W + b


# y_ij = Σ_k x_ik W_kj + b_j, so dy_ij/dx_ik = W_kj, dy_ij/dW_kj = x_ik, dy_ij/db_j = 1.
# Weighting by g_ij and summing:  g Wᵀ,  xᵀ g,  Σ_i g_ij.
defvjp(
    affine,
    lambda ans, x, W, b: lambda g: g @ W.T,
    lambda ans, x, W, b: lambda g: x.T @ g,
    lambda ans, x, W, b: lambda g: np.sum(g, axis=0),
)


@primitive
def tanh(a):
    """The hidden non-linearity, elementwise."""
    return np.tanh(a)


# d tanh(a)/da = 1 − tanh²(a): the answer itself is all that the backward pass needs.
defvjp(tanh, lambda ans, a: lambda g: g * (1 - ans * ans))


# ----- log-likelihoods, summed over the data dims -----


@primitive
def gaussian_log_likelihood(x, mean, log_std):
    """log N(x; mean, diag(exp(log_std))²) -> (B,), nats.

    −Σ_d [½ ((x_d − mean_d)/σ_d)² + log σ_d + ½ log 2π]; log_std is (1,) (shared) or (D,).
    Leading axes of x and mean broadcast.
    """
    r = (x - mean) * np.exp(-log_std)
    constant = np.sum(np.broadcast_to(log_std, (x.shape[-1],))) + 0.5 * x.shape[-1] * LOG_2PI
    return -0.5 * np.einsum("...d,...d->...", r, r) - constant


# With r = (x − mean)/σ:  d/dmean = r/σ,  d/dx = −r/σ,  d/d log σ_d = r_d² − 1
# (a shared log σ collects the sum over d and over the rows: the adjoint of broadcasting).
defvjp(
    gaussian_log_likelihood,
    lambda ans, x, mean, log_std: lambda g: _to_shape_of(x, -g[..., None] * (x - mean) * np.exp(-2 * log_std)),
    lambda ans, x, mean, log_std: (
        lambda g: _to_shape_of(mean, g[..., None] * (x - mean) * np.exp(-2 * log_std))
    ),
    lambda ans, x, mean, log_std: (
        lambda g: _to_shape_of(log_std, g[..., None] * ((x - mean) ** 2 * np.exp(-2 * log_std) - 1))
    ),
)


def sigmoid(a):
    """1/(1 + exp(−a)), written with tanh so that no exponential can overflow."""
    return 0.5 * (1 + np.tanh(0.5 * a))


@primitive
def softplus(a):
    """log(1 + exp(a)) without overflow, elementwise."""
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


defvjp(softplus, lambda ans, a: lambda g: g * sigmoid(a))  # smooth at 0, where max and abs are not


@primitive
def bernoulli_log_likelihood(x, logits):
    """log p(x) of independent bits with the given logits -> (B,), nats.

    Σ_d [x_d l_d − log(1 + exp(l_d))]. Leading axes broadcast.
    """
    return np.einsum("...d,...d->...", x, logits) - np.sum(softplus(logits), axis=-1)


# d/dl = x − σ(l), because d log(1 + eˡ)/dl = σ(l);  d/dx = l.
defvjp(
    bernoulli_log_likelihood,
    lambda ans, x, logits: lambda g: _to_shape_of(x, g[..., None] * logits),
    lambda ans, x, logits: lambda g: _to_shape_of(logits, g[..., None] * (x - sigmoid(logits))),
)


# ----- the Gaussian q = N(mean, C Cᵀ) -----
# C is lower triangular: its diagonal is exp(log_diag) (B, L), its strictly lower entries, row by row,
# are lower (B, L(L−1)/2). A diagonal covariance is the case in which `lower` has no columns.


@primitive
def gaussian_kl(mean, log_diag, lower):
    """KL(N(mean, C Cᵀ) ‖ N(0, I)) -> (B,), nats.

    ½ [tr(C Cᵀ) + |mean|² − L] − Σ log C_ii   (Kingma & Welling 2014, appendix B, for full C).
    """
    squares = np.sum(np.exp(2 * log_diag) + mean**2 - 1 - 2 * log_diag, axis=-1)
    return 0.5 * (squares + np.sum(lower**2, axis=-1))


# tr(C Cᵀ) is the sum of all squared entries of C, and C_ii² = exp(2 log_diag_i), so
# d/dmean = mean,  d/dlog_diag = exp(2 log_diag) − 1,  d/dlower = lower.
defvjp(
    gaussian_kl,
    lambda ans, mean, log_diag, lower: lambda g: g[..., None] * mean,
    lambda ans, mean, log_diag, lower: lambda g: g[..., None] * (np.exp(2 * log_diag) - 1),
    lambda ans, mean, log_diag, lower: lambda g: g[..., None] * lower,
)


def strictly_lower(L):
    """Row and column of each strictly lower entry of C, in the order in which `lower` holds them."""
    return [(i, j) for i in range(L) for j in range(i)]


@primitive
def reparameterise(mean, log_diag, lower, eps):
    """z = mean + C eps, so that z ~ N(mean, C Cᵀ) when eps ~ N(0, I) -> (B, L)."""
    z = mean + np.exp(log_diag) * eps
    for k, (i, j) in enumerate(strictly_lower(mean.shape[-1])):
        z[..., i] += lower[..., k] * eps[..., j]
    return z


def _lower_vjp(ans, mean, log_diag, lower, eps):
    pairs = strictly_lower(mean.shape[-1])
    return lambda g: np.stack([g[..., i] * eps[..., j] for i, j in pairs], -1) if pairs else 0 * lower


def _eps_vjp(ans, mean, log_diag, lower, eps):
    def vjp(g):  # Cᵀ g
        columns = [g[..., j] * np.exp(log_diag[..., j]) for j in range(mean.shape[-1])]
        for k, (i, j) in enumerate(strictly_lower(mean.shape[-1])):
            columns[j] = columns[j] + g[..., i] * lower[..., k]
        return np.stack(columns, -1)

    return vjp


# z_i = mean_i + exp(log_diag_i) eps_i + Σ_{j<i} lower_ij eps_j, so
# d/dmean = g,  d/dlog_diag_i = g_i exp(log_diag_i) eps_i,  d/dlower_ij = g_i eps_j,  d/deps = Cᵀ g.
defvjp(
    reparameterise,
    lambda ans, mean, log_diag, lower, eps: lambda g: g,
    lambda ans, mean, log_diag, lower, eps: lambda g: g * np.exp(log_diag) * eps,
    _lower_vjp,
    _eps_vjp,
)
