"""Google's `dp_accounting` events in and out, so that an existing description of a run keeps its use.

Counts stay counts: a mechanism repeated a million times is one event, and the reverse.
"""

from collections.abc import Callable
from typing import Any

from dp_accounting import dp_event

from dpkit import mechanisms
from dpkit.mechanisms import Mechanism


class UnsupportedEventError(NotImplementedError):
    """An event, or a mechanism, that has no faithful counterpart on the other side."""

    def __init__(self, value: Any, reason: str):
        super().__init__(f"{value} cannot be translated: {reason}")
        self.value = value


def from_event(event: dp_event.DpEvent) -> Mechanism:
    """The mechanism that an event describes.

    `NonPrivateDpEvent` becomes `Gaussian(noise_multiplier=0.0)`, whose two worlds share no outcome: epsilon is infinite
    at every delta below 1, under every relation and for every accountant. `NoOpDpEvent` becomes the empty composition.
    The neighbouring relation is no part of an event: it stays an argument of the accountant.

    Args:
        event: `NoOpDpEvent`, `NonPrivateDpEvent`, `GaussianDpEvent`, `LaplaceDpEvent`, `RandomizedResponseDpEvent`,
            `MixtureOfGaussiansDpEvent`, `ZCDpEvent` with xi = 0, `PoissonSampledDpEvent` of one of these (but not of
            randomized response), `SampledWithoutReplacementDpEvent` of several of these (likewise; accounted for under
            `REPLACE_ONE`), `ComposedDpEvent` and `SelfComposedDpEvent` of any of these, nested at will.

    Raises:
        UnsupportedEventError: some part is none of these; the message names it and what would work.
        ValueError: a parameter is out of range.

    >>> step = dp_event.PoissonSampledDpEvent(0.01, dp_event.GaussianDpEvent(1.1))
    >>> run = from_event(dp_event.SelfComposedDpEvent(step, 14_040))
    >>> list(run.parts())
    [(PoissonSampled(mechanism=Gaussian(noise_multiplier=1.1), sampling_probability=0.01), 14040)]
    """
    translate = _FROM_EVENT.get(type(event))
    if translate is None:
        raise UnsupportedEventError(event, _REMEDIES.get(type(event), f"dpkit accounts for {_SUPPORTED}"))
    return translate(event)


def to_event(mechanism: Mechanism) -> dp_event.DpEvent:
    """The event that describes `mechanism`; `from_event` gives back the same parts.

    Raises:
        UnsupportedEventError: `dp_accounting` has no event for some part; the message names it.

    >>> to_event(mechanisms.repeat(mechanisms.Laplace(20.0), 3))
    SelfComposedDpEvent(event=LaplaceDpEvent(noise_multiplier=20.0), count=3)
    """
    match mechanism:
        case mechanisms.Gaussian():
            return dp_event.GaussianDpEvent(mechanism.noise_multiplier)
        case mechanisms.Laplace():
            return dp_event.LaplaceDpEvent(mechanism.noise_multiplier)
        case mechanisms.RandomizedResponse():
            return dp_event.RandomizedResponseDpEvent(mechanism.noise_parameter, mechanism.num_buckets)
        case mechanisms.MixtureOfGaussians():
            return dp_event.MixtureOfGaussiansDpEvent(
                mechanism.noise_multiplier, mechanism.sensitivities, mechanism.probabilities
            )
        case mechanisms.ZeroConcentrated():
            return dp_event.ZCDpEvent(mechanism.rho)
        case mechanisms.PoissonSampled():
            _check_hidden(mechanism, mechanism.mechanism)
            return dp_event.PoissonSampledDpEvent(mechanism.sampling_probability, to_event(mechanism.mechanism))
        case mechanisms.FixedSizeSampled():
            _check_hidden(mechanism, mechanism.mechanism)
            inner = to_event(mechanism.mechanism)
            return dp_event.SampledWithoutReplacementDpEvent(mechanism.population, mechanism.batch_size, inner)
        case mechanisms.Composed():
            events = [_repeated_event(member, count) for member, count in mechanism.members]
            if not events:
                return dp_event.NoOpDpEvent()
            return events[0] if len(events) == 1 else dp_event.ComposedDpEvent(events)
    raise UnsupportedEventError(mechanism, "dp_accounting has no event for it")


def _repeated_event(mechanism: Mechanism, count: int) -> dp_event.DpEvent:
    event = to_event(mechanism)
    return event if count == 1 else dp_event.SelfComposedDpEvent(event, count)


def _randomized_response(event: dp_event.RandomizedResponseDpEvent) -> Mechanism:
    if event.num_buckets == 1:
        return mechanisms.compose()  # the only report there is tells nothing
    return mechanisms.RandomizedResponse(event.noise_parameter, event.num_buckets)


