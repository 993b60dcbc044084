"""Events in and out, and agreement with the library they come from, whose own errors are pinned with a proof each."""

import math
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event, pld, rdp
from hypothesis import given
from hypothesis import strategies as st

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.interop.dp_accounting import UnsupportedEventError, from_event, to_event
from examples import ROWS, by_name
from mechanisms.exact import mp

ADD, REPLACE, SPECIAL = NeighboringRelation
THEIRS = dp_accounting.NeighboringRelation
RELATIONS = {ADD: THEIRS.ADD_OR_REMOVE_ONE, REPLACE: THEIRS.REPLACE_ONE, SPECIAL: THEIRS.REPLACE_SPECIAL}

GAUSSIAN = dp_event.GaussianDpEvent(1.0)
RESPONSE = dp_event.RandomizedResponseDpEvent(0.5, 2)


def parts(mechanism):
    return list(mechanism.parts())


# ---- translation -----------------------------------------------------------------------------------------------------


def sampled(event, q=0.1):
    return dp_event.PoissonSampledDpEvent(q, event)


def without_replacement(event, sample_size=10):
    return dp_event.SampledWithoutReplacementDpEvent(source_dataset_size=100, sample_size=sample_size, event=event)


TRANSLATIONS = {
    "no-op": (dp_event.NoOpDpEvent(), []),
    "non-private": (dp_event.NonPrivateDpEvent(), [(mechanisms.Gaussian(0.0), 1)]),
    "gaussian": (GAUSSIAN, [(mechanisms.Gaussian(1.0), 1)]),
    "gaussian-without-noise": (dp_event.GaussianDpEvent(0.0), [(mechanisms.Gaussian(0.0), 1)]),
    "laplace": (dp_event.LaplaceDpEvent(2.0), [(mechanisms.Laplace(2.0), 1)]),
    "response": (dp_event.RandomizedResponseDpEvent(0.25, 5), [(mechanisms.RandomizedResponse(0.25, 5), 1)]),
    "response-of-one-bucket": (dp_event.RandomizedResponseDpEvent(0.0, 1), []),
    "zcdp": (dp_event.ZCDpEvent(0.3), [(mechanisms.ZeroConcentrated(0.3), 1)]),
    "mixture": (
        dp_event.MixtureOfGaussiansDpEvent(2.0, [0, 1.0], [0.5, 0.5]),
        [(mechanisms.MixtureOfGaussians(2.0, (0.0, 1.0), (0.5, 0.5)), 1)],
    ),
    "mixture-without-noise": (
        dp_event.MixtureOfGaussiansDpEvent(0.0, [0.0, 1.0, 2.0], [0.5, 0.25, 0.25]),
        [(mechanisms.PoissonSampled(mechanisms.Gaussian(0.0), 0.5), 1)],
    ),
    "sampled-gaussian": (sampled(GAUSSIAN), [(mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), 0.1), 1)]),
    "sampled-laplace": (
        sampled(dp_event.LaplaceDpEvent(1.0)),
        [(mechanisms.PoissonSampled(mechanisms.Laplace(1.0), 0.1), 1)],
    ),
    "fixed-size-gaussian": (
        without_replacement(GAUSSIAN),
        [(mechanisms.FixedSizeSampled(mechanisms.Gaussian(1.0), batch_size=10, population=100), 1)],
    ),
    "fixed-size-composition": (
        without_replacement(dp_event.SelfComposedDpEvent(GAUSSIAN, 3)),
        [(mechanisms.FixedSizeSampled(mechanisms.repeat(mechanisms.Gaussian(1.0), 3), 10, 100), 1)],
    ),
    "fixed-size-no-op": (without_replacement(dp_event.NoOpDpEvent()), []),
    "sampled-no-op": (sampled(dp_event.NoOpDpEvent()), []),
    "sampled-once-repeated": (
        sampled(dp_event.SelfComposedDpEvent(GAUSSIAN, 1)),
        [(mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), 0.1), 1)],
    ),
    "many": (dp_event.SelfComposedDpEvent(sampled(GAUSSIAN), 10**12), [
        (mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), 0.1), 10**12)
    ]),
    "many-of-many": (
        dp_event.SelfComposedDpEvent(
            dp_event.ComposedDpEvent([GAUSSIAN, dp_event.SelfComposedDpEvent(dp_event.LaplaceDpEvent(3.0), 7)]), 10**6
        ),
        [(mechanisms.Gaussian(1.0), 10**6), (mechanisms.Laplace(3.0), 7 * 10**6)],
    ),
    "none": (dp_event.SelfComposedDpEvent(GAUSSIAN, 0), []),
    "empty": (dp_event.ComposedDpEvent([]), []),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_from_event(name):
    event, expected = TRANSLATIONS[name]
    assert parts(from_event(event)) == expected


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_events_survive_the_way_there_and_back(name):
    mechanism = from_event(TRANSLATIONS[name][0])
    assert parts(from_event(to_event(mechanism))) == parts(mechanism)


