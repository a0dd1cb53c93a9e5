"""Each built-in set is learned with its recommended settings: one seed here, ten in tests/benchmarks/learning.py."""

import pytest

import tinyvae as tv
from tests.benchmarks.learning import ASKED, COLLAPSED, Learned, learned, misses


@pytest.mark.parametrize("name", ASKED)
def test_a_set_is_learned_with_its_defaults_in_4000_steps(name):
    run = learned(name, seed=0)
    assert run.behind >= ASKED[name] and run.used >= COLLAPSED


def test_the_same_from_a_noise_of_1_collapses_on_the_pinwheel():
    """What the recommended settings are for: the first cause of collapse is the noise that the model is born with."""
    run = tv.Config(dataset="pinwheel", noise_init=1.0, evaluate_every=0).open()
    for _ in run.trainer.steps(1000):
        pass
    assert run.model.encode(run.trainer.phi, run.trainer.evaluation_x).kl_prior.mean() < 0.1


def test_what_is_missed_is_said():
    assert misses("arc", [Learned(-0.06, 1.0, 0.9)]) == ["arc: -0.060 nats behind the truth, asked for -0.05"]
    assert misses("arc", [Learned(-0.04, 1.3, 0.9)]) == ["arc: the noise is 30 % off, asked for 20 %"]
    assert misses("bars", [Learned(-0.04, None, COLLAPSED - 0.01)]) == ["bars: seed 0 has collapsed"]
