"""Regenerate compositions.json: `PYTHONPATH=tests python -m truth.generate [name ...]` (tens of minutes for all).

Every epsilon is a double, written out exactly; the deltas are the profile there. A case that a contour integral
decides is computed along two paths, which must agree to 14 digits.
"""

import json
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from mpmath import mp, mpf

from truth.composition import Part, closed_form, mixed_delta, mixed_epsilon

TABLE = Path(__file__).with_name("compositions.json")
RUN = (1.1, 256 / 60000, 14040)


def sampled(noise_multiplier: float, sampling_probability: float, count: int) -> Part:
    return {
        "kind": "sampled_gaussian",
        "noise_multiplier": noise_multiplier,
        "sampling_probability": sampling_probability,
        "count": count,
    }


def gaussian(noise_multiplier: float, count: int = 1) -> Part:
    return {"kind": "gaussian", "noise_multiplier": noise_multiplier, "count": count}


def laplace(noise_multiplier: float, count: int = 1) -> Part:
    return {"kind": "laplace", "noise_multiplier": noise_multiplier, "count": count}


def response(noise_parameter: float, num_buckets: int, count: int) -> Part:
    return {
        "kind": "randomized_response",
        "noise_parameter": noise_parameter,
        "num_buckets": num_buckets,
        "count": count,
    }


# (parts, delta to solve for) or (parts, None, epsilon)
Case = tuple[Sequence[Part], float | None] | tuple[Sequence[Part], None, float]
CASES: dict[str, Case] = {
    "anchor_1.5_0.02_300": ([sampled(1.5, 0.02, 300)], 1e-6),
    "anchor_1.5_0.005_5e4": ([sampled(1.5, 0.005, 50_000)], 1e-10),
    "run_1e-5": ([sampled(*RUN)], 1e-5),
    "run_1e-3": ([sampled(*RUN)], 1e-3),
    "run_1e-15": ([sampled(*RUN)], 1e-15),
    "run_1e-30": ([sampled(*RUN)], 1e-30),
    "run_total_variation": ([sampled(*RUN)], None, 0.0),
    "run_tiny_epsilon": ([sampled(*RUN)], None, 1e-4),
    "0.4_0.1_1e5": ([sampled(0.4, 0.1, 100_000)], 1e-5),
    "0.4_0.1_1e5_1e-30": ([sampled(0.4, 0.1, 100_000)], 1e-30),
    "0.3_0.01_1e4": ([sampled(0.3, 0.01, 10_000)], 1e-6),
    "0.3_0.5_1e3": ([sampled(0.3, 0.5, 1000)], 1e-8),
    "0.3_0.001_1e5": ([sampled(0.3, 0.001, 100_000)], 1e-10),
    "0.1_0.5_1e6": ([sampled(0.1, 0.5, 1_000_000)], 1e-5),
    "0.2_0.1_1e4": ([sampled(0.2, 0.1, 10_000)], 1e-9),
    "0.5_1e-3_1e6": ([sampled(0.5, 1e-3, 1_000_000)], 1e-12),
    "0.6_0.03_1e3": ([sampled(0.6, 0.03, 1000)], 1e-15),
    "0.8_1e-4_1e6": ([sampled(0.8, 1e-4, 1_000_000)], 1e-9),
    "0.8_1e-4_1e6_1e-30": ([sampled(0.8, 1e-4, 1_000_000)], 1e-30),
    "0.2_1e-6_1e5_1e-15": ([sampled(0.2, 1e-6, 100_000)], 1e-15),
    "1_0.01_1e4": ([sampled(1.0, 0.01, 10_000)], 1e-5),
    "1_0.01_1e4_total_variation": ([sampled(1.0, 0.01, 10_000)], None, 0.0),
    "1_0.1_100": ([sampled(1.0, 0.1, 100)], 1e-10),
    "1_0.5_10": ([sampled(1.0, 0.5, 10)], 1e-5),
    "1_0.9_1e3": ([sampled(1.0, 0.9, 1000)], 1e-7),
    "1_0.3_1e4_1e-30": ([sampled(1.0, 0.3, 10_000)], 1e-30),
    "2_0.25_1e5": ([sampled(2.0, 0.25, 100_000)], 1e-5),
    "2_0.02_1e6_1e-15": ([sampled(2.0, 0.02, 1_000_000)], 1e-15),
    "2_0.05_20": ([sampled(2.0, 0.05, 20)], 1e-6),
    "4_0.1_2500": ([sampled(4.0, 0.1, 2500)], 1e-5),
    "4_0.1_2500_1e-30": ([sampled(4.0, 0.1, 2500)], 1e-30),
    "4_0.1_5": ([sampled(4.0, 0.1, 5)], 1e-8),
    "10_0.5_1e4": ([sampled(10.0, 0.5, 10_000)], 1e-3),
    "10_0.01_1e6": ([sampled(10.0, 0.01, 1_000_000)], 1e-6),
    "50_1e-3_1e6": ([sampled(50.0, 1e-3, 1_000_000)], 1e-12),
    "50_0.5_1e6": ([sampled(50.0, 0.5, 1_000_000)], 1e-15),
    "50_0.1_1e4_total_variation": ([sampled(50.0, 0.1, 10_000)], None, 0.0),
    "50_0.1_1e4_tiny_epsilon": ([sampled(50.0, 0.1, 10_000)], None, 1e-4),
    "one_step_1_0.01": ([sampled(1.0, 0.01, 1)], 1e-5),
    "one_step_0.3_0.1": ([sampled(0.3, 0.1, 1)], 1e-12),
    "one_step_0.1_0.5": ([sampled(0.1, 0.5, 1)], 1e-15),
    "one_step_50_0.9_total_variation": ([sampled(50.0, 0.9, 1)], None, 0.0),
    "one_step_0.5_1e-6_1e-30": ([sampled(0.5, 1e-6, 1)], 1e-30),
    "two_steps_0.5_0.1": ([sampled(0.5, 0.1, 2)], 1e-5),
    "two_steps_2_0.2_1e-15": ([sampled(2.0, 0.2, 2)], 1e-15),
    "unsampled_1_1": ([gaussian(1.0)], 1e-5),
    "unsampled_50_1e6_1e-30": ([sampled(50.0, 1.0, 1_000_000)], 1e-30),
    "unsampled_0.3_1e4": ([sampled(0.3, 1.0, 10_000)], 1e-12),
    "unsampled_20_total_variation": ([gaussian(20.0)], None, 0.0),
    "two_runs": ([sampled(1.1, 0.01, 5000), sampled(0.7, 0.001, 20_000)], 1e-6),
    "two_runs_1e-15": ([sampled(0.9, 0.02, 2000), sampled(3.0, 0.2, 1000)], 1e-15),
    "0.3_1e-6_1e6_gaussian": ([sampled(0.3, 1e-6, 1_000_000), gaussian(2.0)], 1e-5),
    "three_runs": ([sampled(0.6, 1e-4, 100_000), sampled(1.3, 0.05, 700), sampled(8.0, 0.5, 300)], 1e-8),
    "run_gaussian_laplace": ([sampled(*RUN), gaussian(8.0), laplace(20.0)], 1e-5),
    "run_gaussian_laplace_1e-12": ([sampled(*RUN), gaussian(8.0), laplace(20.0)], 1e-12),
    "gaussian_laplaces": ([gaussian(1.0), laplace(2.0, 10)], 1e-6),
    "laplace_1_1": ([laplace(1.0)], None, 0.5),
    "laplace_0.5_3": ([laplace(0.5, 3)], 1e-3),
    "laplace_10_30": ([laplace(10.0, 30)], 1e-9),
    "laplace_20_100": ([laplace(20.0, 100)], 1e-5),
    "laplace_2_5_total_variation": ([laplace(2.0, 5)], None, 0.0),
    "response_0.5_2_100": ([response(0.5, 2, 100)], 1e-6),
    "response_0.5_2_1": ([response(0.5, 2, 1)], None, 0.25),
    "response_0.9_10_50": ([response(0.9, 10, 50)], 1e-9),
    "response_0.2_3_8": ([response(0.2, 3, 8)], 1e-3),
    "response_0.99_2_200_total_variation": ([response(0.99, 2, 200)], None, 0.0),
}


