"""What each step of a run releases, and what one unit contributes to it, in plain words."""

from collections.abc import Callable, Iterator

from dpkit.training.config import TrainingConfig

_HIDDEN_SEED = (
    "Noise is independent between steps and coordinates, its random seed stays secret, and it is real-valued: what "
    "floating-point samplers leak is not covered."
)
_EXACT_NOISE = (
    "Noise is independent between steps and coordinates and is drawn exactly, as `release_exactly` does from the "
    "operating system's generator; what floating-point samplers leak is not covered."
)
_FRESH_CHOICES = (
    "The random choices behind every report are fresh, independent and never revealed; they are exact: what "
    "floating-point generators leak is not covered."
)


def release(config: TrainingConfig) -> Iterator[str]:
    """What a step has to do for its numbers to hold."""
    return _correlated(config) if config.correlated else _RELEASES[config.mechanism.kind](config)


def contribution(config: TrainingConfig) -> Iterator[str]:
    """What may depend on one unit, and how much."""
    kind, unit = config.mechanism.kind, config.data.unit
    if kind == "zcdp":
        return
    if unit == "example":
        yield f"Each example's contribution to a step is {limit(config)}."
    else:
        yield f"All data of a {unit} in a step form one contribution, {limit(config)}, and no two {unit}s share data."
    yield (
        f"No contribution depends on other {unit}s except through noisy outputs (batch normalization, for instance, "
        "breaks this)."
    )


def limit(config: TrainingConfig) -> str:
    """The most that one unit contributes to a step; nothing is said of a declared rho."""
    return _LIMITS.get(config.mechanism.kind, _l2_limit)(config)


def _clip_norm(config: TrainingConfig) -> str:
    clip = config.mechanism.l2_clip_norm
    return "the clip norm" if clip is None else f"the clip norm {clip}"


def _sum(config: TrainingConfig, what: str, each: str = "the sum of the clipped contributions") -> str:
    if config.training.sampling == "poisson":
        return (
            f"Every step {what} {each}, and then divides, if at all, by the expected batch size "
            f"{config.training.batch_size:,}, never by the number that happened to be drawn; an empty batch still "
            "releases noise."
        )
    return f"Every step {what} {each}, and divides, if at all, by a constant."


def _noise(name: str, scale: str) -> Callable[[TrainingConfig], Iterator[str]]:
    def words(config: TrainingConfig) -> Iterator[str]:
        amount = f"{config.mechanism.noise_multiplier} times {_clip_norm(config)}"
        yield _sum(config, f"adds fresh {name} noise of {scale} {amount} to")
        if name == "Laplace":
            yield "The noisy sum is a single number: several coordinates would need an L1 bound and another analysis."
        yield _HIDDEN_SEED

    return words


def _declared(config: TrainingConfig) -> Iterator[str]:
    yield (
        f"Each step is {config.mechanism.rho}-zCDP for one {config.data.unit} under {config.privacy.relation}, as its "
        "authors proved; dpkit takes their word for it."
    )


def _rectified(config: TrainingConfig) -> Iterator[str]:
    yield from _noise("Gaussian", "standard deviation")(config)
    yield f"Every coordinate of the noisy sum is clipped to {_box(config)}."


def _truncated(config: TrainingConfig) -> Iterator[str]:
    mechanism = config.mechanism
    yield (
        f"Every coordinate of the sum of the clipped contributions is replaced by a fresh draw from the normal law of "
        f"standard deviation {mechanism.noise_multiplier} times {_clip_norm(config)} around it, conditioned on "
        f"{_box(config)}; the result is divided, if at all, by a constant."
    )
    if mechanism.coordinates is not None:
        yield (
            f"The sum has {mechanism.coordinates:,} coordinates, to each of which a {config.data.unit} contributes at "
            f"most 1/sqrt({mechanism.coordinates}) of {_clip_norm(config)}."
        )
    if mechanism.value_range is not None:
        least, largest = mechanism.value_range
        yield f"Before the draw every coordinate is clipped to [{least}, {largest}] times {_clip_norm(config)}."
    yield _HIDDEN_SEED


def _box(config: TrainingConfig) -> str:
    ends = f"[{config.mechanism.lower}, {config.mechanism.upper}]"
    return f"the box {ends} times {_clip_norm(config)}, which was fixed without looking at the data"


def _sparsified(config: TrainingConfig) -> Iterator[str]:
    mechanism = config.mechanism
    yield (
        f"Every {config.data.unit} keeps each of its {mechanism.dimension:,} coordinates independently with "
        f"probability {mechanism.keep_probability}, afresh in every step, and sends those."
    )
    yield (
        "The masks stay hidden forever: nobody but a trusted server or secure aggregation sees which coordinates were "
        "sent."
    )
    yield from _noise("Gaussian", "standard deviation")(config)


