"""The same training step elsewhere: minibatch, reparameterised ELBO, gradient, Adam. Each returns run(n).

All have the same shapes and the precision asked for, one thread, and draw the minibatch and the noise in every
step. A peer that is not installed is None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyvae as tv

Run = Callable[[int], None]
RATE, BETA1, BETA2, EPS = 3e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Size:
    """Batch, hidden widths, latent and data dimensions."""

    batch: int
    hidden: tuple[int, ...]
    latent: int
    data: int

    @property
    def label(self) -> str:
        return f"{self.batch}, {'×'.join(map(str, self.hidden))}, {self.latent}, {self.data}"


def data(size: Size, n: int = 1024) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, size.data))


def ours(size: Size, **arguments: Any) -> Run:
    model = tv.VAE(size.data, size.latent, size.hidden)
    trainer = tv.Trainer(model, data(size), batch_size=size.batch, evaluate_every=0, **arguments)

    def run(n: int) -> None:
        for _ in range(n):
            trainer.step()

    return run


def autograd_step(size: Size) -> Run:
    """As one writes it with autograd alone: its NumPy, its own derivatives, Adam over the weights as they are."""
    import autograd.numpy as anp
    from autograd import grad
    from autograd.misc.optimizers import adam

    model, L, D, x_all = tv.VAE(size.data, size.latent, size.hidden), size.latent, size.data, data(size)
    rng = np.random.default_rng(0)

    def mlp(layers, x):  # type: ignore[no-untyped-def]
        for W, b in layers[:-1]:
            x = anp.tanh(anp.dot(x, W) + b)
        W, b = layers[-1]
        return anp.dot(x, W) + b

    def loss(parameters, i):  # type: ignore[no-untyped-def]
        encoder, decoder, log_std = parameters
        x = x_all[rng.integers(len(x_all), size=size.batch)]
        q = mlp(encoder, x)
        mean, log_diag = q[:, :L], q[:, L:]
        z = mean + anp.exp(log_diag) * rng.standard_normal((size.batch, L))
        r = (x - mlp(decoder, z)) * anp.exp(-log_std)
        likelihood = -0.5 * anp.sum(r**2, axis=1) - D * (log_std + 0.5 * anp.log(2 * anp.pi))
        kl = 0.5 * anp.sum(anp.exp(2 * log_diag) + mean**2 - 1 - 2 * log_diag, axis=1)
        return anp.mean(kl - likelihood)

    theta, phi = model.init(0)
    state = [model.unpack_phi(phi).layers, model.unpack_theta(theta).layers, theta[-1]]

    def run(n: int) -> None:
        nonlocal state
        state = adam(grad(loss), state, num_iters=n, step_size=RATE)

    return run


def torch_step(size: Size, compiled: bool, precision: str = "float64") -> Run | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype := getattr(torch, precision))
    torch.manual_seed(0)
    L = size.latent

    def mlp(sizes: tuple[int, ...]) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for k, (a, b) in enumerate(zip(sizes, sizes[1:])):
            layers += [torch.nn.Linear(a, b)] + ([torch.nn.Tanh()] if k < len(sizes) - 2 else [])
        return torch.nn.Sequential(*layers)

    encoder = mlp((size.data, *size.hidden, 2 * L))
    decoder = mlp((L, *reversed(size.hidden), size.data))
    log_std = torch.zeros(1, requires_grad=True)
    x_all = torch.from_numpy(data(size)).to(dtype)

    def loss(x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        q = encoder(x)
        mean, log_diag = q[:, :L], q[:, L:]
        r = (x - decoder(mean + torch.exp(log_diag) * eps)) * torch.exp(-log_std)
        likelihood = -0.5 * (r * r).sum(1) - size.data * (log_std + 0.5 * float(np.log(2 * np.pi)))
        kl = 0.5 * (torch.exp(2 * log_diag) + mean**2 - 1 - 2 * log_diag).sum(1)
        return (kl - likelihood).mean()

    parameters = [*encoder.parameters(), *decoder.parameters(), log_std]
    adam = torch.optim.Adam(parameters, lr=RATE, foreach=True)
    forward = torch.compile(loss) if compiled else loss

    def run(n: int) -> None:
        for _ in range(n):
            x = x_all[torch.randint(len(x_all), (size.batch,))]
            adam.zero_grad()
            forward(x, torch.randn(size.batch, L)).backward()
            adam.step()

    return run


def jax_steps(size: Size, precision: str = "float64") -> tuple[Run, Run] | None:
    """(one jitted call a step, one lax.scan over all steps)."""
    try:
        import jax
    except ImportError:
        return None
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", precision == "float64")
    dtype = getattr(jnp, precision)
    L, D = size.latent, size.data
    model = tv.VAE(D, L, size.hidden)
    theta, phi = (jnp.asarray(v, dtype) for v in model.init(0))
    x_all = jnp.asarray(data(size), dtype)

    def mlp(vector, sizes, x):  # type: ignore[no-untyped-def]
        start = 0
        for k, (a, b) in enumerate(zip(sizes, sizes[1:])):
            W = vector[start : start + a * b].reshape(a, b)
            x = x @ W + vector[start + a * b : start + (a + 1) * b]
            x = jnp.tanh(x) if k < len(sizes) - 2 else x
            start += (a + 1) * b
        return x

    def elbo(parameters, x, eps):  # type: ignore[no-untyped-def]
        theta, phi = parameters
        q = mlp(phi, model.encoder_sizes, x)
        mean, log_diag, log_std = q[:, :L], q[:, L:], theta[-1]
        r = (x - mlp(theta, model.decoder_sizes, mean + jnp.exp(log_diag) * eps)) * jnp.exp(-log_std)
        likelihood = -0.5 * (r * r).sum(1) - D * (log_std + 0.5 * jnp.log(2 * jnp.pi))
        return (likelihood - 0.5 * (jnp.exp(2 * log_diag) + mean**2 - 1 - 2 * log_diag).sum(1)).mean()

    def step(state, _):  # type: ignore[no-untyped-def]
        parameters, m, v, t, key = state
        key, pick, noise = jax.random.split(key, 3)
        x = x_all[jax.random.randint(pick, (size.batch,), 0, len(x_all))]
        g = jax.grad(elbo)(parameters, x, jax.random.normal(noise, (size.batch, L), dtype))
        t = t + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        scale = jnp.sqrt(1 - BETA2**t) / (1 - BETA1**t)
        parameters = jax.tree.map(lambda p, m, v: p + RATE * scale * m / (jnp.sqrt(v) + EPS), parameters, m, v)
        return (parameters, m, v, t, key), None

    zeros = jax.tree.map(jnp.zeros_like, (theta, phi))
    state = ((theta, phi), zeros, zeros, jnp.asarray(0.0, dtype), jax.random.PRNGKey(0))
    one = jax.jit(lambda state: step(state, None)[0])
    many = jax.jit(lambda state, n: jax.lax.fori_loop(0, n, lambda _, s: step(s, None)[0], state))

    def run_each(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state = one(state)
        jax.block_until_ready(state)

    def run_scan(n: int) -> None:
        nonlocal state
        state = jax.block_until_ready(many(state, n))

    return run_each, run_scan
