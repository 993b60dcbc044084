"""Exact privacy profiles of compositions, in mpmath alone: what the accountants are tested against.

A pair (P, Q) has privacy loss L = log(dP/dQ) under P and the profile delta(e) = E_P[(1 - exp(e - L))_+].
For Re z > 0 the bilateral Laplace transform of (1 - exp(e - l))_+ in e is exp(z l) / (z (z + 1)), hence

    delta(e) = 1 / (2 pi i) * integral of M(z) exp(-z e) / (z (z + 1)) dz,    M(z) = E_P[exp(z L)],

along any path from -i inf to +i inf right of 0, and M of a composition is the product of its parts' M. The path
passes through the saddle point, where the integrand is about as small as delta itself, so nothing cancels; the
trapezoid rule converges geometrically along it. The losses of a subsampled Gaussian come arbitrarily close to an
atom at log(1 - q), whose transform hardly decays along a vertical line, so the path is bent (a hyperbola of slope
`bend`) towards the side where exp(z (loss - e)) shrinks; the Gaussian factors still decay there because they do
whenever |Im z| outgrows |Re z|. Any bend in [0, 1) gives the same integral: 0 is the straight line.

A part is a mapping with "kind", its parameters and "count", as in compositions.json:

- "gaussian": noise_multiplier s. P = N(1, s^2), Q = N(0, s^2).
- "sampled_gaussian": noise_multiplier s, sampling_probability q. With D = (1 - q) N(0, s^2) + q N(1, s^2),
  direction "remove" is P = D, Q = N(0, s^2) and "add" is the reverse.
- "laplace": noise_multiplier b. P = Lap(0, b), Q = Lap(1, b).
- "randomized_response": noise_parameter p, num_buckets k: uniform with probability p, else the true bucket;
  P and Q differ in the true bucket. Composes here with itself only.

Parameters are taken at the exact value of the double they are stored as. Precision is mpmath's `mp.dps`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mpmath import mp, mpc, mpf

DIGITS = 38
Part = Mapping[str, Any]
mp.dps = DIGITS


def gaussian_delta(mu: Any, epsilon: Any) -> mpf:
    """Profile of N(mu, 1) against N(0, 1)."""
    with mp.extradps(80):
        mu, epsilon = mpf(mu), mpf(epsilon)
        return mp.ncdf(mu / 2 - epsilon / mu) - mp.exp(epsilon) * mp.ncdf(-mu / 2 - epsilon / mu)


def sampled_gaussian_step_delta(sigma: Any, q: Any, epsilon: Any, direction: str) -> mpf:
    """Closed-form profile of one Poisson-sampled Gaussian step, 0 < q < 1."""
    with mp.extradps(80):
        sigma, q, epsilon = mpf(sigma), mpf(q), mpf(epsilon)
        sign = 1 if direction == "remove" else -1
        if sign * epsilon <= mp.log1p(-q):
            return -mp.expm1(epsilon) if sign > 0 else mpf(0)
        x = sigma**2 * mp.log((mp.expm1(sign * epsilon) + q) / q) + mpf(1) / 2
        near, far = mp.ncdf(-sign * x / sigma), mp.ncdf(-sign * (x - 1) / sigma)
        if sign > 0:
            return q * far - (mp.expm1(epsilon) + q) * near
        return near * (1 - mp.exp(epsilon) * (1 - q)) - mp.exp(epsilon) * q * far


def sampled_gaussian_two_step_delta(sigma: Any, q: Any, epsilon: Any, direction: str) -> mpf:
    """Profile of two Poisson-sampled Gaussian steps: the closed form of one, averaged over the loss of the other."""
    s, q, epsilon, sign = mpf(sigma), mpf(q), mpf(epsilon), 1 if direction == "remove" else -1

    def integrand(x: mpf) -> mpf:
        ratio = 1 - q + q * mp.exp((2 * x - 1) / (2 * s**2))
        density = mp.npdf(x, 0, s) * (ratio if sign > 0 else 1)
        return density * sampled_gaussian_step_delta(s, q, epsilon - sign * mp.log(ratio), direction)

    low, high = -14 * s, 1 + 14 * s
    edge = mp.exp(sign * epsilon - mp.log1p(-q)) - 1 + q  # beyond it the inner profile takes its other branch
    if sign < 0 and edge <= 0:
        return mpf(0)
    inner = s**2 * mp.log(edge / q) + mpf(1) / 2 if edge > 0 else low
    high = max(high, inner + 14 * s) if sign > 0 else min(high, inner)
    points = sorted({*mp.linspace(low, high, 41), *([inner] if low < inner < high else [])})
    value, error = mp.quad(integrand, points, error=True)
    if error > value * mpf(10) ** -15:
        raise ArithmeticError("the quadrature over the first step's loss did not converge")
    return value


def laplace_delta(scale: Any, count: int, epsilon: Any) -> mpf:
    """Profile of `count` Laplace releases of one scale: the contour integral by residues, exactly.

    M(z)^k = (1 + 2 z)^-k [(1 + z) e^{z/b} + z e^{-(1 + z)/b}]^k expands into terms e^{a_j z} times a rational
    function with poles at 0, -1 and -1/2 (order k); those with a_j > 0 close to the left, the others vanish.
    """
    with mp.extradps(60 + 2 * count):
        b, epsilon, k, half, total = mpf(scale), mpf(epsilon), count, mpf(1) / 2, mpf(0)
        for j in range(k + 1):
            a = (k - 2 * j) / b - epsilon
            if a <= 0:
                break
            # Taylor coefficient of w^(k-1), z = w - 1/2, of (half + w)^(k-j-1) (w - half)^(j-1) e^{a w}
            up = [mp.binomial(k - j - 1, n) * half ** (k - j - 1 - n) for n in range(k)]
            down = [mp.binomial(j - 1, n) * (-half) ** (j - 1 - n) for n in range(k)]
            power = [a**n / mp.factorial(n) for n in range(k)]
            product = [mp.fsum(up[i] * down[n - i] for i in range(n + 1)) for n in range(k)]
            residue = mp.exp(-a / 2) / mpf(2) ** k * mp.fsum(product[n] * power[k - 1 - n] for n in range(k))
            residue += mpf(j == 0)  # the pole at 0; the one at -1 needs j = k, which has a_j < 0
            total += mp.binomial(k, j) * mp.exp(-j / b) * residue
        return total


def randomized_response_delta(noise_parameter: Any, num_buckets: int, count: int, epsilon: Any) -> mpf:
    """Profile of `count` randomized responses of one kind: a sum over how many reports favour P and Q."""
    other = mpf(noise_parameter) / num_buckets
    true, same = 1 - mpf(noise_parameter) + other, (num_buckets - 2) * other
    loss, terms = mp.log(true / other), []
    for favour_p in range(count + 1):
        for favour_q in range(count - favour_p + 1):
            gain = -mp.expm1(mpf(epsilon) - (favour_p - favour_q) * loss)
            if gain > 0:
                rest = count - favour_p - favour_q
                ways = mp.binomial(count, favour_p) * mp.binomial(count - favour_p, favour_q)
                terms.append(ways * true**favour_p * other**favour_q * same**rest * gain)
    return mp.fsum(terms)


@lru_cache(maxsize=64)
def _log_ratios(sigma: mpf, q: mpf, step: float, first: int, last: int, precision: int) -> list[tuple[mpf, mpf]]:
    """(log density, log likelihood ratio) of a sampled Gaussian at the grid points k * step, first <= k <= last."""
    with mp.workprec(precision):
        points = [mpf(k) * step for k in range(first, last + 1)]
        return [(-(x**2) / (2 * sigma**2), mp.log(1 - q + q * mp.exp((2 * x - 1) / (2 * sigma**2)))) for x in points]


def _power_mean(sigma: mpf, q: mpf, order: mpc) -> mpc:
    """log E[r^order], r the likelihood ratio of a sampled Gaussian to N(0, s^2), over X ~ N(0, s^2).

    Trapezoid rule: r(x) is analytic and non-zero for |Im x| < pi s^2, so at step h the error is below
    exp(-2 pi y / h) times the integrand's size on the line Im x = y, for any such y; h follows from that.
    Where the sum cancels, it is taken again with as many more digits.
    """
    alpha, tau, s = float(order.real), abs(float(order.imag)), float(sigma)
    guard, wanted = 0, 0.68 * mp.prec * math.log(2)
    while True:
        with mp.extraprec(guard):
            nats, step = mp.prec * math.log(2), 0.0
            for part in range(1, 32):
                y = part / 32 * math.pi * s**2
                size = y**2 / (2 * s**2) + tau * y / s**2 - max(0.0, -alpha) * math.log(math.cos(y / (2 * s**2)))
                step = max(step, 2 * math.pi * y / (nats + size))
            step = 2 ** (math.floor(2 * math.log2(step)) / 2)  # few distinct grids
            low, high, reach = min(0.0, alpha), max(0.0, alpha), (2 * nats) ** 0.5 * s
            for _ in range(60 if alpha < 0 else 0):  # the integrand is log-concave: centre on its mode
                mode = (low + high) / 2
                odds = (1 - q) / q * mp.exp((1 - 2 * mpf(mode)) / (2 * sigma**2))
                low, high = (low, mode) if mode > alpha / (1 + odds) else (mode, high)
            first, last = math.floor((low - reach) / s) - 1, math.ceil((high + reach) / s) + 1
            if alpha > 0:  # its modes are at least as wide as s: look for them
                rough = _log_ratios(sigma, q, s / 4, 4 * first, 4 * last, 53)
                rough_sizes = [log_density + alpha * log_ratio for log_density, log_ratio in rough]
                level = max(rough_sizes) - nats - 5
                first, last = (
                    first + (next(k for k, size in enumerate(run) if size > level) // 4 - 2) * sign
                    for first, sign, run in ((first, 1, rough_sizes), (last, -1, rough_sizes[::-1]))
                )
            first, last = int(first * s / step), int(last * s / step)
            grid = _log_ratios(sigma, q, step, first, last, mp.prec)
            sizes = [log_density + order.real * log_ratio for log_density, log_ratio in grid]
            top = max(sizes)
            kept = [(size, row[1]) for size, row in zip(sizes, grid, strict=True) if size > top - nats - 5]
            total = mp.fsum(mp.exp(mpc(size - top, order.imag * log_ratio)) for size, log_ratio in kept)
            lost = float(mp.log(len(kept) / abs(total))) if total else nats
            if nats - lost > wanted:
                return mp.log(total * step / (sigma * mp.sqrt(2 * mp.pi))) + top
        if guard > 1500:
            raise ArithmeticError("the moment generating function cancels beyond the available precision")
        guard += int(1.5 * (wanted - nats + lost)) + 16


def log_mgf(part: Part, z: Any, direction: str) -> mpc:
    """log E_P[exp(z L)] of a part, all its repetitions included."""
    z, kind, count = mpc(z), part["kind"], part["count"]
    if kind == "gaussian" or (kind == "sampled_gaussian" and part["sampling_probability"] == 1):
        return count * z * (z + 1) / (2 * mpf(part["noise_multiplier"]) ** 2)
    if kind == "sampled_gaussian":
        order = 1 + z if direction == "remove" else -z
        return count * _power_mean(mpf(part["noise_multiplier"]), mpf(part["sampling_probability"]), order)
    if kind == "laplace":
        b = mpf(part["noise_multiplier"])
        return count * mp.log(((1 + z) * mp.exp(z / b) + z * mp.exp(-(1 + z) / b)) / (1 + 2 * z))
    raise ValueError(f"no contour integral for {kind!r}")


def _max_loss(part: Part, direction: str) -> mpf:
    """Supremum of the loss of a part, all its repetitions included."""
    if part["kind"] == "laplace":
        return part["count"] / mpf(part["noise_multiplier"])
    q = mpf(part.get("sampling_probability", 1))
    return -part["count"] * mp.log1p(-q) if direction == "add" and q < 1 else mp.inf


class Contour:
    """The inversion integral on one path, reusable for every epsilon near the one it was made for."""

    def __init__(self, parts: Sequence[Part], direction: str, saddle: Any, epsilon: Any, bend: float = 0.3) -> None:
        self.parts, self.direction, self.saddle, self.bend = parts, direction, mpf(saddle), mpf(bend)
        self.nodes: list[tuple[mpc, mpc]] = []  # z, log of M(z) z'(t) / (z (z + 1))
        size = -mp.re(self._node(mpf(0))[1] - self.saddle * epsilon)
        step, self.depth = 2 * mp.pi / (max(size, 0) + 25), 55
        fine = self._fill(step, epsilon)
        self.depth += max(0, -size - mp.log(abs(fine)))  # where the sum cancels, follow the integrand further
        for halvings in range(1, 9):
            coarse, fine = fine, self._fill(step / 2**halvings, epsilon)
            self.estimate = abs(coarse / fine - 1)  # of the coarse sum; the fine one has about its square
            if self.estimate < mpf(10) ** -9:
                return
        raise ArithmeticError(f"the contour integral did not converge: {mp.nstr(self.estimate, 3)}")

    def _node(self, t: mpf) -> tuple[mpc, mpc]:
        c, bend, side = self.saddle, self.bend, 1 if self.direction == "remove" else -1
        z = c + c * mpc(side * (mp.cosh(bend * t) - 1), mp.sinh(bend * t) / bend if bend else t)
        slope = c * mpc(side * bend * mp.sinh(bend * t), mp.cosh(bend * t))
        return z, sum(log_mgf(part, z, self.direction) for part in self.parts) + mp.log(slope / (z * (z + 1)))

    def _fill(self, step: mpf, epsilon: Any, limit: int = 2000) -> mpf:
        """Extend or refine the nodes to this step, until the integrand has died out, and sum."""
        old, self.nodes, self.step, quiet = self.nodes, [], step, 0
        while quiet < 6:
            k = len(self.nodes)
            if k > limit:
                raise ArithmeticError("the integrand does not decay along the contour")
            known = k % 2 == 0 and k // 2 < len(old)
            self.nodes.append(old[k // 2] if known else self._node(k * step))
            first, last = (mp.re(log - z * epsilon) for z, log in (self.nodes[0], self.nodes[-1]))
            quiet = quiet + (3 if last < first - self.depth - 15 else 1) if last < first - self.depth else 0
        return self.delta(epsilon)

    def delta(self, epsilon: Any) -> mpf:
        values = [mp.im(mp.exp(log - z * epsilon)) for z, log in self.nodes]
        return self.step / mp.pi * (mp.fsum(values) - values[0] / 2)

    def epsilon(self, delta: Any, start: Any) -> mpf:
        def excess(epsilon: mpf) -> mpf:
            return mp.log(self.delta(epsilon) / mpf(delta))

        second = start + min(mpf(1), abs(excess(start))) / self.saddle + 1e-9
        return mp.findroot(excess, (start, second), tol=1e-28)


def _search_saddle(too_low: Callable[[mpf], bool]) -> mpf:
    """Bisect for the contour's abscissa to a twentieth, which is plenty: any abscissa gives the same integral."""
    high = mpf(1)
    while too_low(high):
        high *= 2
    low = high / 2
    while not too_low(low):
        low, high = low / 2, low
    while high / low > 1.05:
        middle = mp.sqrt(low * high)
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return low