def _integer_noise(name: str, *keys: str) -> Callable[[TrainingConfig], Iterator[str]]:
    def words(config: TrainingConfig) -> Iterator[str]:
        amount = " and ".join(f"{key} {getattr(config.mechanism, key)}" for key in keys)
        dimension = config.mechanism.dimension or 1
        coordinates = "the sum" if dimension == 1 else f"each of the {dimension:,} coordinates of the sum"
        yield _sum(config, f"adds fresh {name} noise of {amount} to", f"{coordinates} of the integer contributions")
        yield _EXACT_NOISE

    return words


def _distributed(config: TrainingConfig) -> Iterator[str]:
    mechanism = config.mechanism
    yield (
        f"In every step at least {mechanism.num_shares:,} clients that neither drop out nor collude each add fresh "
        f"discrete Gaussian noise of local_sigma {mechanism.local_sigma} to every coordinate of what they send."
    )
    yield "Only the sum over the clients is seen (secure aggregation), divided, if at all, by a constant."
    yield _EXACT_NOISE


def _reports(maker: str) -> Callable[[TrainingConfig], Iterator[str]]:
    def words(config: TrainingConfig) -> Iterator[str]:
        unit, clients, dimension = config.data.unit, config.mechanism.clients or 1, config.mechanism.dimension or 1
        numbers = "its number" if dimension == 1 else f"each of its {dimension:,} numbers"
        yield f"In every step it takes part in, a {unit} reports {numbers} through {maker}, and nothing else."
        if clients > 1:
            yield (
                f"Only the sum of the reports of {clients:,} {unit}s or more is seen (secure aggregation); {unit}s "
                "that drop out or collude do not count."
            )
        yield _FRESH_CHOICES

    return words


def _l2_limit(config: TrainingConfig) -> str:
    itself = " by itself" if config.data.unit == "example" else ""
    size = "size" if config.mechanism.kind == "laplace" else "L2 norm"
    return f"clipped{itself} to {size} at most {_clip_norm(config)}"


def _sparsified_limit(config: TrainingConfig) -> str:
    return f"{_l2_limit(config)}, and its entries to {config.mechanism.linf_clip or 1.0} times that"


def _integer_limit(config: TrainingConfig) -> str:
    norm = config.mechanism.l2_sensitivity or 1.0
    return f"a vector of integers of L2 norm at most {norm}, rounding included"


def _number_limit(config: TrainingConfig) -> str:
    return f"made of numbers clipped to [-{config.mechanism.clip}, {config.mechanism.clip}]"


def _bucket_limit(config: TrainingConfig) -> str:
    return f"one of {config.mechanism.num_buckets or 2} buckets for each of its numbers"


def _correlated(config: TrainingConfig) -> Iterator[str]:
    amplified = config.training.sampling in ("cyclic_poisson", "balls_in_bins")
    sensitivity = "largest norm of a column of C" if amplified else "sensitivity of C under this participation"
    yield (
        f"The noise of step t is row t of C^-1 Z, for the matrix C of the strategy {config.strategy.name} and "
        f"Gaussian Z of standard deviation {config.mechanism.noise_multiplier} times {_clip_norm(config)} times the "
        f"{sensitivity}; it is added to the sum of the clipped contributions, which is "
        "divided, if at all, by a constant."
    )
    yield (
        "Z is independent between steps and coordinates, its random seed stays secret, and a step that is run again "
        "after a restart repeats its noise and its contributions exactly; Z is real-valued: what floating-point "
        "samplers leak is not covered."
    )


_RELEASES: dict[str, Callable[[TrainingConfig], Iterator[str]]] = {
    "gaussian": _noise("Gaussian", "standard deviation"),
    "laplace": _noise("Laplace", "scale"),
    "zcdp": _declared,
    "rectified_gaussian": _rectified,
    "truncated_gaussian": _truncated,
    "sparsified_gaussian": _sparsified,
    "discrete_gaussian": _integer_noise("discrete Gaussian", "sigma"),
    "skellam": _integer_noise("Skellam", "variance"),
    "distributed_discrete_gaussian": _distributed,
    "randomized_quantization": _reports("randomized quantization"),
    "poisson_binomial": _reports("the Poisson binomial mechanism"),
    "randomized_response": _reports("randomized response"),
}
_LIMITS = {
    "sparsified_gaussian": _sparsified_limit,
    "discrete_gaussian": _integer_limit,
    "skellam": _integer_limit,
    "distributed_discrete_gaussian": _integer_limit,
    "randomized_quantization": _number_limit,
    "poisson_binomial": _number_limit,
    "randomized_response": _bucket_limit,
}
