"""How a strategy's noise C^{-1} z is made one step at a time: what is kept between steps, and with which coefficients.

A form says all that a stream must know of a strategy, whatever framework draws the z. There are fewer forms than
strategies. `copies` is the number of arrays of the parameters' size that are kept.
"""

import abc
import dataclasses

import numpy as np

from dpkit import validation
from dpkit.factorization.values import Array, ByValue


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Form(ByValue, abc.ABC):
    """x_t = row t of C^{-1} z, for t < iterations, from z_t and what was kept.

    Args:
        iterations: the steps for which the coefficients are those of the strategy; None: any number.
        window: the steps of one scale.
        scales: (m,), z_t is divided by scales[t // window] before anything else, by the last one at all later steps;
            None: by 1.
    """

    iterations: int | None = None
    window: int = 1
    scales: Array | None = None

    def __post_init__(self):
        if self.iterations is not None:
            validation.count("iterations", self.iterations, minimum=1)

    @property
    @abc.abstractmethod
    def copies(self) -> int:
        """How many arrays of the parameters' size are kept from one step to the next."""

    @property
    def operations(self) -> int:
        """Multiplications and additions per parameter in the dearest step, besides drawing z: one for each copy."""
        return self.copies


@dataclasses.dataclass(frozen=True, eq=False)
class White(Form):
    """x_t = z_t."""

    @property
    def copies(self) -> int:
        return 0


@dataclasses.dataclass(frozen=True, eq=False)
class PastOutputs(Form):
    """x_t = (z_t - sum_{0 < j < b} c[t, j] x_{t-j}) / c[t, 0]: a banded C, c[t, j] = C[t, t - j].

    Args:
        coefficients: c (iterations, b), 0 where t < j; or one row (1, b) for all steps, with x_t = 0 for t < 0.
    """

    coefficients: Array

    @property
    def copies(self) -> int:
        return self.coefficients.shape[1] - 1


@dataclasses.dataclass(frozen=True, eq=False)
class PastInputs(Form):
    """x_t = sum_{j < p} d[t, j] z_{t-j}: a banded C^{-1}, or a dense one with as many bands as there are iterations.

    The past z can be kept, or drawn again from their counters, and then nothing is kept.

    Args:
        coefficients: d (iterations, p), 0 where t < j; or one row (1, p) for all steps, with z_t = 0 for t < 0.
    """

    coefficients: Array

    @property
    def copies(self) -> int:
        return self.coefficients.shape[1] - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Buffers(Form):
    """x_t = z_t - omega . S, then S <- theta * S + x_t: C is buffered linear Toeplitz.

    Args:
        theta: (d,) decays.
        omega: (d,) output scales.
    """

    theta: Array
    omega: Array

    @property
    def copies(self) -> int:
        return len(self.theta)

    @property
    def operations(self) -> int:
        return 2 * self.copies


@dataclasses.dataclass(frozen=True, eq=False)
class TreeNodes(Form):
    """node = updates[k] . (z_t, S), x_t = outputs[k] . (node, S), then S[h] <- node: trees, drawn from once a step.

    S holds the estimates of the nodes to the left of those that are still open, one for each height. Step t ends a node
    of height h, the exponent of 2 in r = 1 + t mod restart_every, and is of kind k = h; the last step before a restart
    that completes its tree is of the last kind. A new tree reads nothing of the one before.

    The fresh noises of all nodes that end at a step are seen only through that step's node, and so are one draw of the
    same variance: the noises x have the joint law that the strategy's C^{-1} gives them, from fewer draws.

    Args:
        outputs: (kinds, 1 + copies).
        updates: (kinds, 1 + copies).
        restart_every: the steps of one tree; None: there is one tree.
        completion: whether the trees before the last are completed.
    """

    outputs: Array
    updates: Array
    restart_every: int | None = None
    completion: bool = False

    @property
    def copies(self) -> int:
        return self.outputs.shape[1] - 1

    @property
    def operations(self) -> int:
        return int(np.max(np.count_nonzero(self.outputs, axis=1) + np.count_nonzero(self.updates, axis=1)))


def tree_nodes(iterations: int, averaged: bool, restart_every: int | None, completion: bool) -> TreeNodes:
    """The form of a run of trees: nodes by themselves, or `averaged` with what their descendants say (Honaker 2015).

    A node of height h before it is normalised is V_h = z + (left + right) / 2, of variance 2 - 2^-h; by itself it is z.
    A prefix of t steps reads the nodes at the bits of t, and so a step that ends a node of height h is the difference
    of that node and those at heights 0, ..., h - 1; a completed tree's root takes the place of all bits of its length.
    """
    length = min(iterations, restart_every or iterations)
    completes = completion and length < iterations
    ends = [(h, list(range(h))) for h in range(length.bit_length())]
    if completes:
        root = (length - 1).bit_length()
        ends.append((root, [h for h in range(root) if (length - 1) >> h & 1]))
    width = ends[-1][0]
    variances = 2 - 2.0 ** -np.arange(width + 1.0) if averaged else np.ones(width + 1)
    outputs, updates = np.zeros((2, len(ends), 1 + width))
    for kind, (height, inside) in enumerate(ends):
        below = np.array(inside, dtype=int)
        halves = 2.0 ** (below - float(height)) * averaged
        updates[kind, 0] = np.sqrt(variances[height] - np.sum(halves**2 * variances[below]))
        updates[kind, 1 + below] = halves
        outputs[kind, 0] = 1 / variances[height]
        outputs[kind, 1 + below] = -1 / variances[below]
    return TreeNodes(
        outputs=outputs,
        updates=updates,
        restart_every=restart_every if length < iterations else None,
        completion=completes,
        iterations=iterations,
    )


def rows_from_diagonal(matrix: Array) -> Array:
    """(n, n) coefficients of a lower-triangular matrix: [t, j] is matrix[t, t - j], 0 where t < j."""
    steps = np.arange(len(matrix))
    earlier = steps[:, None] - steps
    return np.where(earlier >= 0, matrix[steps[:, None], np.maximum(earlier, 0)], 0.0)
