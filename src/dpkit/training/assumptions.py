"""What must be true of a run for its numbers to hold, and what their reader must know, in plain words."""

from collections.abc import Iterator

from dpkit.relations import NeighboringRelation
from dpkit.training import releases
from dpkit.training.config import TrainingConfig
from dpkit.training.fields import plain
from dpkit.training.kinds import KINDS
from dpkit.training.participation import participations, passes, probability_rule, sampling_probability

_SMALL_NOISE = 0.2
_RUN = (
    "At most the stated number of steps is run, and the settings above (also the number of units they were derived "
    "from) were fixed without looking at the data.",
    "The numbers cover the release of every step's noisy output, hence of every checkpoint and the final model, and "
    "nothing else: hyperparameter tuning, statistics and evaluations on the same data are not included.",
)


def assumptions(config: TrainingConfig) -> tuple[str, ...]:
    """Everything the guarantee depends on that dpkit cannot see, most often violated first."""
    return (*_sampling(config), *releases.release(config), *releases.contribution(config), *_RUN)


def plural(config: TrainingConfig) -> str:
    """The privacy units, in the plural."""
    return f"{config.data.unit}s"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _sampling(config: TrainingConfig) -> Iterator[str]:
    training, unit = config.training, config.data.unit
    count = participations(config)
    if training.sampling == "fixed_size":
        yield (
            f"Every step draws {training.batch_size:,} of the {config.data.population:,} {plural(config)} afresh, each "
            "set of so many with the same probability, independently of all other steps. Shuffled batches do not "
            "qualify."
        )
        yield f"Nobody learns which {plural(config)} a batch held, except through the noisy output."
        return
    if training.sampling == "balls_in_bins":
        yield from _bins(config)
        return
    if training.sampling == "cyclic_poisson":
        yield (
            f"The {plural(config)} were split into {training.num_groups:,} groups before the run without looking at "
            f"the data; step t draws a Poisson sample from group t mod {training.num_groups:,}, each {unit} of it "
            "independently of all others and of all other steps with probability "
            f"{probability_rule(config)}. Shuffled or fixed-size batches do not qualify."
        )
        if config.privacy.relation is NeighboringRelation.ADD_OR_REMOVE_ONE:
            yield f"Each {unit}'s group was drawn independently of the other {plural(config)}."
        yield f"Nobody learns which {plural(config)} a batch held, nor how many, except through the noisy output."
        return
    if count is None:
        yield (
            f"Every step draws a fresh Poisson sample: each {unit} joins independently of all others and of all other "
            f"steps with probability {training.batch_size:,}/{config.data.population:,} = "
            f"{sampling_probability(config):.6g}. Shuffled or fixed-size batches do not qualify."
        )
        yield f"Nobody learns which {plural(config)} a batch held, nor how many, except through the noisy output."
        return
    if training.sampling == "full_batch":
        yield f"Every step uses every {unit}; no amplification by sampling is claimed."
        return
    if training.sampling == "shuffle":
        made = f"{times(count)} in all"
        if training.epochs is not None:
            made += f", because the run stops after {plain(training.epochs)} passes over the data"
        yield (
            f"A pass over the shuffled data uses each {unit} in at most one batch and no batch spans two passes, so "
            f"each takes part at most {made}."
        )
    else:
        most = training.max_participations
        limit = "" if most is None else f", and no {unit} takes part more than {times(most)}"
        yield (
            f"The numbers of any two steps that use the same {unit} differ by at least {training.min_sep:,}{limit}; so "
            f"each takes part at most {times(count)}."
        )
    if config.privacy.relation is NeighboringRelation.ADD_OR_REMOVE_ONE:
        yield (
            f"Adding or removing a {unit} leaves every other {unit} in the batches where it was (its record is blanked "
            'rather than dropped before batching); relation = "replace_special" states this directly.'
        )


def _bins(config: TrainingConfig) -> Iterator[str]:
    unit, bins, privacy = config.data.unit, config.training.num_bins, config.privacy
    yield (
        f"Each {unit} draws one of {bins:,} bins uniformly, independently of all others and of the data, once for "
        f"the whole run, and takes part exactly at steps bin, bin + {bins:,}, and so on. Batches have random sizes, "
        "and the sum is divided, if at all, by a constant. A shuffle that is cut into equal batches does not qualify."
    )
    yield f"Nobody learns which {plural(config)} a batch held, nor how many, except through the noisy output."
    yield (
        f"The bounds rest on {privacy.samples:,} random draws, whose seed was fixed before any result was seen. Each "
        f"answer is wrong with probability at most {privacy.failure_probability:g}, which comes on top of delta; a "
        "search for the least noise asks some tens of such questions."
    )


def warnings(config: TrainingConfig) -> tuple[str, ...]:
    """What the reader of any number about this run must know."""
    return tuple(_warnings(config))


def _warnings(config: TrainingConfig) -> Iterator[str]:
    population, delta, training = config.data.population, config.privacy.delta, config.training
    if delta * population >= 1:
        yield (
            f"delta = {delta:g} is not below 1/{population:,} = {1 / population:.2g}: publishing one random "
            f"{config.data.unit} in full would satisfy such a guarantee. Choose a delta well below that."
        )
    yield from KINDS[config.mechanism.kind].cautions(dict(config.mechanism))
    noise = config.mechanism.noise_multiplier
    if noise == 0:
        yield "noise_multiplier = 0 adds no noise, and so protects nobody."
    elif noise is not None and noise < _SMALL_NOISE:
        gives = "the run" if config.correlated else "one step by itself"
        yield f"noise_multiplier = {noise} is tiny: {gives} gives a participating {config.data.unit} away."
    if training.sampling == "full_batch" and training.batch_size not in (None, population):
        yield (
            f"batch_size = {training.batch_size:,} contradicts full_batch, where every step uses all {population:,} "
            f"{plural(config)}; the accounting follows full_batch."
        )
    if training.sampling != "shuffle":
        return
    yield (
        "Shuffled batches: no amplification by sampling is claimed, because none is proved here for this sampler. If "
        'the code can sample each batch by independent coin flips, do so and write sampling = "poisson".'
    )
    counted, begun = participations(config) or 0, passes(config)
    if training.epochs is not None and begun > counted:
        yield (
            f"Counted as {plain(training.epochs)} passes. A loop of {config.iterations:,} steps could use one "
            f"{config.data.unit} {begun:,} times; if the code counts steps, write iterations = {config.iterations} "
            "instead of epochs."
        )
