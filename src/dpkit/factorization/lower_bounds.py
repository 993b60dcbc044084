"""Certificates for banded strategies: what no member of a family falls below, from the gradients at a few of them."""

import collections
import dataclasses

import numpy as np
from scipy import linalg

from dpkit.factorization.column_norms import NormSet
from dpkit.factorization.values import Array

_KEPT = 12
_RIDGE = 1e-10


@dataclasses.dataclass(frozen=True)
class Cut:
    """A lower bound 2 mean + <gradient, X'> on f(X') = sum_t w_t Var_t for every X' = C^T C of the family.

    For weights w >= 0 that sum to 1, f(X) = sum_t w_t (A X^-1 A^T)_tt is convex in X and homogeneous of degree -1, so
    <G, X> = -f(X) for its gradient G at X, and f(X') >= f(X) + <G, X' - X> = 2 f(X) + <G, X'>. As f is at most the
    maximum of the Var_t, and their mean for uniform w, sums of cuts with shares >= 0 that add up to 1 bound these two
    as well, whatever the weights that the single cuts were made with.

    Args:
        mean: f(X).
        gradient: (n, num_bands), the lower band of G. X' has no entries outside of the band.
    """

    mean: float
    gradient: Array

    def least(self, norms: NormSet) -> float:
        """The least value of the bound over the family.

        X' has a diagonal d' in the norm set and |X'_ij| <= sqrt(d'_i d'_j) <= (d'_i + d'_j) / 2, as it is positive
        semidefinite. So with r_i = -G_ii + sum_{j != i} |G_ij|, where -G = X^-1 A^T diag(w) A X^-1 has no negative
        diagonal entry, -<G, X'> <= r.d' <= the maximum of r.d' over the norm set.
        """
        off = np.abs(self.gradient[:, 1:])
        rows = np.sum(off, axis=1) - self.gradient[:, 0]
        for j in range(1, self.gradient.shape[1]):
            rows[:-j] += off[j:, j - 1]
        return 2 * self.mean - norms.largest(rows)

    def residuals(self, norms: NormSet) -> tuple[float, float]:
        """How far `least` is below `mean`, relative to it, and how far were all off-diagonal gradients zero."""
        return 1 - self.least(norms) / self.mean, norms.largest(-self.gradient[:, 0]) / self.mean - 1


class Cuts:
    """The cuts at the last points of a search, and their best mixture.

    Off-diagonal gradients vanish at the optimum only, and change their signs from step to step on the way there: a
    mixture bounds several times better than the last cut alone.
    """

    def __init__(self, norms: NormSet):
        self.norms, self._cuts = norms, collections.deque[Cut](maxlen=_KEPT)

    def add(self, cut: Cut) -> None:
        self._cuts.append(cut)

    def least(self) -> float:
        """What the last cut proves, or the mixture of least squared off-diagonal gradients; 0 if neither does."""
        cuts = list(self._cuts)
        offs = [cut.gradient[:, 1:] for cut in cuts]
        products = np.array([[np.einsum("ij,ij", a, b) for b in offs] for a in offs])
        shares = _least_square_shares(products)
        gradient = sum(share * cut.gradient for share, cut in zip(shares, cuts, strict=True))
        mixture = Cut(float(shares @ [cut.mean for cut in cuts]), np.asarray(gradient))
        return max(0.0, cuts[-1].least(self.norms), mixture.least(self.norms))


def _least_square_shares(products: Array) -> Array:
    """Shares >= 0, of sum 1, for which shares @ products @ shares is small; any are valid, these only have to be good.

    They are the least on their support, which is found by leaving out the most negative one until there is none.
    """
    count = len(products)
    ridge = _RIDGE * np.trace(products) / count or 1.0
    kept = np.arange(count)
    while True:
        within = products[np.ix_(kept, kept)] + ridge * np.eye(len(kept))
        found = linalg.solve(within, np.ones(len(kept)), assume_a="pos")
        if np.min(found) >= 0:
            shares = np.zeros(count)
            shares[kept] = found / np.sum(found)
            return shares
        kept = np.delete(kept, np.argmin(found))
