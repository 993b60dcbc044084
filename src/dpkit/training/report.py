"""The privacy statement of a run, after Ponomareva et al. (2023), "How to DP-fy ML"."""

import dataclasses
import json
import math
import textwrap
from typing import Any, Self

import dpkit
from dpkit import accounting
from dpkit.accounting.base import Bounds
from dpkit.relations import NeighboringRelation
from dpkit.training import releases
from dpkit.training.kinds import KINDS
from dpkit.training.plan import TrainingPlan
from dpkit.training.problems import as_toml
from dpkit.training.sections import ReportSection
from dpkit.training.summary import BRACKETING, Summary, interval, rounded_down, rounded_up

_ACCOUNTANTS = {
    "pld": "PLD (privacy loss distribution)",
    "monte_carlo": "Monte Carlo (privacy losses drawn by importance sampling)",
    "rdp": "RDP (Renyi differential privacy), converted to (epsilon, delta)",
    "zcdp": "zCDP (zero-concentrated differential privacy), converted to (epsilon, delta)",
}
_RELATIONS = {
    NeighboringRelation.ADD_OR_REMOVE_ONE: "one unit is added or removed",
    NeighboringRelation.REPLACE_ONE: "one unit's data is replaced by any other",
    NeighboringRelation.REPLACE_SPECIAL: "one unit's data is replaced by a blank (zero-out)",
}


@dataclasses.dataclass(frozen=True)
class ReportField:
    """One statement.

    Args:
        key: its name in JSON.
        label: its name for people.
        value: the statement; several lines make a list; empty where the config does not say.
        remedy: what to write in the config to answer it, where it is not answered.
    """

    key: str
    label: str
    value: tuple[str, ...]
    remedy: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The statement, or `unknown` with the remedy."""
        return self.value or (f"unknown ({self.remedy})",)


@dataclasses.dataclass(frozen=True)
class PrivacyReport:
    """What to quote about a run. Made by `PrivacyReport.of`.

    A statement that the config does not answer reads `unknown`, with what to write to answer it.

    Args:
        title: names the run.
        sections: headings with their statements.
        summary: the numbers.

    References: Ponomareva et al. (2023), "How to DP-fy ML".
    """

    title: str
    sections: tuple[tuple[str, tuple[ReportField, ...]], ...]
    summary: Summary

    @classmethod
    def of(cls, plan: TrainingPlan) -> Self:
        """The report on `plan`.

        Raises:
            UnsupportedViewError: the accountant that the config names does not apply to this run.
        """
        summary = Summary.of(plan)
        return cls(
            title=plan.config.report.title or "Differential privacy statement",
            sections=(
                ("Setting", (_told(plan, "setting", "Trust model"),)),
                ("Definition", _definition(plan)),
                ("Guarantee", _guarantee(summary)),
                ("What an attack can achieve", _operational(plan)),
                ("Accounting", _accounting(plan)),
                ("Parameters", _parameters(plan)),
                ("Verifiability", (_told(plan, "code", "Code"), _told(plan, "audit", "Empirical audit"))),
                *_not_guaranteed(summary),
                ("Warnings", (ReportField("warnings", "Warnings", summary.warnings or ("none",)),)),
            ),
            summary=summary,
        )

    def text(self, width: int = 80) -> str:
        """Plain text of at most `width` columns."""
        blocks = [self.title, "=" * min(len(self.title), width)]
        for heading, statements in self.sections:
            blocks += ["", heading, "-" * len(heading)]
            for statement in statements:
                blocks += _wrapped(statement, width)
        return "\n".join(blocks) + "\n"

    def markdown(self) -> str:
        """Markdown, one list item a statement."""
        blocks = [f"# {_escaped(self.title)}"]
        for heading, statements in self.sections:
            items = []
            for statement in statements:
                lines = [_escaped(line) for line in statement.lines]
                if len(lines) == 1:
                    items.append(f"- **{statement.label}**: {lines[0]}")
                else:
                    items += [f"- **{statement.label}**:", *(f"  - {line}" for line in lines)]
            blocks.append(f"## {heading}\n\n" + "\n".join(items))
        return "\n\n".join(blocks) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values: the statements by section, and the numbers."""
        sections = {
            heading: {
                field.key: {"label": field.label, "known": bool(field.value), "value": " ".join(field.lines)}
                if len(field.lines) == 1
                else {"label": field.label, "known": True, "value": list(field.lines)}
                for field in statements
            }
            for heading, statements in self.sections
        }
        return {"title": self.title, "sections": sections, "numbers": self.summary.as_dict()}

    def json(self) -> str:
        """`as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"


def _told(plan: TrainingPlan, key: str, label: str) -> ReportField:
    """A statement that only the config's author can make."""
    said = getattr(plan.config.report, key)
    example = as_toml((ReportSection.model_fields[key].examples or ["..."])[0])
    return ReportField(key, label, (said,) if said else (), f"write report.{key} = {example} in the config")


