"""One small class that trains a VAE step by step and reports every term, exactly, at every step.

A step is one optimiser step on one minibatch for each group that is on, with both gradients taken at the
same (θ, φ). Looking never changes the run: minibatches and noise of the k-th update are functions of the
seed and k alone, and evaluating the terms draws nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from . import networks
from .checks import Array, data_points, digest, expect, expect_room, one_of, positive, whole
from .evaluation import Evaluation, NotFinite, compare, evaluate
from .exact import Target, check_tolerance
from .fused import FusedGradient
from .model import VAE
from .optimizers import OPTIMIZERS, State
from .records import StepRecord
from .settings import Settings, Update
from .threads import OneThread

EVALUATION_POINTS = {1: 256, 2: 64}  # at most this many data points are evaluated, by default
INIT, ORDER, NOISE, EVALUATION = range(4)  # the independent random streams of a run
HELD_OUT_EVERY = 10  # evaluations
NOISE_BLOCK = 2**14  # normal draws made at a time
_BUFFERS = ("_fused", "_shuffled", "_noise", "_evaluation", "_held_out")  # made anew in a copy


class Watcher(Protocol):
    """Who is told what a trainer does."""

    def step(self, record: StepRecord) -> None: ...
    def changed(self, settings: Settings) -> None: ...


class Diverged(ArithmeticError):
    """A step met a number that is not finite. The parameters are those before that step."""

    def __init__(self, step: int, what: str):
        self.step, self.what = step, what
        super().__init__(
            f"step {step}: {what} is not finite; try a smaller learning rate, or data of unit scale"
        )


class Origin(NamedTuple):
    """What the random numbers and the shapes of a run come from: a snapshot goes on in a trainer of the same."""

    model: VAE
    seed: int
    precision: str
    data: str  # `digest` of the data points


@dataclass(frozen=True)
class Snapshot:
    """All that a run is at one step: restoring it and going on gives the same bits again."""

    origin: Origin
    settings: Settings
    theta: Array
    phi: Array
    theta_state: State
    phi_state: State
    step_count: int
    draw_count: int


class Trainer:
    """Trains a VAE on data points x (N, D). Assign `.update` at any time to switch θ or φ on and off.

    Args:
        seed: of weights, minibatches and noise, which are streams of their own.
        batch_size: data points in a step; at most N.
        learning_rate: one number, or (θ's, φ's).
        optimizer: "adam" or "sgd".
        samples: reparameterised draws of z per data point.
        beta: the weight of kl_prior in the objective that is followed, 1 for the ELBO (Higgins et al. 2017).
        gradients: "fused", written out by hand, or "autograd", through the primitives of `ops`; they agree to
            rounding.
        precision: of the steps, "float64" or "float32"; the terms are exact in float64 at whatever θ and φ the
            steps lead to.
        evaluate_every: the terms are computed after every so many steps; 0 for never.
        certify_every: for z ∈ R² what can be proven of them is found out at every so many evaluations; 0 for never.
        evaluation_points: the terms are means over `evaluation_x`: all of x, or a fixed random choice of so many
            of its points (256 for z ∈ R¹ and 64 for z ∈ R², if x has more).
        tolerance: of the terms, nats; None for 1e-9 (z ∈ R¹) and 1e-6 (z ∈ R²).
        held_out: data points (M, D) that are not trained on; their mean log p_θ(x) is taken with every tenth
            evaluation, of at most as many points as are evaluated.
        log_scale: Σ_d log s_d where x is data divided by standard deviations s_d; it is taken off log_px,
            reconstruction and elbo, so that they are those of the data before. Nothing else depends on it.
        update: what a step moves.

    Raises ValueError where an argument is none of these.
    """

    def __init__(
        self,
        model: VAE,
        x: Any,
        *,
        seed: int = 0,
        batch_size: int = 64,
        learning_rate: float | tuple[float, float] = 3e-3,
        optimizer: Literal["adam", "sgd"] = "adam",
        samples: int = 1,
        beta: float = 1.0,
        gradients: Literal["fused", "autograd"] = "fused",
        precision: Literal["float64", "float32"] = "float64",
        evaluate_every: int = 1,
        certify_every: int = 0,
        evaluation_points: int | None = None,
        tolerance: float | None = None,
        held_out: Any = None,
        log_scale: float = 0.0,
        update: Update = Update(),
    ):
        self.model, self.x, self.seed = model, data_points(x), whole("seed", seed, 0)
        if self.x.shape[1] != model.data_dim:
            raise ValueError(f"x: expected shape (N, {model.data_dim}), got {self.x.shape}")
        if model.likelihood == "bernoulli" and not ((self.x == 0) | (self.x == 1)).all():
            raise ValueError("x: expected only 0 and 1 for a Bernoulli model; use likelihood='gaussian'")
        self.evaluate_every = whole("evaluate_every", evaluate_every, 0)
        self.certify_every = whole("certify_every", certify_every, 0)
        rates = learning_rate if isinstance(learning_rate, tuple | list) else (learning_rate, learning_rate)
        expect(len(rates) == 2, "learning_rate", "one number, or (θ's, φ's)", learning_rate)
        theta_rate, phi_rate = (positive("learning_rate", rate) for rate in rates)
        batch_size = min(whole("batch_size", batch_size, 1), len(self.x))
        self._settings = Settings(update, theta_rate, phi_rate, optimizer, samples, batch_size, beta)
        self.gradients = one_of("gradients", gradients, ("fused", "autograd"))
        self.precision = one_of("precision", precision, ("float64", "float32"))
        if not (largest := np.abs(self.x).max()) <= np.finfo(self.precision).max:
            raise ValueError(f"x: expected numbers that {self.precision} can hold, got {largest:g}")
        self._check_room(self._settings)
        self.origin = Origin(model, self.seed, self.precision, digest(self.x))
        self._rows = self.x.astype(self.precision, copy=False)
        self.tolerance = check_tolerance(tolerance, model.latent_dim)
        limit = EVALUATION_POINTS[model.latent_dim]
        if evaluation_points is not None:
            limit = whole("evaluation_points", evaluation_points, 1)
        self.evaluation_x = self.x
        if len(self.x) > limit:
            chosen = self._stream(EVALUATION).choice(len(self.x), limit, replace=False)
            self.evaluation_x = self.x[np.sort(chosen)]
        self.held_out = None if held_out is None else data_points(held_out)[:limit]
        if not math.isfinite(log_scale):
            raise ValueError(f"log_scale: expected a finite number, got {log_scale!r}")
        self.log_scale = float(log_scale)
        self.config: Any = None  # what says all of this, where a Config has made this trainer
        self.watcher: Watcher | None = None
        if self.held_out is not None and self.held_out.shape[1] != model.data_dim:
            raise ValueError(f"held_out: expected shape (M, {model.data_dim}), got {self.held_out.shape}")
        self.reset()

    def reset(self) -> None:
        """Back to step 0 with the same initial weights; the switches and rates stay as they are."""
        initial = self.model.init(np.random.SeedSequence(self.seed, spawn_key=(INIT,)))
        self.theta, self.phi = (vector.astype(self.precision) for vector in initial)
        self._forget_moments()
        self.step_count = self.draw_count = 0
        self._forget_looks()
        self._fit_buffers()

    def _forget_looks(self) -> None:
        self._evaluation: Evaluation | None = None
        self._held_out: tuple[Array | None, float] = (None, 0.0)  # the θ of the last look, and what it showed

    def _forget_moments(self) -> None:
        self._optimizer = OPTIMIZERS[self._settings.optimizer]
        self.theta_state = self._optimizer.init(self.theta)
        self.phi_state = self._optimizer.init(self.phi)

    def _check_room(self, settings: Settings) -> None:
        """Raises ValueError, before anything is allocated, where a step or a look would take too much memory."""
        model, B, S = self.model, settings.batch_size, settings.samples
        most = max(B, networks.CHUNK)  # points in the encoder at a time
        numbers = networks.buffer_size(model.encoder_sizes, most) + networks.buffer_size(
            model.decoder_sizes, max(B * S, networks.CHUNK)
        )
        numbers += (model.data_dim + 4 * model.latent_dim) * B * S + 3 * self.x.size
        advice = "take fewer samples, a smaller batch, narrower layers or fewer points"
        expect_room("samples × batch × widths", numbers, advice)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made of: the run, without its buffers, whose arrays are views of each other."""
        state = {name: value for name, value in self.__dict__.items() if name not in _BUFFERS}
        state |= {name: state[name].copy() for name in ("theta", "phi", "theta_state", "phi_state")}
        return state | {"watcher": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_looks()
        self._fit_buffers()

    def _fit_buffers(self) -> None:
        sizes = self._settings.batch_size, self._settings.samples
        self._fused = FusedGradient(self.model, *sizes, np.dtype(self.precision))
        self._shuffled: tuple[int, Any] = (-1, None)
        self._noise: tuple[int, Any] = (-1, None)

    # ----- what may change between two steps -----

    @property
    def settings(self) -> Settings:
        """Switches, rates, optimiser, samples and batch size; assign others at any time between two steps."""
        return self._settings

    @settings.setter
    def settings(self, new: Settings) -> None:
        expect(isinstance(new, Settings), "settings", "Settings", new)
        new = replace(new, batch_size=min(new.batch_size, len(self.x)))
        if new == self._settings:
            return
        self._check_room(new)
        old, self._settings = self._settings, new
        if self.watcher is not None:
            self.watcher.changed(new)
        if new.optimizer != old.optimizer:
            self._forget_moments()
        if (new.batch_size, new.samples) != (old.batch_size, old.samples):
            self._fit_buffers()

    @property
    def update(self) -> Update:
        """Which groups a step moves; assignable at any time."""
        return self._settings.update

    @update.setter
    def update(self, update: Update) -> None:
        self.settings = replace(self._settings, update=update)

    # ----- one step -----

    def step(self) -> StepRecord:
        """Move the groups that are on; returns the record of this step, evaluated if it is its turn.

        Raises Diverged where a number is not finite; the step is then undone as a whole.
        """
        evaluating = self.evaluate_every > 0 and (self.step_count + 1) % self.evaluate_every == 0
        before = self.evaluate() if evaluating else None
        undo = self.snapshot() if evaluating or len(self.update.substeps) > 1 else None
        try:
            with OneThread():
                record = self._step(before)
        except NotFinite as problem:
            if undo is None:  # the one gradient was not finite: nothing has moved
                self.draw_count -= 1
            else:
                self.restore(undo)
            raise Diverged(self.step_count + 1, problem.what) from None
        if self.watcher is not None:
            self.watcher.step(record)
        return record

    def _step(self, before: Evaluation | None) -> StepRecord:
        norms: tuple[float | None, float | None] = (None, None)
        started = perf_counter()
        for move in self.update.substeps:
            theta_norm, phi_norm = self._move(*move)
            norms = (norms[0] if theta_norm is None else theta_norm, norms[1] if phi_norm is None else phi_norm)
        self.step_count += 1
        seconds = perf_counter() - started
        terms, attribution, moved, held_out = None, None, None, None
        if before is not None:
            after = self._evaluate()
            terms, (attribution, moved) = after.terms, compare(before, after)
            if self.certify_every and self.step_count % (self.certify_every * self.evaluate_every) == 0:
                terms = self.certified().terms
            if self.step_count % (HELD_OUT_EVERY * self.evaluate_every) == 0:
                held_out = self.held_out_log_px()
        looked = terms, attribution, moved, held_out
        return StepRecord(self.step_count, self.update, self._settings.beta, *looked, *norms, seconds)

    def steps(self, n: int) -> Iterator[StepRecord]:
        """The records of the next n steps, one after the other."""
        for _ in range(whole("n", n, 0)):
            yield self.step()

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _move(self, move_theta: bool, move_phi: bool) -> tuple[float | None, float | None]:
        x, eps = self._draw()
        at = self.theta, self.phi, x, eps, self._settings.beta, move_theta, move_phi
        if self.gradients == "fused":
            *_, g_theta, g_phi = self._fused(*at, want_terms=False)
        else:
            *_, g_theta, g_phi = self.model.elbo_and_grad_autograd(*at)
        norms = [None if g is None else math.sqrt(g @ g) for g in (g_theta, g_phi)]
        for name, norm in zip(("θ", "φ"), norms):
            if norm is not None and not math.isfinite(norm):
                raise NotFinite(f"the gradient of the ELBO for {name}")
        if move_theta:
            self._optimizer.update(self.theta, g_theta, self.theta_state, self._settings.theta_rate)
        if move_phi:
            self._optimizer.update(self.phi, g_phi, self.phi_state, self._settings.phi_rate)
        return norms[0], norms[1]

    # ----- random numbers: functions of the seed and of how many draws were made -----

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _draw(self) -> tuple[Array, Array]:
        """The next minibatch (B, D) and its noise (S, B, L)."""
        k, B = self.draw_count, self._settings.batch_size
        self.draw_count += 1
        per_epoch = len(self.x) // B
        if len(self.x) == B:  # the whole set, in its own order
            x = self._rows
        else:
            epoch, part = divmod(k, per_epoch)
            if self._shuffled[0] != epoch:
                self._shuffled = (epoch, self._rows[self._stream(ORDER, epoch).permutation(len(self.x))])
            x = self._shuffled[1][part * B : (part + 1) * B]
        shape = (self._settings.samples, B, self.model.latent_dim)
        blocks = max(1, NOISE_BLOCK // math.prod(shape))
        block, part = divmod(k, blocks)
        if self._noise[0] != block:
            noise = self._stream(NOISE, block).standard_normal((blocks, *shape))
            self._noise = (block, noise.astype(self.precision, copy=False))
        return x, self._noise[1][part]

    # ----- looking -----

    def evaluate(self) -> Evaluation:
        """The exact terms at the present (θ, φ); what did not move since the last look is used again."""
        try:
            return self._evaluate()
        except NotFinite as problem:
            raise Diverged(self.step_count, problem.what) from None

    def _evaluate(self) -> Evaluation:
        at = self.model, self.theta, self.phi, self.evaluation_x, self.tolerance
        with OneThread():
            self._evaluation = evaluate(*at, last=self._evaluation, log_scale=self.log_scale)
        return self._evaluation

    def certified(self) -> Evaluation:
        """`evaluate`, with what can be proven of the terms where they are only checked otherwise, for z ∈ R²."""
        with OneThread():
            return self.evaluate().certified()

    def held_out_log_px(self) -> float | None:
        """Mean log p_θ(x) of the held-out points at the present θ, nats; None if there are none."""
        if self.held_out is None:
            return None
        if self._held_out[0] is None or not np.array_equal(self._held_out[0], self.theta):
            with OneThread():
                target = Target(self.model, self.theta, self.held_out, self.tolerance)
            self._held_out = self.theta.copy(), float(target.log_px.mean()) - self.log_scale
        return self._held_out[1]

    def record(self) -> StepRecord:
        """The present state as a record, evaluated; no step led to it."""
        terms, held_out = self.evaluate().terms, self.held_out_log_px()
        looked = terms, None, None, held_out
        return StepRecord(self.step_count, self.update, self._settings.beta, *looked, None, None, 0.0)

    # ----- rewinding -----

    def snapshot(self) -> Snapshot:
        """The run as it is now, to come back to."""
        states = self.theta_state.copy(), self.phi_state.copy()
        vectors = self.theta.copy(), self.phi.copy()
        return Snapshot(self.origin, self.settings, *vectors, *states, self.step_count, self.draw_count)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of this run, with the settings of then.

        Raises ValueError for a snapshot of another model, seed, precision or data: it would go on with other draws.
        """
        for name, mine, other in zip(Origin._fields, self.origin, snapshot.origin):
            expect(mine == other, "snapshot", f"one of a run with {name} {mine}", other)
        self.settings = snapshot.settings
        self.theta[:], self.phi[:] = snapshot.theta, snapshot.phi
        self.theta_state, self.phi_state = snapshot.theta_state.copy(), snapshot.phi_state.copy()
        self.step_count, self.draw_count = snapshot.step_count, snapshot.draw_count
