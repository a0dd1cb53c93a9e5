"""The primitives: every hand-built VJP against finite differences, against autograd, and against itself."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad, make_vjp
from autograd.extend import defvjp, primitive
from autograd.test_util import check_grads

from tinyvae import ops

LOG_2PI = np.log(2 * np.pi)


def rng(seed=0):
    return np.random.default_rng(seed)


# ----- the same formulas in plain autograd.numpy, written here and not taken from ops -----


def plain_affine(x, W, b):
    return anp.dot(x, W) + b


def plain_gaussian(x, mean, log_std):
    r = (x - mean) / anp.exp(log_std)
    return anp.sum(-0.5 * r**2 - log_std - 0.5 * LOG_2PI, axis=-1)


def plain_bernoulli(x, logits):
    p = 1 / (1 + anp.exp(-logits))
    return anp.sum(x * anp.log(p) + (1 - x) * anp.log(1 - p), axis=-1)


def plain_cholesky(log_diag, lower):
    """C for L = 2, (B, 2, 2)."""
    zero = anp.zeros(log_diag.shape[0])
    rows = [[anp.exp(log_diag[:, 0]), zero], [lower[:, 0], anp.exp(log_diag[:, 1])]]
    return anp.stack([anp.stack(row, axis=-1) for row in rows], axis=-2)


def plain_kl(mean, log_diag, lower):
    if mean.shape[1] == 1:
        C = anp.exp(log_diag)[:, :, None] + anp.sum(lower)  # a sum over nothing
    else:
        C = plain_cholesky(log_diag, lower)
    cov = anp.einsum("bij,bkj->bik", C, C)
    trace = anp.sum(cov * np.eye(mean.shape[1]), axis=(1, 2))
    log_det = anp.sum(2 * log_diag, axis=-1)
    return 0.5 * (trace + anp.sum(mean**2, axis=-1) - mean.shape[1] - log_det)


def plain_reparameterise(mean, log_diag, lower, eps):
    if mean.shape[1] == 1:
        return mean + anp.exp(log_diag) * eps + anp.sum(lower)
    return mean + anp.einsum("bij,bj->bi", plain_cholesky(log_diag, lower), eps)


def bits(shape, seed):
    return (rng(seed).random(shape) < 0.5).astype(float)


def normals(seed, *shapes):
    r = rng(seed)
    return tuple(r.standard_normal(shape) for shape in shapes)


CASES = {
    "affine": (ops.affine, plain_affine, normals(1, (5, 3), (3, 4), (4,))),
    "tanh": (ops.tanh, anp.tanh, normals(2, (5, 3))),
    "gaussian, shared noise": (ops.gaussian_log_likelihood, plain_gaussian, normals(3, (5, 3), (5, 3), (1,))),
    "gaussian, noise per dimension": (
        ops.gaussian_log_likelihood,
        plain_gaussian,
        normals(4, (5, 3), (5, 3), (3,)),
    ),
    "gaussian, one dimension": (ops.gaussian_log_likelihood, plain_gaussian, normals(5, (5, 1), (5, 1), (1,))),
    "gaussian, every x under every mean": (
        ops.gaussian_log_likelihood,
        plain_gaussian,
        normals(6, (5, 1, 3), (4, 3), (3,)),
    ),
    "gaussian, samples in front": (
        ops.gaussian_log_likelihood,
        plain_gaussian,
        normals(7, (5, 3), (2, 5, 3), (1,)),
    ),
    "bernoulli": (ops.bernoulli_log_likelihood, plain_bernoulli, (bits((5, 3), 8), *normals(8, (5, 3)))),
    "bernoulli, every x under all logits": (
        ops.bernoulli_log_likelihood,
        plain_bernoulli,
        (bits((5, 1, 3), 9), *normals(9, (4, 3))),
    ),
    "kl, R1": (ops.gaussian_kl, plain_kl, normals(10, (5, 1), (5, 1), (5, 0))),
    "kl, R2": (ops.gaussian_kl, plain_kl, normals(11, (5, 2), (5, 2), (5, 1))),
    "reparameterise, R1": (
        ops.reparameterise,
        plain_reparameterise,
        normals(12, (5, 1), (5, 1), (5, 0), (5, 1)),
    ),
    "reparameterise, R2": (
        ops.reparameterise,
        plain_reparameterise,
        normals(13, (5, 2), (5, 2), (5, 1), (5, 2)),
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def close(got, expected, relative):
    scale = max(np.abs(expected).max(initial=0.0), 1.0)
    assert np.shape(got) == np.shape(expected)
    assert np.abs(np.asarray(got) - expected).max(initial=0.0) <= relative * scale


def central_vjp(function, args, k, g, h=1e-3):
    """g · ∂function/∂args[k], each entry by central differences of order six."""
    vjp = np.zeros_like(args[k])
    for at in np.ndindex(vjp.shape):
        for step, weight in ((1, 45), (2, -9), (3, 1)):
            ends = []
            for sign in (1, -1):
                moved = args[k].copy()
                moved[at] += sign * step * h
                ends.append(np.sum(g * function(*args[:k], moved, *args[k + 1 :])))
            vjp[at] += weight * (ends[0] - ends[1]) / (60 * h)
    return vjp


@each_case
def test_value_is_the_plain_formula(case):
    function, plain, args = case
    close(function(*args), plain(*args), 1e-13)


@each_case
def test_vjp_is_that_of_the_plain_formula(case):
    function, plain, args = case
    for k in range(len(args)):
        vjp, ans = make_vjp(function, k)(*args)
        expected, _ = make_vjp(plain, k)(*args)
        g = rng(k).standard_normal(np.shape(ans))
        close(vjp(g), expected(g), 1e-12)


@each_case
def test_vjp_is_the_finite_difference(case):
    function, _, args = case
    for k in range(len(args)):
        vjp, ans = make_vjp(function, k)(*args)
        g = rng(k).standard_normal(np.shape(ans))
        close(vjp(g), central_vjp(function, args, k, g), 1e-9)


@each_case
def test_check_grads_to_second_order(case):
    function, _, args = case
    check_grads(function, modes=["rev"], order=2)(*args)


def test_check_grads_would_notice_a_wrong_vjp():
    @primitive
    def wrong_tanh(a):
        return np.tanh(a)

    defvjp(wrong_tanh, lambda ans, a: lambda g: g * (1 - ans))  # forgets the square
    with pytest.raises(AssertionError):
        check_grads(wrong_tanh, modes=["rev"], order=1)(normals(0, (4,))[0])


def test_check_grads_would_notice_a_vjp_wrong_only_in_its_own_derivative():
    @primitive
    def square(a):
        return a**2

    defvjp(
        square, lambda ans, a: lambda g: g * 2 * anp.array(getattr(a, "_value", a))
    )  # a constant to autograd
    check_grads(square, modes=["rev"], order=1)(1.3)
    with pytest.raises(AssertionError):
        check_grads(square, modes=["rev"], order=2)(1.3)


def test_the_second_derivative_of_the_bernoulli_is_minus_the_variance():
    logits = np.linspace(-4, 4, 9)
    second = elementwise_grad(
        elementwise_grad(lambda l: ops.bernoulli_log_likelihood(np.ones((9, 1)), l[:, None]))
    )
    p = 1 / (1 + np.exp(-logits))
    close(second(logits), -p * (1 - p), 1e-12)


# ----- extremes -----


@pytest.mark.parametrize("logit", [1e3, 1e6, 1e300, -1e3, -1e6, -1e300])
def test_extreme_logits_give_the_limit_and_not_an_overflow(logit):
    right, wrong = np.array([[float(logit > 0)]]), np.array([[float(logit < 0)]])
    l = np.array([[logit]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert ops.bernoulli_log_likelihood(right, l)[0] == 0.0
        assert ops.bernoulli_log_likelihood(wrong, l)[0] == -abs(logit)
        assert ops.sigmoid(l)[0, 0] == float(logit > 0)
        assert ops.softplus(l)[0, 0] == max(logit, 0.0)
        gradient = grad(lambda l: np.sum(ops.bernoulli_log_likelihood(wrong, l)))(l)
    assert gradient[0, 0] == -np.sign(logit)


def test_softplus_keeps_its_digits_where_it_is_small():
    a = np.array([-30.0, -100.0, -700.0])
    assert np.allclose(ops.softplus(a), np.exp(a), rtol=1e-12, atol=0)


def test_kl_of_the_prior_itself_is_zero():
    assert ops.gaussian_kl(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 1))).tolist() == [0, 0, 0]


def test_softplus_is_smooth_at_zero():
    second = elementwise_grad(elementwise_grad(ops.softplus))
    assert np.allclose(
        second(np.array([0.0, 0.5, -0.5])), [0.25, *([ops.sigmoid(0.5) * ops.sigmoid(-0.5)] * 2)]
    )
