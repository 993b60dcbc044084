"""Buffered linear Toeplitz strategies: dpkit's fits beside JAX Privacy's optimiser, and how time grows with n.

    python benchmarks/blt.py [PEER_PYTHON]

PEER_PYTHON is the interpreter of an environment with jax-privacy 2.0.0; without it only dpkit runs. One process per
library and problem; the peer fits prefix sums only, that is momentum 0. Times are of the fit alone, after imports; the
peer's contain its compilation, which depends on the problem and so recurs. Both results are rated by dpkit's exact
errors and sensitivity. "scaled" is the same family with a scale for every window of min_sep steps.
"""

import json
import platform
import subprocess
import sys
import time

# (iterations, min_sep, max_participations, num_buffers, objective, momentum)
PROBLEMS = [
    (1_000, 1_000, 1, 3, "max_error", 0.0),
    (2_052, 342, 6, 3, "rmse", 0.0),
    (2_052, 342, 6, 3, "rmse", 0.9),
    (2_048, 128, 16, 4, "rmse", 0.0),
    (10_000, 1_000, 10, 3, "rmse", 0.0),
    (10_000, 1_000, 10, 3, "max_error", 0.0),
    (100_000, 1_000, 100, 4, "rmse", 0.0),
    (10**9, 10**7, 100, 5, "rmse", 0.0),
    (10**9, 10**7, 100, 5, "rmse", 0.9),
]
LARGEST_OF_PEER = 100_000


def fit(n: int, min_sep: int, k: int, num_buffers: int, objective: str, momentum: float, scaled: bool = False):
    from dpkit import factorization as fz

    schema = fz.MinSep(iterations=n, min_sep=min_sep, max_participations=k)
    family = fz.BufferedLinearToeplitz(num_buffers)
    workload = fz.momentum_sgd(momentum)
    return fz.optimize(fz.WindowScaled(family) if scaled else family, workload, schema, objective=objective)


def rated(result: dict, n: int, min_sep: int, k: int, _: int, objective: str, momentum: float) -> float:
    """The objective of a peer's parameters."""
    from dpkit import factorization as fz

    strategy = fz.BufferedLinearToeplitz(theta=result["theta"], omega=result["omega"])
    schema = fz.MinSep(iterations=n, min_sep=min_sep, max_participations=k)
    return getattr(strategy, objective)(fz.momentum_sgd(momentum), schema)


def peer(n: int, min_sep: int, k: int, num_buffers: int, objective: str, _: float) -> dict:
    """JAX Privacy's fit; runs in the peer's interpreter."""
    from jax_privacy.matrix_factorization import buffered_toeplitz

    start = time.perf_counter()
    try:
        blt = buffered_toeplitz.optimize(
            n=n,
            min_sep=min_sep,
            max_participations=k,
            error="max" if objective == "max_error" else "mean",
            min_buffers=num_buffers,
            max_buffers=num_buffers,
        )
    except (RuntimeError, ValueError) as error:
        return {"failed": str(error).splitlines()[0][:60], "seconds": time.perf_counter() - start}
    return {
        "seconds": time.perf_counter() - start,
        "theta": [float(x) for x in blt.buf_decay],
        "omega": [float(x) for x in blt.output_scale],
    }


def row(problem: tuple, interpreter: str | None) -> str:
    n, *_, objective, momentum = problem
    solution, scaled = fit(*problem), fit(*problem, scaled=True)
    own = getattr(solution, objective)
    text = f"{problem!s:50}{solution.strategy.num_buffers:8}{own:12.6g}{solution.seconds:9.2f}"
    text += f"{getattr(scaled, objective):12.6g}{scaled.seconds:9.2f}"
    if not (solution.converged and scaled.converged):
        text += "  unconverged"
    if interpreter is None or momentum or n > LARGEST_OF_PEER:
        return text
    command = [interpreter, __file__, "--as-peer", json.dumps(problem)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = json.loads(output.splitlines()[-1])
    if "failed" in theirs:
        return f"{text}{'raises':>12}{theirs['seconds']:9.2f}   {theirs['failed']}"
    error = rated(theirs, *problem)
    return f"{text}{error:12.6g}{theirs['seconds']:9.2f}{theirs['seconds'] / solution.seconds:8.1f}{error / own:10.6f}"


def growth(momentum: float) -> str:
    """The exponent of time in n at constant participations, over six decades: of a fit, and of a step."""
    import numpy as np

    sizes = [10**i for i in range(3, 10)]
    fits, steps = [], []
    for n in sizes:
        solution = fit(n, n // 10, 10, 3, "rmse", momentum)
        fits.append(solution.seconds)
        steps.append(solution.seconds / solution.iterations)
    exponents = [np.polyfit(np.log(sizes), np.log(seconds), 1)[0] for seconds in (fits, steps)]
    return (
        f"momentum {momentum}, 3 buffers, 10 participations, n = 1e3..1e9: time of a fit ~ n^{exponents[0]:.3f}, "
        f"of a step of its search ~ n^{exponents[1]:.3f}; fits {np.round(fits, 2).tolist()} s"
    )


def main(interpreter: str | None) -> None:
    print(f"{platform.platform()}, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    fit(100, 10, 10, 1, "rmse", 0.0)
    print(f"{'(n, min_sep, k, buffers, objective, momentum)':50}{'buffers':>8}{'dpkit':>12}{'s':>9}", end="")
    print(f"{'scaled':>12}{'s':>9}", end="")
    print(f"{'peer':>12}{'s':>9}{'times':>8}{'error':>10}" if interpreter else "")
    for problem in PROBLEMS:
        print(row(problem, interpreter), flush=True)
    for momentum in (0.0, 0.9):
        print(growth(momentum), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-peer"]:
        print(json.dumps(peer(*json.loads(sys.argv[2]))))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
