"""The banded strategy of least error: a quasi-Newton method in linear time, and a certificate of how good it is.

With A^-1 banded, W = C A^-1 is banded too, and the squared row norms of A C^-1 = W^-1 are the variances of an
autoregression (`dpkit.numerics.autoregression`). The unknowns are the columns of C, normalised, and what their norms
are made of (`NormSet`); every value of them is feasible, so nothing but the error is left to minimise.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from dpkit.factorization.banded import Banded, verify
from dpkit.factorization.banded_preconditioner import preconditioner
from dpkit.factorization.banded_problem import Problem, Trial, toeplitz_start
from dpkit.factorization.coarsening import halved
from dpkit.factorization.column_norms import ColumnNorms, UnitNorms, norm_set
from dpkit.factorization.lower_bounds import Cuts
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.quasi_newton import descend
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.workload import Workload
from dpkit.numerics import autoregression as ar

TOLERANCES = {"rmse": 1e-4, "max_error": 1e-3}
"""Certified relative gap, by objective, at which a search has converged."""
_MAX_ITERATIONS = 8_000
_CUT_EVERY = 2
_CERTIFY_EVERY = 10
_JOINT_ITERATIONS = 100
_SMOOTH_ORDER = 32.0
_STAGE_ITERATIONS = 60
_COARSE_GAP = 2e-3
_COARSE_ITERATIONS = 800


def _search(problem: Problem, trial: Trial) -> Iterator[tuple[Trial, float]]:
    """Yields every trial with a lower bound on the loss of all members of the family; ends where no step helps.

    Norms and columns move together, then the columns alone, in turns: the norms settle slowly, and the bound is
    sensitive to off-diagonal gradients, which do not vanish while the norms still move. For the max error the weights
    that the rows have in the gradient become the next prior after every stage: the method of multipliers with an
    entropic distance.
    """
    cuts, least = Cuts(problem.norms), 0.0
    precondition = preconditioner(problem, trial.x)
    for number in itertools.count(1):
        before = trial
        for fixed_norms in (False,) if isinstance(problem.norms, UnitNorms) else (False, True):
            problem = dataclasses.replace(problem, fixed_norms=fixed_norms)
            start = problem.evaluate(trial.x) or trial
            for count, trial in enumerate(descend(problem.evaluate, start, precondition), 1):
                if count % _CUT_EVERY == 0:
                    cuts.add(trial.cut())
                if count % _CERTIFY_EVERY == 0:
                    least = max(least, cuts.least())
                yield trial, least
                if count % _CERTIFY_EVERY == 0 and _stage_is_over(problem, trial, count, number):
                    break
        cuts.add(trial.cut())
        least = max(least, cuts.least())
        yield trial, least
        if problem.order > 1:
            prior, problem = problem.prior, problem.with_prior(trial.weights)
            trial = problem.evaluate(trial.x) or trial
            if np.sum(np.abs(problem.prior - prior)) > 1e-9:
                continue
        if before.value - trial.value < 1e-14:
            return


def _stage_is_over(problem: Problem, trial: Trial, count: int, number: int) -> bool:
    if problem.order == 1 and isinstance(problem.norms, UnitNorms):
        return False
    cut = trial.cut()
    residual, diagonal = cut.residuals(problem.norms)
    if problem.order > 1:
        apart = 1 - cut.mean / problem.loss(trial)
        return residual < (4 if count >= _STAGE_ITERATIONS else 0.5) * apart or count >= 5 * _STAGE_ITERATIONS
    return residual < 1.5 * abs(diagonal) if problem.fixed_norms else count >= number * _JOINT_ITERATIONS


def _fresh_search(
    column_norms: ColumnNorms, problem: Problem, schema: ParticipationSchema, trial: Trial
) -> Iterator[tuple[Trial, float]]:
    """A search from columns that are all alike or, for the max error, from the solution for half the steps.

    The mean weighs all rows alike, and columns settle by looking at those nearby. Which rows have the largest error,
    and what early rows have to spare for them, is settled over the whole length of the run instead, which takes few
    steps in a short run and many in a long one. While the short run is searched, `trial` is still the best there is.
    """
    yield trial, 0.0
    coarsening = halved(schema, problem.num_bands) if problem.order > 1 else None
    if coarsening is None:
        yield from _search(problem, problem.evaluate(toeplitz_start(problem)) or trial)
        return
    norms, m = norm_set(column_norms, coarsening.schema), coarsening.schema.iterations
    coarse = dataclasses.replace(
        problem, inverse=problem.inverse[coarsening.steps], norms=norms, prior=np.full(m, 1 / m)
    )
    if (first := coarse.evaluate(coarse.square_root())) is None:
        raise ValueError("workload has errors beyond floating point in a part of these iterations; rescale it")
    found, count = first, 0
    for found, least in _fresh_search(column_norms, coarse, coarsening.schema, first):
        yield trial, 0.0
        count += found is not first
        if count == _COARSE_ITERATIONS or least > (1 - _COARSE_GAP) * coarse.loss(found):
            break
    squares = norms.squared_norms(found.x[m * problem.num_bands :])
    columns = coarsening.prolong(ar.columns_from_rows(found.C) / np.sqrt(squares)[:, None])
    x = problem.from_columns(columns, coarsening.prolong(squares))
    problem = problem.with_prior(coarsening.prolong_weights(found.weights))
    yield from _search(problem, problem.evaluate(x) or trial)


def solve(
    strategy: Banded,
    workload: Workload,
    schema: ParticipationSchema,
    objective: str,
    callback: Callable[[Progress], object] | None,
) -> Solution:
    """See `optimize`. O(n (num_bands + bands of A^-1)^2) time per step of the search, O(n num_bands) memory.

    Raises:
        ValueError: num_bands > min_sep while units take part more than once, or A is singular.
    """
    began = time.perf_counter()
    problem = _problem(strategy, workload, schema, objective)
    rows = None if strategy.coefficients is None else strategy.rows(schema.iterations)[:, : problem.num_bands]
    best = problem.evaluate(problem.square_root() if rows is None else problem.from_rows(rows))
    if best is None:
        raise ValueError(
            "workload has errors beyond floating point for these iterations; rescale or shorten it"
            if rows is None
            else "the error of the strategy to start from is not finite; start from another one"
        )
    search = _search(problem, best) if rows is not None else _fresh_search(strategy.column_norms, problem, schema, best)
    gap, least, iterations, tolerance = 1.0, 0.0, 0, TOLERANCES[objective]
    message = "no step lowers the error any more in floating point"
    try:
        for iterations, (trial, bound) in enumerate(search):
            best = min(best, trial, key=problem.loss)
            least = max(least, bound)
            gap = max(0.0, 1 - least / problem.loss(best))
            if gap <= tolerance:
                message = f"certified within a relative {tolerance:g} of the least squared {objective}"
                break
            if iterations == _MAX_ITERATIONS:
                message = f"stopped after {_MAX_ITERATIONS} iterations; optimize the result to go on"
                break
            if callback and iterations % _CERTIFY_EVERY == 0:
                error = math.sqrt(schema.max_participations * problem.loss(best))
                if callback(Progress(iterations, error, gap, time.perf_counter() - began)):
                    message = "stopped by the callback; optimize the result to go on"
                    break
    except KeyboardInterrupt:
        message = "interrupted; optimize the result to go on"
    found = _strategy(strategy, best)
    verify(found, best.variances, workload, schema)
    if rows is not None and not isinstance(problem.norms, UnitNorms):
        # The search starts from norms moved off the boundary; where that cost more than it found, the start is kept.
        given, loss = getattr(strategy, objective)(workload, schema), getattr(found, objective)(workload, schema)
        if given < loss:
            found, gap = strategy, max(0.0, 1 - (1 - gap) * (loss / given) ** 2)
    return Solution(
        strategy=found,
        rmse=found.rmse(workload, schema),
        max_error=found.max_error(workload, schema),
        sensitivity=found.sensitivity(schema),
        gap=gap,
        iterations=iterations,
        seconds=time.perf_counter() - began,
        converged=gap <= tolerance,
        message=message,
    )


def _problem(strategy: Banded, workload: Workload, schema: ParticipationSchema, objective: str) -> Problem:
    if schema.max_participations > 1 and strategy.num_bands > schema.min_sep:
        raise ValueError(
            f"num_bands must be <= min_sep={schema.min_sep} to optimize for several participations, got "
            f"{strategy.num_bands}: only then do the column norms alone decide the sensitivity; use fewer bands"
        )
    inverse = workload.inverse_bands(schema.iterations)
    if inverse is None:
        raise ValueError("workload must be invertible for a banded strategy; give every step a positive weight")
    order = 1.0 if objective == "rmse" else _SMOOTH_ORDER
    num_bands = min(strategy.num_bands, schema.iterations)
    uniform = np.full(schema.iterations, 1 / schema.iterations)
    return Problem(inverse, num_bands, norm_set(strategy.column_norms, schema), uniform, order)


def _strategy(family: Banded, trial: Trial) -> Banded:
    coefficients = np.zeros((len(trial.C), family.num_bands))
    # A long step can cross the pole at C[t, t] = 0. A row may change its sign: neither C^T C nor any error changes.
    coefficients[:, : trial.C.shape[1]] = trial.C * np.sign(trial.C[:, :1])
    return dataclasses.replace(family, coefficients=coefficients)
