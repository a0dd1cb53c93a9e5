"""Optimisers as small values: init a state, update the parameters in place, one group at a time.

Both climb: they move the parameters along the gradient of what is to be maximised, the ELBO. A frozen
group is simply never updated, so its parameters, moments and step counter stay as they are to the last
bit. (Feeding zero gradients to Adam instead would move it: its moments go on pushing.)
"""

import math
from dataclasses import dataclass, field

import numpy as np

from .checks import Array


@dataclass
class State:
    """What an optimiser remembers of one parameter vector: two moments and how often it was updated.

    For Adam they are m/(1 − β₁) and v/(1 − β₂): decayed sums of the gradients and of their squares.
    """

    m: Array
    v: Array
    count: int = 0
    scratch: Array = field(default_factory=lambda: np.empty(0), repr=False)

    def copy(self) -> "State":
        return State(self.m.copy(), self.v.copy(), self.count)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, parameters: Array) -> State:
        return State(np.zeros_like(parameters), np.zeros_like(parameters))

    def update(self, parameters: Array, gradient: Array, state: State, learning_rate: float) -> None:
        """parameters += learning_rate · m̂ / (√v̂ + ε), in place."""
        if state.scratch.size != parameters.size:
            state.scratch = np.empty_like(parameters)
        step = state.scratch
        state.count += 1
        state.m *= self.beta1
        state.m += gradient
        state.v *= self.beta2
        state.v += np.multiply(gradient, gradient, out=step)
        # m̂ = (1 − β₁) m/(1 − β₁ᵗ) and v̂ = (1 − β₂) v/(1 − β₂ᵗ): all these scalars come in at the end.
        of_m = (1 - self.beta1) / (1 - self.beta1**state.count)
        of_root = math.sqrt((1 - self.beta2) / (1 - self.beta2**state.count))
        np.sqrt(state.v, out=step)
        step += self.epsilon / of_root
        np.divide(state.m, step, out=step)
        step *= learning_rate * of_m / of_root
        parameters += step


@dataclass(frozen=True)
class SGD:
    """Plain gradient ascent on minibatches; it remembers nothing but how often it was called."""

    def init(self, parameters: Array) -> State:
        return State(np.empty(0), np.empty(0))

    def update(self, parameters: Array, gradient: Array, state: State, learning_rate: float) -> None:
        """parameters += learning_rate · gradient, in place."""
        state.count += 1
        parameters += learning_rate * gradient


OPTIMIZERS: dict[str, Adam | SGD] = {"adam": Adam(), "sgd": SGD()}
