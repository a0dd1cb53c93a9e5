"""What may change between two steps of a run: the switches of θ and φ, the rates, the optimiser, the batch."""

from dataclasses import dataclass

from .checks import not_negative, one_of, positive, whole
from .optimizers import OPTIMIZERS


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
    def substeps(self) -> list[tuple[bool, bool]]:
        """The parameter updates of one step in order, each as (θ moves, φ moves)."""
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
    beta: float = 1.0  # the objective is reconstruction − β·kl_prior; the ELBO and all terms stay what they are

    def __post_init__(self) -> None:
        for name in ("theta_rate", "phi_rate"):
            positive(name, getattr(self, name))
        for name in ("samples", "batch_size"):
            whole(name, getattr(self, name), 1)
        not_negative("beta", self.beta)
        one_of("optimizer", self.optimizer, tuple(OPTIMIZERS))
