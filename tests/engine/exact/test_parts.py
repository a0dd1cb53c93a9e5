"""The parts of the engine on integrands that need no model: the search, lattices in cells, bounds of sums."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from tinyvae.exact.decoder import lattice
from tinyvae.exact.proof import faces, missed, piece, spacing_for
from tinyvae.exact.sampled import Sampled, to_support
from tinyvae.exact.support import Found, in_places, joined, search

ALL = (-np.inf, np.inf)


def of(log_f, dim=1, n=1):
    """A source with one density for all data points."""
    return Sampled(dim, ALL, lambda rows, t: np.tile(log_f(t), (len(rows), 1)))


def test_the_search_finds_a_narrow_second_mode_far_from_the_first():
    places, widths = np.array([-3.0, 5.5]), np.array([0.3, 0.02])

    def log_f(t):
        return np.logaddexp(*stats.norm(places[:, None], widths[:, None]).logpdf(t[:, 0]))

    (found,) = search(of(log_f), 1, np.log(1e-12))
    z = lattice(found.side, 32, found.index)
    assert np.exp(log_f(z)).sum() * found.side / 32 == pytest.approx(2.0, abs=1e-9)
    assert found.left_out[0] < np.log(1e-11)


@pytest.mark.parametrize("place", [20.0, -3000.0])
def test_the_search_goes_as_far_as_there_is_mass(place):
    (found,) = search(of(lambda t: stats.norm(place, 1.0).logpdf(t[:, 0])), 1, np.log(1e-12))
    z = found.index[:, 0] * found.side
    assert (z < place - 6).any() and (z + found.side > place + 6).any() and len(z) < 20


@pytest.mark.parametrize("dim", [1, 2])
def test_the_two_lattices_of_a_cell_have_no_node_in_common_and_both_fill_it(dim):
    index = np.array([[-3] * dim, [2] * dim])
    for n in range(2, 12):
        coarse, fine = (lattice(0.25, m, index) for m in (n, n + 1))
        gap = np.abs(coarse[:, None] - fine[None]).max(axis=2)
        assert gap.min() > 0.25 / (2.1 * n * (n + 1))
        assert np.allclose(fine.reshape(2, -1, dim).mean(axis=1), (index + 0.5) * 0.25, rtol=0, atol=1e-15)
        assert len(fine) == 2 * (n + 1) ** dim


def test_cells_of_another_side_cover_the_same():
    index = np.array([[-2, 0], [-1, 0], [5, -3]])
    found = Found(np.arange(2), 0.5, index, np.array([[1, 0, 1], [0, 1, 0]], dtype=bool), *np.zeros((3, 2)))
    coarse, fine = found.at(2.0), found.at(0.25)
    assert coarse.index.tolist() == [[-1, 0], [1, -1]]
    assert coarse.active.tolist() == [[True, True], [True, False]]
    assert len(fine.index) == 12 and fine.active.sum(axis=1).tolist() == [8, 4]
    back = fine.at(0.5)
    assert back.index.tolist() == index.tolist() and (back.active == found.active).all()
    twice = joined([found, found])
    assert twice.index.tolist() == index.tolist() and twice.active.tolist() == 2 * found.active.tolist()


def test_data_points_apart_are_summed_apart_and_none_is_lost():
    index = np.arange(4000)[:, None]
    active = np.zeros((40, 4000), dtype=bool)
    for n in range(40):
        active[n, 3900 * (n % 2) : 3900 * (n % 2) + 100] = True
    parts = list(in_places(active, index, 8))
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert all(len({n % 2 for n in part.tolist()}) == 1 for part in parts)


def test_a_sum_misses_a_gaussian_by_no_more_than_the_theorem_says():
    """On the line Im z = a, |f| = e^(a²/2) f: N(a) in closed form; the bound is all but attained at the best a."""
    slack = []
    for h in (0.7, 0.9, 1.1, 1.3):
        a = 2 * np.pi / h
        for shift in (0.0, 0.3, 0.5):
            z = (np.arange(-60, 61) + shift) * h
            error = abs(np.exp(-0.5 * z * z).sum() * h / np.sqrt(2 * np.pi) - 1)
            bound = float(missed(a, h, np.exp(0.5 * a * a)))
            assert error <= bound * (1 + 1e-9) + 1e-14
            slack.append(bound / max(error, 1e-300))
    assert min(slack) < 1.01
    h = spacing_for(3.0, np.array([np.exp(4.5)]), 1e-9)
    assert float(missed(3.0, h, np.exp(4.5))) == pytest.approx(1e-9, rel=1e-9)


def test_on_a_finite_piece_the_sides_make_up_for_what_the_sum_misses():
    """f = e^z/(1 + e^z)² has poles at ±iπ; the piece ends where there is mass."""
    f = lambda z: np.exp(z) / (1 + np.exp(z)) ** 2  # noqa: E731
    l, r, a = -2.0, 3.0, 2.0
    inside, _ = integrate.quad(lambda t: abs(f(t + 1j * a)), l, r)
    y = np.linspace(0, a, 2001)
    low, high = y[:-1], y[1:]
    for n in (5, 10, 20):
        h = (r - l) / n
        sides = sum(
            (np.maximum(abs(f(end + 1j * low)), abs(f(end + 1j * high))) * piece(low, high, h)).sum()
            for end in (l, r)
        )
        sum_ = f(l + (np.arange(n) + 0.5) * h).sum() * h
        error = abs(sum_ - (special.expit(r) - special.expit(l)))
        assert 0 < error <= float(missed(a, h, np.array(inside))) + sides
        assert sides < 40 * error  # and they are not far from it


def test_the_faces_of_cells_are_where_they_end():
    corner = np.array([[0, 0], [0, 1], [1, 0]])
    assert sorted(map(tuple, faces(corner, 0))) == [(0.0, 0.5), (0.0, 1.5), (1.0, 1.5), (2.0, 0.5)]
    assert sorted(map(tuple, faces(corner, 1))) == [(0.5, 0.0), (0.5, 2.0), (1.5, 0.0), (1.5, 1.0)]
    assert sorted(faces(np.array([[-3], [-2], [4]]), 0)[:, 0]) == [-3.0, -1.0, 4.0, 5.0]


def test_an_interval_is_the_image_of_the_line_with_its_ends_left_out():
    t = np.linspace(-4, 4, 8001)[:, None]
    z, log_slope = to_support(t, (2.0, 5.0))
    assert (z > 2).all() and (z < 5).all() and (np.diff(z[:, 0]) >= 0).all()
    assert np.exp(log_slope).sum() * 0.001 == pytest.approx(3.0, abs=1e-12)
