"""What is recommended for each set of data, lines of text old and new, and what log p(x) is measured against."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import tinyvae as tv
from tinyvae.presets import RECOMMENDED, Recommended
from tinyvae.references import references
from tinyvae.runs import parse_share, share


@pytest.mark.parametrize("name", tv.DATASETS)
def test_a_run_of_a_set_takes_what_is_recommended_and_what_is_said_wins(name):
    recommended = RECOMMENDED[name]
    run = tv.Config(dataset=name).open()
    assert len(run.data.x) == recommended.n
    assert run.model.hidden == recommended.hidden and run.data.recommended == recommended
    assert run.trainer.settings.theta_rate == run.trainer.settings.phi_rate == recommended.learning_rate
    if run.model.learns_noise:
        assert np.exp(run.trainer.theta[-1]) == pytest.approx(recommended.noise_init)
    said = tv.Config(dataset=name, n=40, hidden=(3,), learning_rate=0.02, batch_size=7).open()
    assert len(said.data.x) == 40 and said.model.hidden == (3,)
    assert (said.trainer.settings.theta_rate, said.trainer.settings.batch_size) == (0.02, 7)


def test_the_noise_of_an_own_file_is_born_at_a_part_of_its_spread(tmp_path):
    x = 100 * tv.load_dataset("arc", n=60).x
    np.save(tmp_path / "mine.npy", x)
    run = tv.Config(dataset=str(tmp_path / "mine.npy")).open()
    spread = np.sqrt(x.var(axis=0).mean())
    assert np.exp(run.trainer.theta[-1]) == pytest.approx(0.15 * spread, rel=0.01)
    assert len(run.data.x) == 60 and run.data.held_out is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"noise_init": 0.0}, "noise_init: expected a number > 0"),
        ({"noise_init": np.inf}, "noise_init: expected a number > 0"),
        ({"noise_init": 0.2, "noise_std": 0.1}, "noise_init: expected None where noise_std fixes the noise"),
        ({"noise_init": 0.2, "dataset": "bars"}, "noise_init: expected None for bernoulli"),
        ({"beta": -0.5}, "beta: expected a number >= 0"),
        ({"holdout": 0.2}, "holdout: expected none for arc"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(config, message):
    with pytest.raises(ValueError, match=message):
        tv.Config(**{"dataset": "arc", **config}).open()


def test_a_noise_that_is_only_recommended_gives_way_without_a_word():
    assert tv.Config(noise_std=0.1).open().resolved.noise_init is None
    assert tv.Config(dataset="bars").open().resolved.noise_init is None


@pytest.mark.parametrize("holdout", [0.0, -0.1, 0.6, np.nan])
def test_a_holdout_is_a_part_of_the_rows_of_a_file(tmp_path, holdout):
    np.save(tmp_path / "mine.npy", tv.load_dataset("arc", n=40).x)
    with pytest.raises(ValueError, match="holdout: expected a number"):
        tv.load_dataset(tmp_path / "mine.npy", holdout=holdout)


def test_held_out_rows_are_not_trained_on_and_none_is_lost(tmp_path):
    x = tv.load_dataset("arc", n=41).x
    np.save(tmp_path / "mine.npy", x)
    data = tv.load_dataset(tmp_path / "mine.npy", holdout=0.2)
    assert (len(data.x), len(data.held_out)) == (32, 9)
    assert np.array_equal(np.sort(np.concatenate([data.x, data.held_out]), axis=0), np.sort(x, axis=0))
    with pytest.raises(tv.DataError, match="holdout: expected a part of 2 rows that leaves at least 2"):
        tv.load_dataset(tmp_path / "mine.npy", n=2, holdout=0.5)


def test_fresh_points_of_a_set_are_new_ones_from_its_truth():
    data, other = tv.load_dataset("arc", n=50), tv.load_dataset("arc", n=50, seed=1)
    assert np.array_equal(data.held_out, tv.load_dataset("arc", n=9).held_out)
    assert not np.array_equal(data.held_out, other.held_out)
    assert not set(map(tuple, data.held_out)) & set(map(tuple, tv.load_dataset("arc", n=400).x))


# ----- lines of text -----


def test_an_old_line_opens_the_run_of_then(monkeypatch):
    """`v1:` lines left out what was the default then: noise born at 1, rate 3e-3, batches of 64 of 256 points."""
    config, schedule, steps = parse_share("v1:crossing:seed=3:@2:theta=0:@6")
    trainer = config.open().trainer
    data = tv.load_dataset("crossing", n=256)
    model = tv.VAE(2, 1, hidden=(32, 32), noise_init=1.0)
    before = tv.Trainer(model, data.x, seed=3, batch_size=64, learning_rate=3e-3, evaluate_every=0)
    trainer.evaluate_every = 0
    list(trainer.steps(2)), list(before.steps(2))
    trainer.settings, before.update = schedule[0][1], tv.Update(theta=False)
    list(trainer.steps(4)), list(before.steps(4))
    assert steps == 6
    assert np.array_equal(trainer.theta, before.theta) and np.array_equal(trainer.phi, before.phi)
    assert len(parse_share("v1:linear:@1")[0].open().data.x) == 1000
    assert parse_share("v1:bars:@1")[0].open().resolved.n == 256


@pytest.mark.parametrize("name", tv.DATASETS)
def test_a_new_line_says_what_was_recommended_so_that_no_later_default_changes_the_run(name, monkeypatch):
    run = tv.Config(dataset=name, seed=2).open()
    line = share(run.resolved, (), 3)
    monkeypatch.setitem(RECOMMENDED, name, Recommended(33, (5,), learning_rate=0.5, batch_size=9))
    again = parse_share(line)[0].open()
    assert again.resolved == run.resolved and np.array_equal(again.data.x, run.data.x)
    assert np.array_equal(again.trainer.theta, run.trainer.theta)
    assert again.trainer.settings == run.trainer.settings
    assert tv.Config(dataset=name).open().model.hidden == (5,)  # the other default did change


def test_beta_and_noise_and_holdout_are_in_the_line():
    config = tv.Config(noise_init=0.3, beta=2.0, learning_rate=0.01, samples=1, batch_size=8, hidden=())
    settings = replace(config.settings, beta=0.5)
    parsed, schedule, steps = parse_share(share(config, ((4, settings),), 9))
    assert (parsed.noise_init, parsed.beta, schedule, steps) == (0.3, 2.0, ((4, settings),), 9)


# ----- what it is measured against -----


def test_the_truth_and_one_gaussian_are_what_log_px_is_held_against():
    data = tv.load_dataset("linear", n=60)
    truth, gaussian = references(data, data.x)
    W, noise = np.array([[-0.5, -1], [-1, -1], [2, 0.5]]), np.array([0.4, 0.2, 0.3])
    right = stats.multivariate_normal(np.zeros(3), W @ W.T + np.diag(noise**2)).logpdf(data.x).mean()
    assert truth.name == "the truth" and abs(truth.log_px - right) <= truth.error + 1e-9
    fitted = stats.multivariate_normal(data.x.mean(axis=0), np.cov(data.x.T, bias=True))
    assert gaussian.log_px == pytest.approx(fitted.logpdf(data.x).mean(), abs=1e-10)
    assert gaussian.log_px > truth.log_px - 1e-12  # it is the maximum likelihood, and the truth is a Gaussian


def test_bits_are_held_against_independent_bits():
    data = tv.load_dataset("bars", n=64)
    x = data.x.copy()
    x[:, 3] = 1.0  # a bit that is always on costs nothing
    (bits,) = references(replace(data, x=x, truth=None), x[:10])
    p = x.mean(axis=0)
    assert bits.log_px == pytest.approx(stats.bernoulli(p).logpmf(x[:10]).sum(axis=1).mean())


def test_data_on_a_line_have_no_gaussian_density():
    data = tv.load_dataset("arc", n=20)
    flat = np.column_stack([data.x[:, 0], 2 * data.x[:, 0]])
    assert references(replace(data, x=flat, truth=None), flat) == []
