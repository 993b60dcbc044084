"""Dominating pairs and Renyi divergences in mpmath alone, written from their definitions."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from mpmath import ctx_mp

from dpkit.mechanisms import DominatingPair, FinitePair, FixedSizePair, GaussianPair, LaplacePair, SampledPair
from dpkit.mechanisms.discrete_gaussian import DiscreteGaussianLaw
from dpkit.mechanisms.lattice_pair import IntegerLaw, LatticePair
from dpkit.mechanisms.mixture_of_gaussians import MixturePair
from dpkit.mechanisms.replaced_sample import ReplacedSamplePair
from dpkit.mechanisms.skellam import SkellamLaw

mp = ctx_mp.MPContext()
mp.dps = 60
"""A context of its own, so that no other test changes its precision."""

Tails = Callable[[Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Exact:
    """`sf(loss)`: P and Q beyond a loss. `below(loss)`: P and Q at or below it."""

    sf: Tails
    below: Tails

    def delta(self, epsilon: Any) -> Any:
        epsilon = mp.mpf(epsilon)
        if epsilon < 0:  # P - e^epsilon Q = 1 - e^epsilon + what Q has more of below
            p, q = self.below(epsilon)
            return -mp.expm1(epsilon) + mp.exp(epsilon) * q - p
        p, q = self.sf(epsilon)
        return p - mp.exp(epsilon) * q

    def advantage(self, loss: Any) -> Any:
        loss = mp.mpf(loss)
        p, q = self.sf(loss)
        if p + q < 1:
            return p - q
        p, q = self.below(loss)
        return q - p


def exact(pair: DominatingPair) -> Exact:
    """The pair with the same parameters, each taken as the exact value of its float."""
    match pair:
        case GaussianPair():
            return _gaussian(mp.mpf(pair.mu))
        case LaplacePair():
            return _laplace(mp.mpf(pair.pure))
        case FinitePair():
            masses = [(mp.mpf(x), mp.mpf(p)) for x, p in zip(pair.losses, pair.probabilities, strict=True)]
            return finite([(x, p, p * mp.exp(-x)) for x, p in masses])
        case SampledPair():
            return sampled(exact(pair.base), mp.mpf(pair.sampling_probability), pair.adding)
        case FixedSizePair():
            return fixed_size(exact(pair.base), mp.mpf(pair.ratio))
        case MixturePair():
            return mixture([mp.mpf(c) for c in pair.locations], [mp.mpf(w) for w in pair.weights], pair.adding)
        case ReplacedSamplePair():
            return replaced_sample(mp.mpf(pair.mu), mp.mpf(pair.sampling_probability))
        case LatticePair():
            return lattice(mass(pair.law), pair.shift)
    raise TypeError(pair)


def mass(law: IntegerLaw) -> Callable[[int], Any]:
    """The probabilities of an integer law."""
    match law:
        case DiscreteGaussianLaw():
            variance = mp.mpf(law.sigma) ** 2
            total = mp.jtheta(3, 0, mp.exp(-1 / (2 * variance)))
            return lambda k: mp.exp(-(mp.mpf(k) ** 2) / (2 * variance)) / total
        case SkellamLaw():
            variance = mp.mpf(law.variance)
            return functools.cache(lambda k: mp.exp(-variance) * mp.besseli(abs(k), variance))
    raise TypeError(law)


def lattice(f: Callable[[int], Any], shift: int) -> Exact:
    """X + shift against X, the loss log f(y - shift)/f(y) increasing in y."""

    def last_at_or_below(loss: Any) -> int:
        def fits(y: int) -> bool:
            return mp.log(f(y - shift) / f(y)) <= loss

        width = 1
        while fits(width) or not fits(-width):
            width *= 2
        low, high = -width, width
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def tail(start: int, step: int) -> Any:
        total, k = mp.zero, start
        while (term := f(k)) > total * mp.mpf(10) ** -45 or step * k < 0:
            total, k = total + term, k + step
        return total

    def sf(loss: Any) -> tuple[Any, Any]:
        first = last_at_or_below(loss) + 1
        return tail(first - shift, 1), tail(first, 1)

    def below(loss: Any) -> tuple[Any, Any]:
        last = last_at_or_below(loss)
        return tail(last - shift, -1), tail(last, -1)

    return Exact(sf, below)


def replaced_sample(mu: Any, q: Any) -> Exact:
    """(1-q) N(0, 1) + q N(mu, 1) against (1-q) N(0, 1) + q N(-mu, 1); the threshold solves a quadratic in e^{mu x}."""

    def tails(loss: Any, sign: int) -> tuple[Any, Any]:
        a, ratio = q * mp.exp(-mu * mu / 2), mp.exp(loss)
        middle = (1 - q) * (ratio - 1)
        root = mp.sqrt(middle**2 + 4 * a * a * ratio)
        # Of the two forms of the positive root, the one that does not cancel.
        x = mp.log((middle + root) / (2 * a) if middle > 0 else 2 * a * ratio / (root - middle)) / mu
        still = (1 - q) * mp.ncdf(sign * x)
        return still + q * mp.ncdf(sign * (x - mu)), still + q * mp.ncdf(sign * (x + mu))

    return Exact(lambda loss: tails(loss, -1), lambda loss: tails(loss, 1))


def _gaussian(mu: Any) -> Exact:
    return Exact(
        lambda x: (mp.ncdf(mu / 2 - x / mu), mp.ncdf(-mu / 2 - x / mu)),
        lambda x: (mp.ncdf(x / mu - mu / 2), mp.ncdf(x / mu + mu / 2)),
    )


def _laplace(pure: Any) -> Exact:
    """Noise around `pure` against noise around 0: the loss exceeds x where the output exceeds (x + pure) / 2."""

    def cdf(y: Any) -> Any:
        return mp.exp(y) / 2 if y < 0 else 1 - mp.exp(-y) / 2

    def sf(x: Any) -> tuple[Any, Any]:
        if x >= pure or x < -pure:
            return (mp.zero, mp.zero) if x >= pure else (mp.one, mp.one)
        return cdf((pure - x) / 2), cdf(-(x + pure) / 2)

    def below(x: Any) -> tuple[Any, Any]:
        if x >= pure or x < -pure:
            return (mp.one, mp.one) if x >= pure else (mp.zero, mp.zero)
        return cdf((x - pure) / 2), cdf((x + pure) / 2)

    return Exact(sf, below)


def finite(outcomes: Sequence[tuple[Any, Any, Any]]) -> Exact:
    """Outcomes of (loss, P, Q)."""

    def total(chosen: list[tuple[Any, Any, Any]]) -> tuple[Any, Any]:
        return mp.fsum(p for _, p, _ in chosen), mp.fsum(q for _, _, q in chosen)

    return Exact(
        lambda x: total([o for o in outcomes if o[0] > x]), lambda x: total([o for o in outcomes if o[0] <= x])
    )


def sampled(base: Exact, q: Any, adding: bool) -> Exact:
    """((1-q)Q + qP, Q), or (P, (1-q)P + qQ) when `adding`, from the base pair (P, Q)."""

    def threshold(x: Any) -> Any:
        argument = 1 + mp.expm1(-x if adding else x) / q
        inner = mp.log(argument) if argument > 0 else -mp.inf
        return -inner if adding else inner

    def mix(p: Any, q_: Any) -> tuple[Any, Any]:
        return (p, (1 - q) * p + q * q_) if adding else ((1 - q) * q_ + q * p, q_)

    everything, nothing = (mp.one, mp.one), (mp.zero, mp.zero)

    def sf(x: Any) -> tuple[Any, Any]:
        t = threshold(x)
        return mix(*base.sf(t)) if mp.isfinite(t) else nothing if t > 0 else everything

    def below(x: Any) -> tuple[Any, Any]:
        t = threshold(x)
        return mix(*base.below(t)) if mp.isfinite(t) else everything if t > 0 else nothing

    return Exact(sf, below)


def fixed_size(base: Exact, ratio: Any) -> Exact:
    """((1-w)Q + wP, Q) for losses of at least 0, (P, (1-w)P + wQ) below; what is at 0 is the rest of either."""
    above, below = sampled(base, ratio, adding=False), sampled(base, ratio, adding=True)

    def at_most(x: Any) -> tuple[Any, Any]:
        if x < 0:
            return below.below(x)
        p, q = above.sf(x)
        return 1 - p, 1 - q

    return Exact(lambda x: above.sf(x) if x >= 0 else below.sf(x), at_most)


def log_ratio(x: Any, locations: Sequence[Any], weights: Sequence[Any]) -> Any:
    """log dP/dQ at x for P = sum_j w_j N(c_j, 1), Q = N(0, 1)."""
    return mp.log(mp.fsum(w * mp.exp(c * x - c * c / 2) for c, w in zip(locations, weights, strict=True)))


def mixture(locations: Sequence[Any], weights: Sequence[Any], adding: bool) -> Exact:
    """The weights are taken to sum to 1 exactly: the largest one gives way."""
    top = max(range(len(weights)), key=lambda j: weights[j])
    weights = [1 - mp.fsum(weights[:top] + weights[top + 1 :]) if j == top else w for j, w in enumerate(weights)]
    still = mp.fsum(w for c, w in zip(locations, weights, strict=True) if c == 0)

    def threshold(loss: Any) -> Any:
        if still and loss <= mp.log(still):
            return -mp.inf
        x = mp.one
        while log_ratio(x, locations, weights) < loss:
            x *= 2
        # log dP/dQ is convex in x, so Newton's method from the right never overshoots.
        for _ in range(400):
            terms = [w * mp.exp(c * x - c * c / 2) for c, w in zip(locations, weights, strict=True)]
            total = mp.fsum(terms)
            slope = mp.fsum(c * t for c, t in zip(locations, terms, strict=True)) / total
            move = (mp.log(total) - loss) / slope
            x -= move
            if abs(move) < mp.mpf(10) ** -35 * (1 + abs(x)):
                return x
        raise ArithmeticError(f"no threshold found at loss {loss}")

    def tails(x: Any, side: int) -> tuple[Any, Any]:
        p = mp.fsum(w * mp.ncdf(side * (x - c)) for c, w in zip(locations, weights, strict=True))
        return p, mp.ncdf(side * x)

    def sf(loss: Any) -> tuple[Any, Any]:
        return tails(threshold(-loss), 1)[::-1] if adding else tails(threshold(loss), -1)

    def below(loss: Any) -> tuple[Any, Any]:
        return tails(threshold(-loss), -1)[::-1] if adding else tails(threshold(loss), 1)

    return Exact(sf, below)


def finite_renyi(order: Any, outcomes: Sequence[tuple[Any, Any]]) -> Any:
    """D_order of outcomes with probabilities (P, Q)."""
    order = mp.mpf(order)
    return mp.log(mp.fsum(p**order * q ** (1 - order) for p, q in outcomes)) / (order - 1)


def laplace_renyi(order: Any, pure: Any) -> Any:
    a, pure = mp.mpf(order), mp.mpf(pure)
    grow = a / (2 * a - 1) * mp.exp((a - 1) * pure) + (a - 1) / (2 * a - 1) * mp.exp(-a * pure)
    return mp.log(grow) / (a - 1)


def sampled_gaussian_renyi(order: int, sigma: Any, q: Any) -> Any:
    """D_order((1-q)N(0, s^2) + qN(1, s^2) || N(0, s^2)) for integer orders: a binomial sum, without cancellation."""
    sigma, q = mp.mpf(sigma), mp.mpf(q)
    terms = [
        mp.binomial(order, k) * (1 - q) ** (order - k) * q**k * mp.exp(mp.mpf(k * (k - 1)) / (2 * sigma**2))
        for k in range(order + 1)
    ]
    return mp.log(mp.fsum(terms)) / (order - 1)


def mixture_renyi(order: Any, locations: Sequence[Any], weights: Sequence[Any], reverse: bool = False) -> Any:
    """D_order(P||Q), or D_order(Q||P) with `reverse`, for P = sum_j w_j N(c_j, 1), Q = N(0, 1), c_j >= 0.

    Trapezoid rule: the integrand is analytic for |Im x| < pi / (2 max c) (there every term of the ratio has a positive
    real part), so the error is below exp(-2 pi width / step) times its size on the edge of that strip.
    """
    order = mp.mpf(order)
    locations, weights = [mp.mpf(c) for c in locations], [mp.mpf(w) for w in weights]
    power, top = (1 - order if reverse else order), max(locations)
    nats = 45 * mp.log(10)
    width = min(mp.pi / (2 * top) * mp.mpf("0.9"), mp.sqrt(nats))
    step = 2 * mp.pi * width / (nats + width**2 / 2 + abs(power) * 3)
    reach = mp.sqrt(2 * nats) + 1
    low, high = -reach + min(0, power) * top, reach + max(0, power) * top
    first, last = int(low / step), int(high / step)
    total = mp.fsum(
        mp.exp(power * log_ratio(k * step, locations, weights) - (k * step) ** 2 / 2) for k in range(first, last + 1)
    )
    return mp.log(total * step / mp.sqrt(2 * mp.pi)) / (order - 1)