def _derivatives(parts: Sequence[Part], direction: str, c: mpf) -> tuple[mpf, mpf, mpf]:
    """Value, slope and curvature at real c > 0 of the log of the integrand, without its epsilon: convex in c."""
    h = c / 1000
    mgfs = (sum(log_mgf(part, x, direction) for part in parts) for x in (c - h, c, c + h))
    below, here, above = (mp.re(log) - mp.log(x * (x + 1)) for log, x in zip(mgfs, (c - h, c, c + h), strict=True))
    return here, (above - below) / (2 * h), (above - 2 * here + below) / h**2


def saddle_of_epsilon(parts: Sequence[Part], direction: str, epsilon: Any) -> mpf:
    """Where the integrand is least on the positive axis."""
    with mp.workdps(20):
        return _search_saddle(lambda c: _derivatives(parts, direction, c)[1] < epsilon)


def saddle_of_delta(parts: Sequence[Part], direction: str, delta: Any) -> tuple[mpf, mpf]:
    """The saddle point whose leading-order delta is the given one, and its epsilon: where to start an inversion."""

    def too_low(c: mpf) -> bool:
        value, slope, curvature = _derivatives(parts, direction, c)
        return value - c * slope - mp.log(2 * mp.pi * curvature) / 2 > mp.log(mpf(delta))

    with mp.workdps(20):
        c = _search_saddle(too_low)
        return c, _derivatives(parts, direction, c)[1]


