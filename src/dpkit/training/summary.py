"""The numbers of a plan, computed once, and how they are said."""

import dataclasses
import decimal
import math
from typing import Any, Self

import dpkit
from dpkit.accounting.base import Bounds
from dpkit.relations import NeighboringRelation
from dpkit.training.plan import TrainingPlan

BRACKETING = ("pld", "monte_carlo")
"""The accountants that bound from below, too."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a plan guarantees, by every accountant. Made by `Summary.of`.

    Args:
        plan: the run.
        epsilon: by the accountant that the config names.
        by_accountant: by all of them, or the reason why one does not apply.
        if_poisson: NOT a guarantee: epsilon, had the same batches been drawn by Poisson sampling.
        warnings: those of the plan, and those that the numbers give rise to.
    """

    plan: TrainingPlan
    epsilon: Bounds
    by_accountant: dict[str, Bounds | str]
    if_poisson: Bounds | None
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, plan: TrainingPlan) -> Self:
        """Accounts for `plan`.

        Raises:
            UnsupportedViewError: the accountant that the config names does not apply to this run.
        """
        by_accountant = plan.epsilons()
        chosen = by_accountant[plan.config.privacy.accountant]
        epsilon = plan.epsilon() if isinstance(chosen, str) else chosen
        if_poisson = plan.epsilon_if_poisson()
        return cls(plan, epsilon, by_accountant, if_poisson, (*plan.warnings, *_warnings(epsilon, if_poisson)))

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; an infinite number is the string "inf", which `float` reads."""
        plan = self.plan
        return {
            "epsilon": {"lower": number(self.epsilon.lower), "upper": number(self.epsilon.upper)},
            "delta": plan.delta,
            "accountant": plan.config.privacy.accountant,
            "relation": str(plan.relation),
            "unit": plan.unit,
            "sampling": plan.config.training.sampling,
            "iterations": plan.iterations,
            "sampling_probability": plan.sampling_probability,
            "noise_multiplier": plan.noise_multiplier,
            "mechanism": plan.config.tables()["mechanism"],
            "by_accountant": {name: _bounds(name, bounds) for name, bounds in self.by_accountant.items()},
            "assumptions": list(plan.assumptions),
            "warnings": list(self.warnings),
            "version": dpkit.__version__,
        }

    @property
    def guarantee(self) -> str:
        """One sentence: what is guaranteed to whom."""
        plan, unit, upper = self.plan, self.plan.unit, self.epsilon.upper
        if math.isinf(upper):
            return f"Nothing is guaranteed to any {unit}: no finite epsilon is certified at delta = {plan.delta:g}."
        change = {
            NeighboringRelation.ADD_OR_REMOVE_ONE: f"any one {unit} is in the data or not",
            NeighboringRelation.REPLACE_ONE: f"any one {unit} is as it is or is replaced by any other",
            NeighboringRelation.REPLACE_SPECIAL: f"any one {unit}'s data is there or is blanked out",
        }[plan.relation]
        factor = f"e^{rounded_up(upper)}" + (f" (= {rounded_up(math.exp(upper), 3)})" if upper < 20 else "")
        released = "everything released" if plan.config.mechanism.kind == "zcdp" else "the noisy output of every step"
        return (
            f"Whoever sees {released}, even knowing all other {unit}s, learns almost the same whether {change}: the "
            f"probability of any conclusion changes by at most a factor {factor}, plus at most {plan.delta:g}."
        )

    @property
    def tier(self) -> str:
        """How strong the guarantee is in the terms of Ponomareva et al. (2023)."""
        if self.epsilon.upper <= 1:
            return "strong (epsilon <= 1)"
        return "reasonable (epsilon <= 10)" if self.epsilon.upper <= 10 else "weak (epsilon > 10)"


def _warnings(epsilon: Bounds, if_poisson: Bounds | None) -> list[str]:
    found = []
    if math.isinf(epsilon.upper):
        found.append('epsilon is infinite: nothing is guaranteed at this delta (in JSON it is the string "inf").')
    if epsilon.note:
        found.append(epsilon.note)
    if if_poisson:
        found.append(
            f"NOT A GUARANTEE: Poisson sampling of the same batch size would have given epsilon <= "
            f"{rounded_up(if_poisson.upper)}. This run does not sample that way."
        )
    return found


def _bounds(name: str, bounds: Bounds | str) -> dict[str, Any]:
    first = {"lower": None} if name in BRACKETING else {}
    last = {} if name in BRACKETING else {"order": None}
    if isinstance(bounds, str):
        return {**first, "upper": None, **last, "unsupported": bounds}
    values = {"lower": number(bounds.lower), "upper": number(bounds.upper), "order": number(bounds.order)}
    return {key: values[key] for key in (*first, "upper", *last)}


def number(value: float | None) -> float | str | None:
    """`value` as JSON has it: infinities as text, because a null would pass for a missing, or a small, number."""
    return str(value) if value is not None and math.isinf(value) else value


def rounded_up(value: float, digits: int = 5) -> str:
    """`value` with so many significant digits, never below it.

    >>> rounded_up(2.3000012), rounded_up(8.0), rounded_up(1e-9 / 3, 2)
    ('2.3001', '8', '3.4e-10')
    """
    return _rounded(value, digits, decimal.ROUND_CEILING)


def rounded_down(value: float, digits: int = 5) -> str:
    """`value` with so many significant digits, never above it.

    >>> rounded_down(2.3999999), rounded_down(123456.7)
    ('2.3999', '123450')
    """
    return _rounded(value, digits, decimal.ROUND_FLOOR)


def interval(bounds: Bounds) -> str:
    """`[lower, upper]`, rounded outward.

    >>> interval(Bounds(1.23456789, 2.3456789))
    '[1.2345, 2.3457]'
    """
    return f"[{rounded_down(bounds.lower)}, {rounded_up(bounds.upper)}]"


def _rounded(value: float, digits: int, rounding: str) -> str:
    if math.isinf(value) or not value:
        return "inf" if value else "0"
    cut = decimal.Context(prec=digits, rounding=rounding).create_decimal_from_float(value).normalize()
    return format(cut, "f") if 1e-4 <= abs(value) < 1e7 else f"{cut:e}".replace("e+", "e")