WITH_EVENT = (
    mechanisms.Gaussian, mechanisms.Laplace, mechanisms.RandomizedResponse, mechanisms.MixtureOfGaussians,
    mechanisms.ZeroConcentrated,
)  # fmt: skip


def has_event(row) -> bool:
    part = next(row.mechanism.parts())[0]
    sampled = isinstance(part, mechanisms.PoissonSampled | mechanisms.FixedSizeSampled)
    return type(part.mechanism if sampled else part) in WITH_EVENT


@pytest.mark.parametrize("row", **by_name([r for r in ROWS if not has_event(r) and r.name != "rectified"]))
def test_mechanisms_without_an_event_are_refused_by_name(row):
    with pytest.raises(UnsupportedEventError, match=r"dp_accounting has no event"):
        to_event(row.mechanism)


def test_a_rectified_gaussian_is_at_most_the_gaussian_event():
    assert to_event(mechanisms.RectifiedGaussian(1.0, -9.0, 9.0)) == dp_event.GaussianDpEvent(1.0)


@pytest.mark.parametrize("row", **by_name([r for r in ROWS if has_event(r) and r.name != "sampled-response"]))
def test_every_mechanism_survives_the_way_there_and_back(row):
    run = mechanisms.compose(mechanisms.repeat(row.mechanism, 10**9), row.mechanism)
    assert parts(from_event(to_event(run))) == parts(run)
    # Their events can be compared and stored; ours must be made of plain values.
    assert dp_event.DpEvent.from_named_tuple(to_event(run).to_named_tuple()) == to_event(run)


FINITE = st.floats(1e-3, 1e3)
WEIGHTS = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6)


@st.composite
def mixtures(draw):
    weights = draw(WEIGHTS)
    total = math.fsum(weights)
    sensitivities = draw(st.lists(st.floats(0, 10), min_size=len(weights), max_size=len(weights)))
    return mechanisms.MixtureOfGaussians(draw(FINITE), sensitivities, [w / total for w in weights])


ELEMENTARY = st.one_of(
    st.builds(mechanisms.Gaussian, FINITE),
    st.builds(mechanisms.Laplace, FINITE),
    st.builds(mechanisms.ZeroConcentrated, FINITE),
    mixtures(),
)
STEPS = ELEMENTARY | st.builds(mechanisms.PoissonSampled, ELEMENTARY, st.floats(0, 1)) | st.builds(
    mechanisms.RandomizedResponse, st.floats(0, 1), st.integers(2, 100)
)  # fmt: skip
RUNS = st.recursive(
    STEPS,
    lambda inner: (
        st.builds(mechanisms.repeat, inner, st.integers(0, 10**15))
        | st.lists(inner, max_size=4).map(lambda several: mechanisms.compose(*several))
    ),
    max_leaves=6,
)


@given(RUNS)
def test_any_run_survives_the_way_there_and_back(run):
    assert parts(from_event(to_event(run))) == parts(run)