def closed_form(parts: Sequence[Part], direction: str) -> Callable[[Any], mpf] | None:
    """The profile, where it needs no contour integral."""
    if all(part["kind"] == "gaussian" or part.get("sampling_probability") == 1 for part in parts):
        mu = mp.sqrt(mp.fsum(part["count"] / mpf(part["noise_multiplier"]) ** 2 for part in parts))
        return lambda epsilon: gaussian_delta(mu, epsilon)
    part = parts[0]
    if len(parts) > 1 or (part["kind"] == "sampled_gaussian" and part["count"] > 2):
        return None
    if part["kind"] == "laplace":
        return lambda epsilon: laplace_delta(part["noise_multiplier"], part["count"], epsilon)
    if part["kind"] == "randomized_response":
        arguments = part["noise_parameter"], part["num_buckets"], part["count"]
        return lambda epsilon: randomized_response_delta(*arguments, epsilon)
    one_or_two = sampled_gaussian_step_delta if part["count"] == 1 else sampled_gaussian_two_step_delta
    arguments = part["noise_multiplier"], part["sampling_probability"]
    return lambda epsilon: one_or_two(*arguments, epsilon, direction)


def mixed_delta(
    parts: Sequence[Part], epsilon: Any, direction: str = "remove", bend: float = 0.3, lead: float = 0.25
) -> mpf:
    """Profile of a composition; `bend` and `lead` choose the path and must not matter.

    The path starts by the fraction `lead` before the saddle point (less, in very far tails): the exp(z e) delta(e)
    that the trapezoid rule aliases fades faster with e there, so that fewer nodes do.
    """
    profile = closed_form(parts, direction)
    if profile:
        return profile(epsilon)
    if epsilon >= mp.fsum(_max_loss(part, direction) for part in parts):
        return mpf(0)
    saddle = saddle_of_epsilon(parts, direction, epsilon)
    size = abs(saddle * epsilon - _derivatives(parts, direction, saddle)[0])
    return Contour(parts, direction, saddle * (1 - lead * min(1, 60 / size)), epsilon, bend).delta(epsilon)


