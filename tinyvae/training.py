"""One small class that trains a VAE step by step and reports every term, exactly, at every step.

A step is one optimiser step on one minibatch for each group that is on, with both gradients taken at the
same (θ, φ). Looking never changes the run: minibatches and noise of the k-th update are functions of the
seed and k alone, and evaluating the terms draws nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal

import numpy as np

from .decomposition import TERMS, Attribution, Expectations, MeanTerms, attribute
from .fused import FusedGradient
from .model import VAE, Array, Gaussian
from .optimizers import OPTIMIZERS, State
from .target import Target, as_data, check_tolerance

EVALUATION_POINTS = {1: 256, 2: 64}  # at most this many data points are evaluated, by default
INIT, ORDER, NOISE, EVALUATION = range(4)  # the independent random streams of a run
NOISE_BLOCK = 2**14  # normal draws made at a time


class Diverged(ArithmeticError):
    """A step met a number that is not finite. The parameters are those before that step."""

    def __init__(self, step: int, what: str, hint: str):
        self.step, self.what, self.hint = step, what, hint
        super().__init__(f"step {step}: {what} is not finite; {hint}")


@dataclass(frozen=True)
class Update:
    """Which groups a step moves, and how often: phi_steps updates of φ, then theta_steps of θ.

    With one each (the default) both gradients are taken at the same (θ, φ) on the same minibatch.
    """

    theta: bool = True
    phi: bool = True
    theta_steps: int = 1
    phi_steps: int = 1

    def __post_init__(self) -> None:
        for name in ("theta_steps", "phi_steps"):
            steps = getattr(self, name)
            if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= 10:
                raise ValueError(f"{name}: expected a whole number from 0 to 10, got {steps!r}")

    @property
    def moves(self) -> list[tuple[bool, bool]]:
        """The updates of one step in order, each as (θ moves, φ moves)."""
        k_theta, k_phi = self.theta_steps * bool(self.theta), self.phi_steps * bool(self.phi)
        if k_theta == k_phi == 1:
            return [(True, True)]
        return [(False, True)] * k_phi + [(True, False)] * k_theta


@dataclass(frozen=True)
class Settings:
    """Everything about a run that may change between two steps."""

    update: Update = Update()
    theta_rate: float = 3e-3
    phi_rate: float = 3e-3
    optimizer: str = "adam"
    samples: int = 1
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("theta_rate", "phi_rate"):
            _positive(name, getattr(self, name))
        for name in ("samples", "batch_size"):
            _whole(name, getattr(self, name), 1)
        _one_of("optimizer", self.optimizer, tuple(OPTIMIZERS))


@dataclass(frozen=True)
class StepRecord:
    """What one step did. `terms` and what is derived from them are None where nothing was evaluated."""

    step: int  # counted from 1: the state after this many steps
    update: Update
    terms: MeanTerms | None  # after the step, over the evaluation set
    attribution: Attribution | None  # what θ and what φ changed in this step
    target_moved: float | None  # mean KL(p_θ(z|x) ‖ p_θ'(z|x)) over this step, nats
    grad_norm_theta: float | None  # of the (last) minibatch gradient; None for a group that did not move
    grad_norm_phi: float | None
    seconds: float  # the step alone, without the evaluation

    def as_row(self) -> dict[str, Any]:
        """One flat row for a table or a file, always with the same keys; None where nothing was evaluated."""
        row: dict[str, Any] = {"step": self.step}
        row |= {name: getattr(self.terms, name, None) for name in MeanTerms.__annotations__}
        for group in ("theta", "phi"):
            changes = getattr(self.attribution, group, None)
            row |= {f"{term}_by_{group}": getattr(changes, term, None) for term in TERMS}
        row |= {"target_moved": self.target_moved}
        row |= {"theta_on": self.update.theta, "phi_on": self.update.phi}
        row |= {"theta_steps": self.update.theta_steps, "phi_steps": self.update.phi_steps}
        row |= {"grad_norm_theta": self.grad_norm_theta, "grad_norm_phi": self.grad_norm_phi}
        return row | {"seconds": self.seconds}


@dataclass(frozen=True)
class Snapshot:
    """All that a run is at one step: restoring it and going on gives the same bits again."""

    settings: Settings
    theta: Array
    phi: Array
    theta_state: State
    phi_state: State
    step_count: int
    draw_count: int


@dataclass(frozen=True)
class Evaluation:
    """The terms at one (θ, φ), with the Target and the q they came from."""

    theta: Array
    phi: Array
    target: Target
    under_q: Expectations
    terms: MeanTerms

    @property
    def q(self) -> Gaussian:
        """q_φ(z|x) of the evaluated data points."""
        return self.under_q.q


class Trainer:
    """Trains `model` on x (N, D). Assign `.update` at any time to switch θ or φ on and off.

    samples: reparameterised draws of z per data point. gradients: "fused" (written out by hand) or
    "autograd" (through the primitives of `ops`); they agree to rounding. precision: of the steps; the terms
    are exact in float64 at whatever θ and φ the steps lead to. evaluate_every: the terms are
    computed after every so many steps, 0 for never, on `evaluation_x`: all of x, or a fixed random choice
    of `evaluation_points` of it if x is longer. learning_rate: one number, or (θ's, φ's).
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
        gradients: Literal["fused", "autograd"] = "fused",
        precision: Literal["float64", "float32"] = "float64",
        evaluate_every: int = 1,
        evaluation_points: int | None = None,
        tolerance: float | None = None,
        update: Update = Update(),
    ):
        self.model, self.x, self.seed = model, as_data(x), _whole("seed", seed, 0)
        if self.x.shape[1] != model.data_dim:
            raise ValueError(f"x: expected shape (N, {model.data_dim}), got {self.x.shape}")
        if model.likelihood == "bernoulli" and not ((self.x == 0) | (self.x == 1)).all():
            raise ValueError("x: expected only 0 and 1 for a Bernoulli model; use likelihood='gaussian'")
        self.evaluate_every = _whole("evaluate_every", evaluate_every, 0)
        rates = learning_rate if isinstance(learning_rate, tuple) else (learning_rate, learning_rate)
        theta_rate, phi_rate = (_positive("learning_rate", rate) for rate in rates)
        batch_size = min(_whole("batch_size", batch_size, 1), len(self.x))
        self._settings = Settings(update, theta_rate, phi_rate, optimizer, samples, batch_size)
        self.gradients = _one_of("gradients", gradients, ("fused", "autograd"))
        self.precision = _one_of("precision", precision, ("float64", "float32"))
        if not (largest := np.abs(self.x).max()) <= np.finfo(self.precision).max:
            raise ValueError(f"x: expected numbers that {self.precision} can hold, got {largest:g}")
        self._rows = self.x.astype(self.precision, copy=False)
        self.tolerance = check_tolerance(tolerance, model.latent_dim)
        limit = EVALUATION_POINTS[model.latent_dim]
        if evaluation_points is not None:
            limit = _whole("evaluation_points", evaluation_points, 1)
        self.evaluation_x = self.x
        if len(self.x) > limit:
            chosen = self._stream(EVALUATION).choice(len(self.x), limit, replace=False)
            self.evaluation_x = self.x[np.sort(chosen)]
        self.reset()

    def reset(self) -> None:
        """Back to step 0 with the same initial weights; the switches and rates stay as they are."""
        initial = self.model.init(np.random.SeedSequence(self.seed, spawn_key=(INIT,)))
        self.theta, self.phi = (vector.astype(self.precision) for vector in initial)
        self._forget_moments()
        self.step_count = self.draw_count = 0
        self._evaluation: Evaluation | None = None
        self._fit_buffers()

    def _forget_moments(self) -> None:
        self._optimizer = OPTIMIZERS[self._settings.optimizer]
        self.theta_state = self._optimizer.init(self.theta)
        self.phi_state = self._optimizer.init(self.phi)

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
        old, self._settings = self._settings, replace(new, batch_size=min(new.batch_size, len(self.x)))
        if new.optimizer != old.optimizer:
            self._forget_moments()
        if (self._settings.batch_size, new.samples) != (old.batch_size, old.samples):
            self._fit_buffers()

    @property
    def update(self) -> Update:
        """Which groups a step moves; assignable at any time."""
        return self._settings.update

    @update.setter
    def update(self, update: Update) -> None:
        self._settings = replace(self._settings, update=update)

    # ----- one step -----

    def step(self) -> StepRecord:
        """Move the groups that are on; returns the record of this step, evaluated if it is its turn.

        Raises Diverged where a number is not finite; the step is then undone as a whole.
        """
        evaluating = self.evaluate_every > 0 and (self.step_count + 1) % self.evaluate_every == 0
        before = self.evaluate() if evaluating else None
        undo = self.snapshot() if evaluating or len(self.update.moves) > 1 else None
        try:
            return self._step(before)
        except Diverged as problem:
            if undo is None:  # the one gradient was not finite: nothing has moved
                self.draw_count -= 1
            else:
                self.restore(undo)
            raise Diverged(self.step_count + 1, problem.what, _HINT) from None

    def _step(self, before: Evaluation | None) -> StepRecord:
        norms: tuple[float | None, float | None] = (None, None)
        started = perf_counter()
        for move in self.update.moves:
            theta_norm, phi_norm = self._move(*move)
            norms = (norms[0] if theta_norm is None else theta_norm, norms[1] if phi_norm is None else phi_norm)
        self.step_count += 1
        seconds = perf_counter() - started
        terms, attribution, moved = None, None, None
        if before is not None:
            terms, attribution, moved = self._compare(before)
        return StepRecord(self.step_count, self.update, terms, attribution, moved, *norms, seconds)

    def steps(self, n: int) -> Iterator[StepRecord]:
        """The records of the next n steps, one after the other."""
        for _ in range(n):
            yield self.step()

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _move(self, move_theta: bool, move_phi: bool) -> tuple[float | None, float | None]:
        x, eps = self._draw()
        at = self.theta, self.phi, x, eps, move_theta, move_phi
        if self.gradients == "fused":
            *_, g_theta, g_phi = self._fused(*at, want_terms=False)
        else:
            *_, g_theta, g_phi = self.model.elbo_and_grad_autograd(*at)
        norms = [None if g is None else math.sqrt(g @ g) for g in (g_theta, g_phi)]
        for name, norm in zip(("θ", "φ"), norms):
            if norm is not None and not math.isfinite(norm):
                raise Diverged(self.step_count + 1, f"the gradient of the ELBO for {name}", _HINT)
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
            epoch, turn = divmod(k, per_epoch)
            if self._shuffled[0] != epoch:
                self._shuffled = (epoch, self._rows[self._stream(ORDER, epoch).permutation(len(self.x))])
            x = self._shuffled[1][turn * B : (turn + 1) * B]
        shape = (self._settings.samples, B, self.model.latent_dim)
        blocks = max(1, NOISE_BLOCK // math.prod(shape))
        block, turn = divmod(k, blocks)
        if self._noise[0] != block:
            noise = self._stream(NOISE, block).standard_normal((blocks, *shape))
            self._noise = (block, noise.astype(self.precision, copy=False))
        return x, self._noise[1][turn]

    # ----- looking -----

    def evaluate(self) -> Evaluation:
        """The exact terms at the present (θ, φ); what did not move since the last look is used again."""
        last = self._evaluation
        same_theta = last is not None and np.array_equal(last.theta, self.theta)
        same_phi = last is not None and np.array_equal(last.phi, self.phi)
        if last is not None and same_theta and same_phi:
            return last
        theta, phi, x = self.theta.astype(float), self.phi.astype(float), self.evaluation_x
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            target = last.target if last and same_theta else Target(self.model, theta, x, self.tolerance)
            under_q = last.under_q if last and same_phi else self._under(self.model.encode(phi, x), target)
            terms = self._terms(target, under_q)
        self._evaluation = Evaluation(theta, phi, target, under_q, terms)
        return self._evaluation

    def _under(self, q: Gaussian, target: Target) -> Expectations:
        if not (np.isfinite(q.mean).all() and np.isfinite(q.log_diag).all()):
            raise Diverged(self.step_count, "q", _HINT)
        return Expectations(q, target.joint, len(target), target.tolerance)

    def _terms(self, target: Target, under_q: Expectations) -> MeanTerms:
        terms = under_q.against(target).mean()
        for name in ("log_px", "reconstruction", "kl_prior", "kl_posterior"):
            if not abs(getattr(terms, name)) < 1e50:
                raise Diverged(self.step_count, name, _HINT)
        return terms

    def _compare(self, before: Evaluation) -> tuple[MeanTerms, Attribution, float]:
        """Terms after the step, who changed what, and how far the target moved."""
        after = self.evaluate()
        moved_theta, moved_phi = after.target is not before.target, after.under_q is not before.under_q
        if moved_theta and moved_phi:
            theta_only = self._terms(after.target, before.under_q)
            phi_only = self._terms(before.target, after.under_q)
        else:
            theta_only = after.terms if moved_theta else before.terms
            phi_only = after.terms if moved_phi else before.terms
        moved = float(before.target.divergence_to(after.target).mean()) if moved_theta else 0.0
        return after.terms, attribute(before.terms, theta_only, phi_only, after.terms), moved

    # ----- rewinding -----

    def snapshot(self) -> Snapshot:
        """The run as it is now, to come back to."""
        states = self.theta_state.copy(), self.phi_state.copy()
        vectors = self.theta.copy(), self.phi.copy()
        return Snapshot(self.settings, *vectors, *states, self.step_count, self.draw_count)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of this run, with the settings of then."""
        self.settings = snapshot.settings
        self.theta[:], self.phi[:] = snapshot.theta, snapshot.phi
        self.theta_state, self.phi_state = snapshot.theta_state.copy(), snapshot.phi_state.copy()
        self.step_count, self.draw_count = snapshot.step_count, snapshot.draw_count


_HINT = "try a smaller learning rate, or data of unit scale"


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return int(value)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    return float(value)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, got {value!r}")
    return str(value)
