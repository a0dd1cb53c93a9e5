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


def buffer_size(sizes, batch):
    """How many numbers `MLPBuffers` of these widths and this batch hold."""
    return batch * (sum(sizes[:-1]) + len(sizes) - 1 + 2 * sizes[-1] + max(sizes))


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


CHUNK = 512  # rows of x in one pass, so that their activations fit into a processor's cache


def outputs(vector, sizes, x, chunk=CHUNK):
    """The same as `forward` for the network in `vector`, in plain numbers: x (B, in) -> (B, out).

    At most `chunk` rows of x go through in one pass. The columns of what is returned are contiguous.
    """
    out, buffers = np.empty((sizes[-1], len(x))), None
    for first in range(0, len(x), chunk):
        part = out[:, first : first + chunk]
        if buffers is None or part.shape != buffers.output.shape:
            buffers = MLPBuffers(sizes, part.shape[1])
        buffers.input[:] = x[first : first + chunk].T
        part[:] = buffers.forward(vector)
    return out.T


class MLPBuffers:
    """The arrays of one MLP for a batch of B, allocated once; a column for each data point.

    `inputs` of the layers are [a; 1], (width + 1, B) each, so that a bias is the last row of its matrix;
    `activations` are their rows a, (width, B), of which the first is the network's `input`; `output` (out, B).
    """

    def __init__(self, sizes, batch, dtype=np.float64):
        self.sizes, self.vector = sizes, None
        self.inputs = [np.ones((width + 1, batch), dtype) for width in sizes[:-1]]
        self.activations = [layer_input[:-1] for layer_input in self.inputs]
        self.input, self.output = self.activations[0], np.empty((sizes[-1], batch), dtype)
        self.g_output, self.scratch = np.empty_like(self.output), np.empty((max(sizes), batch), dtype)

    def forward(self, vector):
        """The last layer's output (out, B), `input` being filled in: a ← tanh(Wᵀ a + b), no tanh at the end."""
        if vector is not self.vector:  # the layers are views: made once for each vector
            self.vector, self.matrices = vector, matrices(vector, self.sizes)
        for M, layer_input, a in zip(self.matrices, self.inputs, self.activations[1:]):
            np.tanh(np.dot(M.T, layer_input, out=a), out=a)
        return np.dot(self.matrices[-1].T, self.inputs[-1], out=self.output)

    def backward(self, g, grads, to_input):
        """g (out, B) is the gradient of the output; writes [a; 1] gᵀ for each layer into `grads`, if given.

        Returns the gradient of the input if `to_input`, else None. Layer below: g ← (W g)(1 − a²), which takes
        the place of the activations a, no longer needed: a pass backward needs a pass forward before it.
        """
        for k in reversed(range(len(self.matrices))):
            if grads is not None:
                np.dot(self.inputs[k], g.T, out=grads[k])
            if k == 0 and not to_input:
                return None
            g, a = np.dot(self.matrices[k][:-1], g, out=self.scratch[: self.sizes[k]]), self.activations[k]
            if k > 0:
                a *= a
                np.subtract(1.0, a, out=a)
                a *= g
                g = a
        return g