def checked_delta(parts: Sequence[Part], epsilon: float, direction: str) -> mpf | None:
    """The profile, along two paths unless in closed form; None where the contour integral is out of reach."""
    if closed_form(parts, direction):
        return mixed_delta(parts, epsilon, direction)
    try:
        first = mixed_delta(parts, epsilon, direction, bend=0.3, lead=0.25)
        second = mixed_delta(parts, epsilon, direction, bend=0.15, lead=0.4)
    except ArithmeticError as error:
        print(f"  {direction}: {error}", flush=True)
        return None
    if first and abs(second / first - 1) > mpf(10) ** -14:
        raise AssertionError(f"{direction}: {first} and {second} disagree")
    return first


def solve(name: str) -> dict[str, Any]:
    parts, delta, *rest = CASES[name]

    def both(epsilon: float) -> dict[str, mpf | None]:
        return {way: checked_delta(parts, epsilon, way) for way in ("remove", "add")}

    epsilon = rest[0] if delta is None else float(mixed_epsilon(parts, delta, "remove"))
    deltas = both(epsilon)
    if delta is not None and (deltas["add"] or 0) > deltas["remove"]:
        epsilon = float(mixed_epsilon(parts, delta, "add"))
        deltas = both(epsilon)
    larger = max((way for way in deltas if deltas[way] is not None), key=lambda way: deltas[way])
    text = {way: None if value is None else mp.nstr(value, 22) for way, value in deltas.items()}
    relation = "replace_one" if parts[0]["kind"] == "randomized_response" else "add_or_remove_one"
    return {
        "name": name,
        "parts": list(parts),
        "relation": relation,
        "epsilon": str(Decimal(epsilon)),
        "delta": text[larger],
        "direction_of_max": larger,
        "delta_add": text["add"],
        "delta_remove": text["remove"],
    }


def main(names: Sequence[str]) -> None:
    table = json.loads(TABLE.read_text()) if TABLE.exists() else []
    known = {case["name"]: case for case in table}
    for name in names or CASES:
        start = time.perf_counter()
        known[name] = solve(name)
        ordered = [known[other] for other in CASES if other in known]
        TABLE.write_text(json.dumps(ordered, indent=1) + "\n")
        case = known[name]
        print(f"{name}: {case['epsilon'][:12]} {case['delta']} {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