def _definition(plan: TrainingPlan) -> tuple[ReportField, ...]:
    config, unit = plan.config, plan.unit
    how_often = (
        f"any number of the {plan.iterations:,} steps, each with probability {plan.sampling_probability:.6g}"
        if plan.participations is None
        else f"at most {plan.participations:,} of the {plan.iterations:,} steps"
    )
    bound = _bound(plan)
    return (
        _told(plan, "data_accesses", "Data accesses covered"),
        _told(plan, "output", "What is released"),
        ReportField("covered", "What the accounting covers", (_covered(plan),)),
        ReportField("unit", "Privacy unit", (f"{unit} ({config.data.population:,} of them)",)),
        _told(plan, "contribution", f"What one {unit} is"),
        ReportField(
            "contribution_bound",
            "Contribution bound",
            (f"{how_often}; {bound}",) if bound else (),
            "write mechanism.l2_clip_norm = 1.0 in the config",
        ),
        ReportField("relation", "Neighbouring data sets", (f"{plan.relation}: {_RELATIONS[plan.relation]}",)),
    )


def _bound(plan: TrainingPlan) -> str:
    """The most that one unit contributes to a step; empty where the config does not say."""
    mechanism = plan.config.mechanism
    if mechanism.kind == "zcdp":
        return "as much per step as its rho was proved for"
    if "l2_clip_norm" not in KINDS[mechanism.kind].keys:
        return releases.limit(plan.config)
    return "" if mechanism.l2_clip_norm is None else f"norm at most {mechanism.l2_clip_norm} per step"


def _covered(plan: TrainingPlan) -> str:
    if plan.config.mechanism.kind == "zcdp":
        return "everything the declared mechanism releases"
    return "every step's noisy output, hence every checkpoint and the final model"


def _guarantee(summary: Summary) -> tuple[ReportField, ...]:
    plan, population = summary.plan, summary.plan.config.data.population
    certified, against = rounded_up(summary.epsilon.upper), f"{plan.delta * population:.3g} times"
    by_accountant = [_by(name, bounds) for name, bounds in summary.by_accountant.items()]
    return (
        ReportField("meaning", "In words", (summary.guarantee,)),
        ReportField("epsilon", "epsilon", (f"at most {certified}; the truth lies in {interval(summary.epsilon)}",)),
        ReportField("delta", "delta", (f"{plan.delta:g}, {against} one over the number of {plan.unit}s",)),
        ReportField("tier", "Tier", (summary.tier,)),
        ReportField("by_accountant", "epsilon by accountant", tuple(by_accountant)),
        ReportField("rho", "rho (zCDP)", (_rho(plan),)),
        _told(plan, "tuning", "Hyperparameter tuning"),
    )


def _operational(plan: TrainingPlan) -> tuple[ReportField, ...]:
    """The guarantee in the terms of a membership test: is the unit in the data or not?"""
    run, accountant, rates = plan.mechanism, plan.accountant(), (0.001, 0.01, 0.1)
    advantage = accounting.advantage(run, accountant).upper
    # A difference of two numbers in [0, 1] is rounded by less than this.
    highest = [min(1.0, 1 - float(least) + 2.0**-52) for least in accounting.trade_off(run, accountant, rates)]
    found = [f"at most {rounded_up(y, 4)} at a false positive rate of {x}" for x, y in zip(rates, highest, strict=True)]
    ahead, risk = rounded_up(advantage, 4), rounded_down((1 - advantage) / 2, 4)
    return (
        ReportField("true_positive_rate", "True positive rate of any membership test", tuple(found)),
        ReportField("advantage", "Advantage", (f"true minus false positive rate is at most {ahead}",)),
        ReportField("bayes_risk", "Bayes risk", (f"at even odds, any guess is wrong with probability >= {risk}",)),
    )


