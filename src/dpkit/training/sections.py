"""The tables of a training config: their keys, what each may be, and what it means."""

from typing import Any

import pydantic
from pydantic import Field

from dpkit.training import fields
from dpkit.training.kinds import KINDS


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSection(Section):
    """`[data]`: who is protected, and how many of them there are."""

    unit: fields.Unit = Field(description="the privacy unit: example, user, device or provider", examples=["example"])
    examples: fields.Whole | None = Field(default=None, description="how many examples there are", examples=[60_000])
    users: fields.Whole | None = Field(default=None, description="how many units there are", examples=[10_000])

    @property
    def population(self) -> int:
        """How many privacy units there are."""
        return (self.examples if self.unit == "example" else self.users) or 0


class TrainingSection(Section):
    """`[training]`: how often, and how, units take part."""

    sampling: fields.Sampler = Field(description="how batches are drawn", examples=["poisson"])
    batch_size: fields.Whole | None = Field(default=None, description="expected under Poisson sampling", examples=[256])
    iterations: fields.Whole | None = Field(default=None, description="how many steps are run", examples=[14_063])
    epochs: fields.Exact | None = Field(default=None, description="passes over the data, whole or not", examples=[60])
    min_sep: fields.Whole | None = Field(
        None, description="least number of steps from one participation to the next", examples=[342]
    )
    max_participations: fields.Whole | None = Field(default=None, description="most steps one unit is in", examples=[6])
    num_groups: fields.Whole | None = Field(
        default=None, description="groups of units that take turns, for cyclic_poisson", examples=[32]
    )
    num_bins: fields.Whole | None = Field(
        default=None, description="steps of one pass, for balls_in_bins", examples=[100]
    )


class MechanismSection(Section):
    """`[mechanism]`: what each step adds, or how its contributions are reported.

    Which keys a kind has is in `dpkit.training.kinds`; they are the arguments of its class in `dpkit.mechanisms`.
    """

    kind: fields.Kind = Field(description="what a step releases", examples=["gaussian"])
    noise_multiplier: fields.NonNegative | None = Field(
        None, description="noise standard deviation (Laplace: scale) over the clip norm", examples=[1.1]
    )
    l2_clip_norm: fields.Positive | None = Field(
        None, description="largest norm of one unit's contribution", examples=[1.0]
    )
    rho: fields.NonNegative | None = Field(default=None, description="the proved zCDP of one step", examples=[0.81])
    lower: fields.Real | None = Field(default=None, description="low end of the box, over the clip norm", examples=[-2])
    upper: fields.Real | None = Field(default=None, description="high end of the box, over the clip norm", examples=[2])
    coordinates: fields.Whole | None = Field(
        default=None, description="of the sum, to each of which a unit adds at most 1/sqrt(coordinates)", examples=[100]
    )
    value_range: fields.Interval | None = Field(
        default=None, description="public bounds on every coordinate of the sum, over the clip norm", examples=[[0, 1]]
    )
    keep_probability: fields.NonNegative | None = Field(
        default=None, description="of each level, or of each coordinate", examples=[0.1]
    )
    linf_clip: fields.Positive | None = Field(
        default=None, description="largest entry of a contribution, over the clip norm", examples=[0.05]
    )
    sigma: fields.Positive | None = Field(
        default=None, description="scale of the noise in units of the integers", examples=[50.0]
    )
    local_sigma: fields.Positive | None = Field(
        default=None, description="scale of one client's noise in units of the integers", examples=[5.0]
    )
    num_shares: fields.Whole | None = Field(
        default=None, description="clients whose noise is in the sum", examples=[100]
    )
    variance: fields.Positive | None = Field(
        default=None, description="of the noise in squared units of the integers", examples=[2500.0]
    )
    l2_sensitivity: fields.Positive | None = Field(
        default=None, description="largest L2 norm of one unit's integer vector, rounding included", examples=[60.0]
    )
    levels: fields.Whole | None = Field(default=None, description="levels that numbers are rounded to", examples=[16])
    margin: fields.Positive | None = Field(
        default=None, description="from the largest number to the outermost level", examples=[1.0]
    )
    trials: fields.Whole | None = Field(default=None, description="coins per number", examples=[16])
    theta: fields.Positive | None = Field(
        default=None, description="bias of the coins at the largest number, below 1/2", examples=[0.25]
    )
    clip: fields.Positive | None = Field(
        default=None, description="largest absolute number that is reported", examples=[1.0]
    )
    clients: fields.Whole | None = Field(
        default=None, description="whose reports are added up before anyone sees them", examples=[100]
    )
    noise_parameter: fields.Share | None = Field(
        default=None, description="probability of reporting a bucket at random", examples=[0.5]
    )
    num_buckets: fields.Whole | None = Field(default=None, description="of randomized response", examples=[2])
    dimension: fields.Whole | None = Field(
        default=None, description="numbers in one unit's contribution", examples=[1_000]
    )

    @property
    def numbers(self) -> dict[str, Any]:
        """What its privacy depends on, as far as it was given."""
        kind = KINDS[self.kind]
        return {key: value for key in (*kind.needed, *kind.optional) if (value := getattr(self, key)) is not None}


