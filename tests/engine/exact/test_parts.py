"""The parts of the engine on integrands that need no model: sums over tiles, halving, the search for mass."""

import numpy as np
import pytest
from scipy import special, stats

from tinyvae.exact.quadrature import CLASSES, SETS, SIDE, Estimate, Tiles, certify, level_for, spacing
from tinyvae.exact.scan import scan
from tinyvae.exact.support import Ellipsoids, to_support


def values(f, tiles):
    """f(z (M, L)) -> (M,) at the nodes of each pair of a tile and a data point, (P, T)."""
    z = tiles.nodes()[tiles.tile]
    return f(z.reshape(-1, tiles.dim)).reshape(len(z), -1)


@pytest.mark.parametrize("dim", [1, 2])
def test_each_half_of_the_nodes_is_a_half_and_the_last_two_make_the_whole(dim):
    tiles = Tiles(8, np.ones((1,) + (2,) * dim, dtype=bool), np.full(dim, -1))
    ones = tiles.sums(values(lambda z: np.ones(len(z)), tiles))[:, 0]
    assert ones.tolist() == [(2 * SIDE[dim]) ** dim] + [(2 * SIDE[dim]) ** dim / 2] * (len(SETS[dim]) - 1)
    wave = tiles.sums(values(lambda z: np.exp(z.sum(axis=1)), tiles))[:, 0]
    assert wave[-2] + wave[-1] == pytest.approx(wave[0])
    assert SETS[dim].shape[1] == len(CLASSES[dim])


@pytest.mark.parametrize("dim", [1, 2])
def test_halving_refines_a_gaussian_until_its_integral_is_one(dim):
    mean, std = np.array([[0.3] * dim, [-2.0] * dim]), np.array([0.5, 0.01])
    support = Ellipsoids(mean, std[:, None, None] * np.eye(dim), radius=9.0)

    def estimate(points, tiles):
        z, rows = tiles.nodes()[tiles.tile], points[tiles.rows]
        u = (z - mean[rows][:, None]) / std[rows, None, None]
        density = np.exp(-0.5 * (u**2).sum(axis=2)) / (np.sqrt(2 * np.pi) * std[rows, None]) ** dim
        sums = tiles.sums(density) * tiles.h**dim * np.array([[1.0]] + [[2.0]] * (len(SETS[dim]) - 1))
        return Estimate(sums[:1], np.abs(sums[1:] - sums[0]).max(axis=0)[None], np.full(len(points), 1e-14))

    start = level_for(std, dim, 1e-10) - 6  # too coarse, so that it has to refine
    got = certify(support, start, dim, 1e-10, estimate)
    assert np.abs(got.value - 1).max() <= got.error.max() <= 1e-10
    assert (spacing(got.level) < std).all() and (got.level > start).all()


def test_the_search_finds_a_narrow_second_mode_far_from_the_first():
    places, widths = np.array([-3.0, 5.5]), np.array([0.3, 0.02])

    def survey(t, half):
        log_f = np.logaddexp(*stats.norm(places[:, None], widths[:, None]).logpdf(t[:, 0]))
        return lambda points: (np.tile(log_f, (len(points), 1)), None)

    seen = scan(survey, 1, 1, 1e-9, bounded=False)
    ((_, tiles),) = seen.tiles(np.array([0]), int(seen.start[0]))
    nodes = tiles.nodes()[..., 0].ravel()
    assert seen.resolved.all()
    for place, width in zip(places, widths):
        assert ((nodes > place - 5 * width) & (nodes < place + 5 * width)).any()
    f = np.exp(np.logaddexp(*stats.norm(places[:, None], widths[:, None]).logpdf(nodes)))
    assert f.sum() * tiles.h == pytest.approx(2.0, abs=1e-9)


def test_an_interval_becomes_a_line_and_a_density_infinite_at_its_ends_keeps_its_integral():
    t = np.arange(-6, 6, 0.05)
    z, log_slope = to_support(t[:, None], (0.0, 1.0))
    log_f = -0.5 * np.log(z[:, 0]) - 0.2 * np.log1p(-z[:, 0]) + log_slope
    assert np.exp(log_f).sum() * 0.05 == pytest.approx(special.beta(0.5, 0.8), rel=1e-9)