def _mixture_of_gaussians(event: dp_event.MixtureOfGaussiansDpEvent) -> Mechanism:
    if event.standard_deviation == 0:
        # Without noise the unit shows exactly when its sensitivity is not zero.
        mixture = mechanisms.MixtureOfGaussians(1.0, event.sensitivities, event.sampling_probs)
        pairs = zip(mixture.sensitivities, mixture.probabilities, strict=True)
        return mechanisms.PoissonSampled(mechanisms.Gaussian(0.0), min(1.0, sum(p for c, p in pairs if c > 0)))
    return mechanisms.MixtureOfGaussians(event.standard_deviation, event.sensitivities, event.sampling_probs)


def _zero_concentrated(event: dp_event.ZCDpEvent) -> Mechanism:
    if event.xi != 0:
        raise UnsupportedEventError(
            event, "only xi = 0 is accounted for; ZCDpEvent(rho + xi) is a valid, larger guarantee"
        )
    return mechanisms.ZeroConcentrated(event.rho)


def _poisson_sampled(event: dp_event.PoissonSampledDpEvent) -> Mechanism:
    base = from_event(event.event)
    parts = list(base.parts())
    if not parts:
        return base
    if len(parts) > 1 or parts[0][1] > 1:
        raise UnsupportedEventError(
            event,
            "several releases on one sample are not a composition of sampled ones; where each release draws its own "
            "sample, compose sampled events; n Gaussians on one sample are one Gaussian with noise / sqrt(n)",
        )
    if isinstance(parts[0][0], mechanisms.FixedSizeSampled):
        raise UnsupportedEventError(event, "a Poisson sample has no fixed size; only the inner event would work")
    _check_hidden(event, base)
    return mechanisms.PoissonSampled(parts[0][0], event.sampling_probability)


def _sampled_without_replacement(event: dp_event.SampledWithoutReplacementDpEvent) -> Mechanism:
    base = from_event(event.event)
    _check_hidden(event, base)
    sampled = mechanisms.FixedSizeSampled(base, batch_size=event.sample_size, population=event.source_dataset_size)
    return sampled if any(base.parts()) else base


def _check_hidden(value: Any, base: Mechanism) -> None:
    """Amplification needs that nobody sees who was drawn."""
    if any(isinstance(part, mechanisms.RandomizedResponse) for part, _ in base.parts()):
        raise UnsupportedEventError(value, _VISIBLE_SAMPLE)


_FROM_EVENT: dict[type, Callable[[Any], Mechanism]] = {
    dp_event.NoOpDpEvent: lambda _: mechanisms.compose(),
    dp_event.NonPrivateDpEvent: lambda _: mechanisms.Gaussian(0.0),
    dp_event.GaussianDpEvent: lambda event: mechanisms.Gaussian(event.noise_multiplier),
    dp_event.LaplaceDpEvent: lambda event: mechanisms.Laplace(event.noise_multiplier),
    dp_event.RandomizedResponseDpEvent: _randomized_response,
    dp_event.MixtureOfGaussiansDpEvent: _mixture_of_gaussians,
    dp_event.ZCDpEvent: _zero_concentrated,
    dp_event.PoissonSampledDpEvent: _poisson_sampled,
    dp_event.SampledWithoutReplacementDpEvent: _sampled_without_replacement,
    dp_event.SelfComposedDpEvent: lambda event: mechanisms.repeat(from_event(event.event), event.count),
    dp_event.ComposedDpEvent: lambda event: mechanisms.compose(*map(from_event, event.events)),
}

_SUPPORTED = ", ".join(kind.__name__ for kind in _FROM_EVENT)
_VISIBLE_SAMPLE = (
    "sampled randomized response shows by its missing reports who was drawn, which voids amplification; "
    "RandomizedResponseDpEvent without sampling would work"
)
_REMEDIES: dict[type, str] = {
    dp_event.SampledWithReplacementDpEvent: (
        "no amplification is accounted for samples that may hold a record twice; PoissonSampledDpEvent or "
        "SampledWithoutReplacementDpEvent is accounted for where that is how batches are really drawn"
    ),
    dp_event.TruncatedSubsampledGaussianDpEvent: (
        "truncated batches are not accounted for; PoissonSampledDpEvent is, where batches are not truncated"
    ),
    dp_event.SingleEpochTreeAggregationDpEvent: (
        "for a tree in which one record touches h nodes, GaussianDpEvent(noise_multiplier / sqrt(h)) would work"
    ),
    dp_event.DiscreteLaplaceDpEvent: "only continuous noise is accounted for; LaplaceDpEvent would work",
    dp_event.RepeatAndSelectDpEvent: (
        "a random number of runs is not accounted for; SelfComposedDpEvent of a fixed number would work"
    ),
}