def sampled_gaussian_delta(sigma: float, q: float, count: int, epsilon: Any, direction: str = "remove") -> mpf:
    """Profile of `count` Poisson-sampled Gaussians."""
    part = {"kind": "sampled_gaussian", "noise_multiplier": sigma, "sampling_probability": q, "count": count}
    return mixed_delta([part], epsilon, direction)


def epsilon_of(delta_function: Callable[[mpf], mpf], delta: Any, guess: Any = 1, tolerance: float = 1e-25) -> mpf:
    """Solve delta_function(epsilon) = delta for a decreasing function: bracket, then regula falsi on log delta."""
    low, high, target = mpf(0), mpf(guess), mp.log(mpf(delta))

    def excess(epsilon: mpf) -> mpf:
        return mp.log(max(delta_function(epsilon), mpf(10) ** -100000)) - target

    if excess(low) <= 0:
        return low
    while excess(high) > 0:
        low, high = high, 2 * high
    return mp.findroot(excess, (low, high), solver="anderson", tol=tolerance, verify=False, maxsteps=500)


def mixed_epsilon(parts: Sequence[Part], delta: Any, direction: str = "remove", bend: float = 0.3) -> mpf:
    """Epsilon of a composition at a delta."""
    profile = closed_form(parts, direction)
    if profile:
        return epsilon_of(profile, delta)
    saddle, epsilon = saddle_of_delta(parts, direction, delta)
    while True:
        start, epsilon = epsilon, Contour(parts, direction, 0.75 * saddle, epsilon, bend).epsilon(delta, epsilon)
        if abs(epsilon - start) < 1 / saddle:
            return epsilon
        saddle = saddle_of_epsilon(parts, direction, epsilon)  # too far for this contour: make one there
