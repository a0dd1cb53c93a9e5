"""Multilayer perceptrons whose layers are views into one flat parameter vector.

One vector for all weights makes the rest simple: an optimiser, a snapshot, a norm or a frozen group is
one line on one array. A layer from `fan_in` to `fan_out` takes (fan_in + 1)·fan_out numbers: W row by
row, then b; seen as one matrix [W; b] it maps [x, 1] to x @ W + b.
"""

from itertools import pairwise

import numpy as np

from . import ops


def size(sizes):
    """How many parameters an MLP with the given layer widths has."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def matrices(vector, sizes):
    """The layers as matrices [W; b] of shape (fan_in + 1, fan_out): views, not copies."""
    views, start = [], 0
    for fan_in, fan_out in pairwise(sizes):
        stop = start + (fan_in + 1) * fan_out
        views.append(vector[start:stop].reshape(fan_in + 1, fan_out))
        start = stop
    return views


def layers(vector, sizes):
    """The layers as pairs (W (fan_in, fan_out), b (fan_out,)): views, so writing to them moves the vector."""
    return [(M[:-1], M[-1]) for M in matrices(vector, sizes)]


def forward(network, x):
    """x (B, in) -> (B, out): x @ W + b at each layer, tanh between layers, none after the last."""
    for W, b in network[:-1]:
        x = ops.tanh(ops.affine(x, W, b))
    return ops.affine(x, *network[-1])


def initialise(vector, sizes, rng):
    """Fill the vector in place: W ~ N(0, 1/fan_in), which keeps tanh units in their curved middle; b = 0."""
    for W, b in layers(vector, sizes):
        W[:] = rng.standard_normal(W.shape) / np.sqrt(W.shape[0])
        b[:] = 0.0