REFUSED = {
    "unknown": dp_event.UnsupportedDpEvent(),
    "response-without-replacement": without_replacement(dp_event.ComposedDpEvent([GAUSSIAN, RESPONSE])),
    "sampled-twice": sampled(without_replacement(GAUSSIAN)),
    "with-replacement": dp_event.SampledWithReplacementDpEvent(100, 10, GAUSSIAN),
    "tree": dp_event.SingleEpochTreeAggregationDpEvent(1.0, 8),
    "truncated": dp_event.TruncatedSubsampledGaussianDpEvent(100, 0.1, 20, 1.0),
    "discrete": dp_event.DiscreteLaplaceDpEvent(1.0, 1),
    "selection": dp_event.RepeatAndSelectDpEvent(GAUSSIAN, 10, 1),
    "xi": dp_event.ZCDpEvent(0.1, xi=0.2),
    "sampled-response": sampled(RESPONSE),
    "sampled-composition": sampled(dp_event.ComposedDpEvent([GAUSSIAN, GAUSSIAN])),
    "sampled-repetition": sampled(dp_event.SelfComposedDpEvent(GAUSSIAN, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("wrap", ["alone", "nested"])
def test_what_cannot_be_accounted_is_refused_and_named(name, wrap):
    bad = REFUSED[name]
    nested = dp_event.ComposedDpEvent([GAUSSIAN, dp_event.SelfComposedDpEvent(bad, 3)])
    with pytest.raises(UnsupportedEventError) as error:
        from_event(bad if wrap == "alone" else nested)
    message = str(error.value)
    assert isinstance(error.value, NotImplementedError)
    assert error.value.value == bad
    assert message.startswith(str(bad))
    assert "would work" in message or "account" in message or "valid" in message or "compose" in message


def test_a_subclass_with_another_meaning_is_not_mistaken_for_its_parent():
    class Mystery(dp_event.GaussianDpEvent):
        pass

    with pytest.raises(UnsupportedEventError, match="GaussianDpEvent, LaplaceDpEvent"):
        from_event(Mystery(1.0))


@pytest.mark.parametrize("bad", [None, "gaussian", mechanisms.Gaussian(1.0)])
def test_not_an_event(bad):
    with pytest.raises(UnsupportedEventError):
        from_event(bad)


@pytest.mark.parametrize(
    "mechanism",
    [
        mechanisms.PoissonSampled(mechanisms.RandomizedResponse(0.5, 2), 0.1),
        mechanisms.FixedSizeSampled(mechanisms.RandomizedResponse(0.5, 2), 10, 100),
        "not a mechanism",
    ],
)
def test_mechanisms_without_an_event_are_refused_and_named(mechanism):
    with pytest.raises(UnsupportedEventError) as error:
        to_event(mechanism)
    assert str(error.value).startswith(str(mechanism))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (dp_event.GaussianDpEvent(-1.0), "noise_multiplier must be >= 0, got -1.0"),
        (dp_event.LaplaceDpEvent(math.nan), "noise_multiplier must be finite, got nan"),
        (sampled(GAUSSIAN, 1.5), "sampling_probability must be a probability"),
        (without_replacement(GAUSSIAN, 101), "batch_size must be"),
        (without_replacement(GAUSSIAN, 0), "batch_size must be >= 1, got 0"),
        (dp_event.SelfComposedDpEvent(GAUSSIAN, -1), "count must be >= 0, got -1"),
        (dp_event.SelfComposedDpEvent(GAUSSIAN, 2.0), "count must be an integer, got 2.0"),  # type: ignore
        (dp_event.RandomizedResponseDpEvent(1.5, 2), "noise_parameter must be a probability"),
        (dp_event.MixtureOfGaussiansDpEvent(1.0, [1.0], [0.5]), "probabilities must sum to 1"),
    ],
)
def test_bad_parameters_are_value_errors(event, message):
    with pytest.raises(ValueError, match=message):
        from_event(event)


@pytest.mark.parametrize("relation", NeighboringRelation)
@pytest.mark.parametrize("kind", [accounting.PldAccountant, accounting.RdpAccountant, accounting.ZcdpAccountant])
def test_non_private_events_are_infinitely_revealing(kind, relation):
    run = from_event(dp_event.ComposedDpEvent([GAUSSIAN, dp_event.NonPrivateDpEvent()]))
    assert kind(relation=relation).epsilon(run, delta=0.9).upper == math.inf


# ---- agreement -------------------------------------------------------------------------------------------------------

SPREAD = dp_event.MixtureOfGaussiansDpEvent(1.5, [0.0, 0.5, 1.0, 2.0], [0.5, 0.2, 0.2, 0.1])
REPEATED = dp_event.SelfComposedDpEvent
ONE_SIDED = (ADD, SPECIAL)

SHARED = {
    "gaussian": (GAUSSIAN, (ADD, REPLACE, SPECIAL)),
    "gaussians": (REPEATED(dp_event.GaussianDpEvent(10.0), 100), (ADD, REPLACE, SPECIAL)),
    "laplace": (dp_event.LaplaceDpEvent(2.0), ONE_SIDED),
    "laplaces": (REPEATED(dp_event.LaplaceDpEvent(5.0), 20), ONE_SIDED),
    "response": (RESPONSE, (REPLACE, SPECIAL)),
    "response-wide": (dp_event.RandomizedResponseDpEvent(0.2, 10), (REPLACE, SPECIAL)),
    "responses-one-by-one": (dp_event.ComposedDpEvent([RESPONSE] * 20), (REPLACE, SPECIAL)),
    "sampled-gaussians": (REPEATED(sampled(dp_event.GaussianDpEvent(1.1), 0.01), 1000), ONE_SIDED),
    "sampled-gaussians-often": (REPEATED(sampled(dp_event.GaussianDpEvent(2.0), 0.5), 20), ONE_SIDED),
    "sampled-always": (sampled(GAUSSIAN, 1.0), ONE_SIDED),
    "sampled-laplaces": (REPEATED(sampled(dp_event.LaplaceDpEvent(1.0), 0.1), 50), ONE_SIDED),
    "mixtures": (REPEATED(SPREAD, 5), ONE_SIDED),
    "mixed": (
        dp_event.ComposedDpEvent(
            [REPEATED(sampled(GAUSSIAN, 0.02), 100), dp_event.GaussianDpEvent(4.0), dp_event.LaplaceDpEvent(10.0)]
        ),
        ONE_SIDED,
    ),
}
CASES = [pytest.param(event, r, id=f"{name}-{r}") for name, (event, relations) in SHARED.items() for r in relations]


@pytest.mark.parametrize(("event", "relation"), CASES)
def test_epsilon_agrees(event, relation):
    theirs = pld.PLDAccountant(RELATIONS[relation], value_discretization_interval=1e-3)
    theirs.compose(event)
    for delta in (1e-3, 1e-6):
        pessimistic = theirs.get_epsilon(delta)
        ours = accounting.PldAccountant(relation=relation).epsilon(from_event(event), delta=delta)
        # Theirs is an upper bound, so it cannot lie below our lower one; it is tight, so ours cannot lie far above.
        assert ours.lower <= pessimistic * (1 + 1e-6) + 1e-9
        assert ours.upper <= pessimistic * (1 + 1e-3) + 1e-6
        assert ours.upper >= pessimistic * (1 - 2e-3) - 1e-3


RENYI_ORDERS = [1.5, 2.0, 4.0, 8.0, 32.0]
INTEGER = slice(1, None)


@pytest.mark.parametrize(
    "event",
    [
        GAUSSIAN,
        REPEATED(dp_event.LaplaceDpEvent(2.0), 7),
        REPEATED(sampled(dp_event.GaussianDpEvent(1.1), 0.01), 1000),
        sampled(dp_event.GaussianDpEvent(0.5), 0.3),
        dp_event.ZCDpEvent(0.2),
    ],
    ids=["gaussian", "laplaces", "sampled-gaussians", "sampled-often", "zcdp"],
)
def test_divergences_agree(event):
    theirs = rdp.RdpAccountant(RENYI_ORDERS)
    theirs.compose(event)
    ours = sum(count * part.rdp(RENYI_ORDERS, ADD) for part, count in from_event(event).parts())
    assert ours[INTEGER] == pytest.approx(theirs._rdp[INTEGER], rel=1e-9)
    # Their series for fractional orders is an upper bound that may be far above, or not converge at all.
    assert np.all(ours <= theirs._rdp * (1 + 1e-9))


@pytest.mark.parametrize(("noise", "sample_size"), [(1.0, 10), (4.0, 5), (1.5, 1)])
def test_samples_of_a_fixed_size_are_within_their_bound(noise, sample_size):
    """A replaced record moves the sum by 2 here and by 1 there, where a bound for any mechanism is used."""
    theirs = rdp.RdpAccountant(RENYI_ORDERS[INTEGER], THEIRS.REPLACE_ONE)
    theirs.compose(without_replacement(dp_event.GaussianDpEvent(noise), sample_size))
    ours = from_event(without_replacement(dp_event.GaussianDpEvent(2 * noise), sample_size))
    divergences = np.asarray(ours.rdp(RENYI_ORDERS[INTEGER], REPLACE))
    assert np.all(divergences <= theirs._rdp * (1 + 1e-9))
    assert np.all(divergences >= theirs._rdp / 4)


# ---- where the other side is wrong -----------------------------------------------------------------------------------


def responses_epsilon(noise_parameter: Fraction, count: int, delta: float) -> float:
    """Epsilon of `count` two-bucket randomized responses, from the exact binomial profile."""
    lie = noise_parameter / 2
    truth = 1 - lie

    def profile(growth: Fraction) -> Fraction:
        return sum(
            (
                math.comb(count, k)
                * max(Fraction(0), truth**k * lie ** (count - k) - growth * truth ** (count - k) * lie**k)
                for k in range(count + 1)
            ),
            Fraction(0),
        )

    low, high = 0.0, count * math.log(truth / lie)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if profile(Fraction(math.exp(middle))) > Fraction(delta) else (low, middle)
    return high


def test_repeated_randomized_response_counts_every_repetition():
    """dp_accounting drops the count of a self-composed randomized response: 1.10 instead of 94.3."""
    run, delta = REPEATED(RESPONSE, 100), 1e-6
    truth = responses_epsilon(Fraction(1, 2), 100, delta)
    assert truth == pytest.approx(94.3, abs=0.05)

    theirs = pld.PLDAccountant(THEIRS.REPLACE_ONE)
    theirs.compose(run)
    one = pld.PLDAccountant(THEIRS.REPLACE_ONE)
    one.compose(RESPONSE)
    assert theirs.get_epsilon(delta) == one.get_epsilon(delta) == pytest.approx(math.log(3), abs=1e-3)

    one_by_one = pld.PLDAccountant(THEIRS.REPLACE_ONE, value_discretization_interval=1e-3)
    one_by_one.compose(dp_event.ComposedDpEvent([RESPONSE] * 100))
    assert one_by_one.get_epsilon(delta) == pytest.approx(truth, abs=0.1)

    ours = accounting.PldAccountant(relation=REPLACE).epsilon(from_event(run), delta=delta)
    assert ours.lower <= truth <= ours.upper
    assert ours.upper <= truth * (1 + 2e-3)


def test_a_replaced_gaussian_record_moves_the_sum_by_two():
    """dp_accounting's Renyi accountant takes a replaced record of a Gaussian for a removed one: 5.2 instead of 11."""
    delta = 1e-6

    def gaussian_epsilon(mu: int) -> float:
        def excess(epsilon):
            tail = mp.ncdf(mp.mpf(mu) / 2 - epsilon / mu)
            return mp.log(tail - mp.exp(epsilon) * mp.ncdf(-mp.mpf(mu) / 2 - epsilon / mu)) - mp.log(mp.mpf(delta))

        return float(mp.findroot(excess, (5 * mu, 6 * mu)))

    truth = gaussian_epsilon(2)
    assert truth == pytest.approx(11.0, abs=0.1)

    renyi = rdp.RdpAccountant(neighboring_relation=THEIRS.REPLACE_ONE)
    renyi.compose(GAUSSIAN)
    removed = rdp.RdpAccountant(neighboring_relation=THEIRS.ADD_OR_REMOVE_ONE)
    removed.compose(GAUSSIAN)
    assert renyi.get_epsilon(delta) == removed.get_epsilon(delta) == pytest.approx(5.2, abs=0.1)
    assert renyi.get_epsilon(delta) < truth / 2

    distribution = pld.PLDAccountant(THEIRS.REPLACE_ONE)
    distribution.compose(GAUSSIAN)
    assert distribution.get_epsilon(delta) == pytest.approx(truth, rel=1e-3)

    gaussian = from_event(GAUSSIAN)
    ours = accounting.PldAccountant(relation=REPLACE).epsilon(gaussian, delta=delta)
    assert ours.lower <= truth <= ours.upper <= truth * (1 + 1e-3)
    for kind in (accounting.RdpAccountant, accounting.ZcdpAccountant):
        assert truth <= kind(relation=REPLACE).epsilon(gaussian, delta=delta).upper <= truth * 1.1


def test_accountants_take_events_as_they_are():
    event = dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(0.01, dp_event.GaussianDpEvent(1.1)), 1000)
    for accountant in (accounting.PldAccountant(), accounting.RdpAccountant(), accounting.ZcdpAccountant()):
        mechanism = from_event(event)
        assert accountant.epsilon(event, delta=1e-5) == accountant.epsilon(mechanism, delta=1e-5)
        assert accountant.delta(event, epsilon=1.0) == accountant.delta(mechanism, epsilon=1.0)
        assert (
            accounting.sweep([event, mechanism], accountant, delta=1e-5) == [accountant.epsilon(event, delta=1e-5)] * 2
        )
    with pytest.raises(UnsupportedEventError):
        accounting.PldAccountant().epsilon(dp_event.UnsupportedDpEvent(), delta=1e-5)