def _by(name: str, bounds: Bounds | str) -> str:
    if isinstance(bounds, str):
        return f"{name}: does not apply; {bounds}"
    if name in BRACKETING:
        return f"{name}: {interval(bounds)}"
    order = "" if bounds.order is None or math.isinf(bounds.upper) else rounded_down(bounds.order, 4)
    return f"{name}: at most {rounded_up(bounds.upper)}" + (f" (best order {order})" if order else "")


def _rho(plan: TrainingPlan) -> str:
    try:
        rho = accounting.ZcdpAccountant(relation=plan.relation).rho(plan.mechanism)
    except dpkit.mechanisms.UnsupportedViewError as error:
        return f"does not apply; {error}"
    loose = "" if plan.sampling_probability is None else "; rho takes no credit for sampling"
    return f"{rounded_up(rho)}{loose}"


def _accounting(plan: TrainingPlan) -> tuple[ReportField, ...]:
    name = _ACCOUNTANTS[plan.config.privacy.accountant]
    return (
        ReportField("type", "Type and tool", (f"{name}, dpkit {dpkit.__version__}",)),
        ReportField("assumptions", "Assumptions", plan.assumptions),
        _told(plan, "sampling_in_code", "Sampling in the code"),
        _told(plan, "floating_point", "Noise in the code"),
    )


def _parameters(plan: TrainingPlan) -> tuple[ReportField, ...]:
    config = plan.config
    batch = config.training.batch_size
    found = [ReportField("mechanism", "Mechanism", (config.mechanism.kind,))]
    if config.correlated:
        found.append(ReportField("strategy", "Noise correlated by", (config.strategy.name,)))
    kind = KINDS[config.mechanism.kind]
    # What a declared rho was proved for is not ours to ask.
    found += [_number(plan, key) for key in (kind.needed if kind.noise is None else kind.keys)]
    costs = kind.costs_of(dict(config.mechanism), batch or config.data.population)
    found += [ReportField(label.lower().replace(" ", "_"), label, (value,)) for label, value in costs.items()]
    sampled = "none claimed" if plan.sampling_probability is None else f"{plan.sampling_probability:.6g}"
    return (
        *found,
        ReportField("sampling", "Sampling", (config.training.sampling,)),
        ReportField("batch_size", "Batch size", (f"{batch:,}" if batch else "not used",)),
        ReportField("sampling_probability", "Sampling probability", (sampled,)),
        ReportField("iterations", "Steps", (f"{plan.iterations:,}, {plan.iterations_rule}",)),
        ReportField(
            "participations",
            f"Steps per {plan.unit}",
            ("any number" if plan.participations is None else f"at most {plan.participations:,}",),
        ),
    )


def _number(plan: TrainingPlan, key: str) -> ReportField:
    """One number of the mechanism."""
    value = getattr(plan.config.mechanism, key)
    if key == "rho":
        return ReportField("step_rho", "rho of one step", (f"{value}",))
    if key == "noise_multiplier":
        where = "before the noise is correlated" if plan.config.correlated else "in the sum"
        stddev = "" if plan.stddev is None else f" (standard deviation {plan.stddev:g} {where})"
        return ReportField(key, "Noise multiplier", (f"{value!r}{stddev}",))
    label = "Clip norm" if key == "l2_clip_norm" else key.replace("_", " ").capitalize()
    said = "its default" if value is None and key != "l2_clip_norm" else value
    return ReportField(key, label, () if said is None else (f"{said}",), f"write mechanism.{key} = 1.0 in the config")


def _not_guaranteed(summary: Summary) -> tuple[tuple[str, tuple[ReportField, ...]], ...]:
    if summary.if_poisson is None or math.isinf(summary.if_poisson.upper):
        return ()
    value = (
        f"epsilon <= {rounded_up(summary.if_poisson.upper)} is what Poisson sampling of the same batch size would have "
        "given. This run does not sample that way, so this number is not a guarantee of any kind for it."
    )
    return (("Not a guarantee", (ReportField("if_poisson", "Under Poisson sampling", (value,)),)),)


def _wrapped(statement: ReportField, width: int) -> list[str]:
    if len(statement.lines) == 1:
        line = f"{statement.label}: {statement.lines[0]}"
        return textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
    wrapped = [f"{statement.label}:"]
    for line in statement.lines:
        wrapped += textwrap.wrap(line, width, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
    return wrapped


def _escaped(line: str) -> str:
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|" else character for character in line)