class PrivacySection(Section):
    """`[privacy]`: what is guaranteed, and how it is accounted for."""

    delta: fields.Delta = Field(description="well below one over the number of units", examples=[1e-5])
    relation: fields.Relation = Field(
        description="add_or_remove_one, replace_one or replace_special", examples=["add_or_remove_one"]
    )
    accountant: fields.Accountant = Field(
        default="pld", description="pld, rdp or zcdp; monte_carlo for balls_in_bins", examples=["pld"]
    )
    samples: fields.Whole = Field(
        default=100_000, description="draws of the Monte Carlo accountant", examples=[100_000]
    )
    failure_probability: fields.Delta = Field(
        default=1e-9, description="that a Monte Carlo bound is wrong, on top of delta", examples=[1e-9]
    )
    seed: fields.Natural | None = Field(
        default=None, description="of the draws, fixed before any result is seen", examples=[0]
    )


class StrategySection(Section):
    """`[strategy]`: how the noise of the steps is correlated. Without this table it is independent."""

    kind: fields.Strategy | None = Field(
        default=None, description="the family; " + ", ".join(fields.STRATEGIES), examples=["banded"]
    )
    file: fields.Text | None = Field(
        default=None, description="a strategy that was saved before, relative to the config", examples=["strategy.npz"]
    )
    num_bands: fields.Whole | None = Field(default=None, description="diagonals of the matrix", examples=[32])
    num_buffers: fields.Whole | None = Field(default=None, description="model-sized buffers of a blt", examples=[3])
    column_norms: fields.ColumnNorms | None = Field(
        default=None, description="optimal or equal, for banded", examples=["optimal"]
    )
    window_scales: fields.Switch = Field(
        default=False,
        description="whether noise may grow from one window of min_sep steps to the next",
        examples=[True],
    )
    objective: fields.Objective = Field(
        default="rmse", description="rmse or max_error: what optimization makes least", examples=["rmse"]
    )

    @property
    def name(self) -> str:
        """The strategy in a few words; empty without one."""
        if self.file is not None or self.kind is None:
            return self.file or ""
        numbers = [f"{key} = {value}" for key in ("num_bands", "num_buffers") if (value := getattr(self, key))]
        kind = f"{self.kind}, scaled by window" if self.window_scales else self.kind
        return f"{kind} ({', '.join(numbers)})" if numbers else kind


class OptimizerSection(Section):
    """`[optimizer]`: whose iterates' error counts when a strategy is optimized. Plain SGD without this table."""

    momentum: fields.Momentum = Field(default=0.0, description="in [0, 1)", examples=[0.9])
    weight_decay: fields.NonNegative = Field(default=0.0, description="decoupled, per step", examples=[1e-4])
    learning_rate: fields.Positive = Field(default=1.0, description="at the first step", examples=[0.1])
    cooldown: fields.Share = Field(
        default=0.0, description="last share of the steps, over which the rate falls to a twentieth", examples=[0.25]
    )


class ReportSection(Section):
    """`[report]`: free text, for what no number can answer. Every key is optional."""

    title: fields.Text | None = Field(default=None, examples=["MNIST with DP-SGD"])
    setting: fields.Text | None = Field(default=None, examples=["central; the training cluster is trusted"])
    data_accesses: fields.Text | None = Field(default=None, examples=["this one run; nothing else read the data"])
    output: fields.Text | None = Field(default=None, examples=["the final model only"])
    contribution: fields.Text | None = Field(default=None, examples=["one image with its label"])
    sampling_in_code: fields.Text | None = Field(default=None, examples=["Poisson, as accounted for"])
    tuning: fields.Text | None = Field(default=None, examples=["on public data only"])
    floating_point: fields.Text | None = Field(default=None, examples=["float32 Gaussian noise, not hardened"])
    code: fields.Text | None = Field(default=None, examples=["https://example.org/train at commit 1234567"])
    audit: fields.Text | None = Field(default=None, examples=["one-run audit: epsilon >= 0.4 at 95 %"])
