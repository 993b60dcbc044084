"""Tree aggregation: noisy sums over the dyadic blocks of the run, and three ways to read prefix sums off them."""

import collections
import dataclasses
from typing import Literal, get_args

import numpy as np

from dpkit import validation
from dpkit.factorization.base import Strategy, dense_size, lower_factor
from dpkit.factorization.forms import Form, tree_nodes
from dpkit.factorization.participation import FixedEpoch, ParticipationSchema
from dpkit.factorization.sensitivity import rounded_up
from dpkit.factorization.values import Array
from dpkit.factorization.workload import Workload, prefix_sum

Decoder = Literal["plain", "online", "full"]


@dataclasses.dataclass(frozen=True)
class Segment:
    """One tree: its first step, its number of steps, and whether it was completed with steps of zeros."""

    start: int
    length: int
    completed: bool

    @property
    def height(self) -> int:
        """Of the least complete tree that has room for all steps."""
        return (self.length - 1).bit_length()

    def blocks(self, height: int) -> int:
        """How many nodes of this height there are: every dyadic block whose last step has passed."""
        span = 2**self.height if self.completed else self.length
        return span >> height

    def cover(self, length: int) -> list[tuple[int, int]]:
        """(height, block) of the fewest nodes that make up the first `length` steps."""
        if self.completed and length == self.length:
            return [(self.height, 0)]
        return [(h, (length >> h) - 1) for h in range(length.bit_length()) if length >> h & 1]


@dataclasses.dataclass(frozen=True, eq=False)
class Tree(Strategy):
    """C has a row for each node of a binary tree over the steps: the indicator of the block [i 2^h, (i + 1) 2^h).

    Rows come in the order in which their blocks are completed. The noise of a step is the difference of the noises of
    consecutive prefix sums, which the decoder makes of the nodes' noises, at unit noise with these variances:

    - "plain": the sum of the fewest nodes that make up the prefix, one for each set bit of its length: popcount.
    - "online" (Honaker's estimate from below): each of those nodes is averaged with what its descendants say about the
      same sum, 1 / (2 - 2^-h) for a node of height h. Streams with one number per height.
    - "full" (Honaker's estimate from all nodes): A C^+, the least-squares estimate once the run is over. Here `matrix`
      is the lower-triangular (n, n) factor of the same C^T C, with which the same errors are had at every step.

    Args:
        iterations: the longest run, >= 1; fewer steps use the tree of fewer steps.
        decoder: how prefix sums are estimated.
        restart_every: start a new tree after so many steps; the old one's total is carried over. None: never.
        completion: fill up a tree with steps of zeros before a restart, so that its total is a single node's estimate.

    Raises:
        ValueError: an argument is out of range, or `completion` without restarts.

    Guarantees: the sensitivity is exact for one participation and under `FixedEpoch`; under `MinSep` too, by dynamic
    programming, while max_participations * min_sep^2 <= 5e7 and (max_participations * min_sep)^2 <= 4e9; beyond that it
    is the sum over the heights of the most that each could contribute, an upper bound.

    References: Dwork, Naor, Pitassi and Rothblum (2010); Chan, Shi and Song (2011); Honaker (2015); Kairouz et al.
    (2021), "Practical and Private (Deep) Learning without Sampling or Shuffling", for restarts and completion.

    >>> from dpkit.factorization import MinSep
    >>> tree = Tree(iterations=9)
    >>> round(tree.sensitivity(MinSep(iterations=9, min_sep=4, max_participations=3)) ** 2)
    11
    """

    iterations: int
    decoder: Decoder = "online"
    restart_every: int | None = None
    completion: bool = False

    def __post_init__(self):
        object.__setattr__(self, "iterations", validation.count("iterations", self.iterations, minimum=1))
        if self.decoder not in get_args(Decoder):
            raise ValueError(f'decoder must be "plain", "online" or "full", got {self.decoder!r}')
        if self.restart_every is not None:
            every = validation.count("restart_every", self.restart_every, minimum=1)
            object.__setattr__(self, "restart_every", every)
        elif self.completion:
            raise ValueError("completion=True needs restart_every: a tree is completed before a restart")

    def segments(self, n: int) -> list[Segment]:
        """The trees of a run of n steps. The last is not completed: no restart follows it."""
        if not 1 <= n <= self.iterations:
            raise ValueError(f"n must be between 1 and iterations={self.iterations}, got {n}; make a larger Tree")
        every = self.restart_every or n
        return [
            Segment(start, min(every, n - start), self.completion and start + every < n) for start in range(0, n, every)
        ]

    def matrix(self, n: int) -> Array:
        """C (nodes, n), a row for each node; for the decoder "full" (n, n)."""
        segments, steps = self.segments(dense_size(n)), np.arange(n)
        nodes = _nodes(segments)
        C = np.zeros((len(nodes), n))
        for row, (s, height, block) in enumerate(nodes):
            step = steps - segments[s].start
            C[row] = (step >> height == block) & (step < segments[s].length)
        return lower_factor(C.T @ C) if self.decoder == "full" else C

    def inverse_matrix(self, n: int) -> Array:
        """C^{-1} (n, nodes), a left inverse of C; for the decoder "full" (n, n)."""
        if self.decoder == "full":
            return super().inverse_matrix(n)
        segments = self.segments(dense_size(n))
        nodes, rows = _nodes(segments), collections.defaultdict(list)
        for row, (s, height, _) in enumerate(nodes):
            rows[s, height].append(row)
        prefix, carried = np.zeros((n, len(nodes))), np.zeros(len(nodes))
        for s, segment in enumerate(segments):
            for length in range(1, segment.length + 1):
                noise = prefix[segment.start + length - 1]
                noise += carried
                for height, block in segment.cover(length):
                    for descent in range(1 if self.decoder == "plain" else height + 1):
                        weight = 2.0**-descent * self._node_variance(height)
                        noise[rows[s, height - descent][block << descent : (block + 1) << descent]] += weight
            carried = prefix[segment.start + segment.length - 1]
        return np.diff(prefix, axis=0, prepend=0)

    def form(self, iterations: int | None = None) -> Form:
        n = self.iterations if iterations is None else iterations
        self.segments(n)
        if self.decoder == "full":
            return super().form(n)
        return tree_nodes(n, self.decoder == "online", self.restart_every, self.completion)

    def sensitivity(self, schema: ParticipationSchema) -> float:
        n = schema.iterations
        segments = self.segments(n)
        if schema.max_participations == 1:
            return rounded_up(float(np.max(_depths(segments))))
        if isinstance(schema, FixedEpoch):
            return rounded_up(float(np.max(_epoch_sums(segments, schema))))
        from dpkit.factorization import tree_sensitivity

        return rounded_up(tree_sensitivity.worst_pattern(tuple(segments), schema.min_sep, schema.max_participations))

    def per_query_error(self, workload: Workload, n: int) -> Array:
        """(n,) standard deviations at unit noise; without a matrix for prefix sums, unless the decoder is "full"."""
        if workload != prefix_sum() or self.decoder == "full":
            return super().per_query_error(workload, n)
        variances, carried = [], 0.0
        for segment in self.segments(n):
            lengths = np.arange(1, segment.length + 1)
            own = np.sum([(lengths >> h & 1) * self._node_variance(h) for h in range(segment.height + 1)], axis=0)
            if segment.completed:
                own[-1] = self._node_variance(segment.height)
            variances.append(carried + own)
            carried += own[-1]
        return np.sqrt(np.concatenate(variances))

    def _node_variance(self, height: int) -> float:
        # A node's own noise has variance 1, and the sum of its children's estimates twice theirs.
        return 1.0 if self.decoder == "plain" else 1 / (2 - 2.0**-height)


def _nodes(segments: list[Segment]) -> list[tuple[int, int, int]]:
    """(segment, height, block) of every node, in the order in which the blocks are completed."""
    nodes = [
        (s, height, block)
        for s, segment in enumerate(segments)
        for height in range(segment.height + 1)
        for block in range(segment.blocks(height))
    ]
    return sorted(nodes, key=lambda node: (node[0], (node[2] + 1) << node[1], node[1]))


def _depths(segments: list[Segment]) -> Array:
    """(n,) how many nodes contain each step."""
    return np.concatenate(
        [np.sum([np.arange(s.length) >> h < s.blocks(h) for h in range(s.height + 1)], axis=0) for s in segments]
    ).astype(np.float64)


def _epoch_sums(segments: list[Segment], schema: FixedEpoch) -> Array:
    """(b,) for each first step, the sum over the nodes of the squared number of participations in the node."""
    total = np.zeros(schema.min_sep)
    epochs = np.arange(schema.epochs)[:, None]
    for height in range(max(s.height for s in segments) + 1):
        blocks = [np.arange(s.length) >> height for s in segments]
        counted = np.concatenate([block < s.blocks(height) for block, s in zip(blocks, segments, strict=True)])
        names = np.concatenate([block + s.start for block, s in zip(blocks, segments, strict=True)])
        names = names.reshape(schema.epochs, schema.min_sep)
        is_first = np.ones(names.shape, dtype=bool)
        is_first[1:] = names[1:] != names[:-1]
        # The i-th participation in a node, from 0, enlarges the square of their number by 2 i + 1.
        earlier = epochs - np.maximum.accumulate(np.where(is_first, epochs, 0), axis=0)
        total += np.sum((2 * earlier + 1) * counted.reshape(names.shape), axis=0)
    return total
