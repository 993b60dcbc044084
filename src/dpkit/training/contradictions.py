"""Checks between keys of a config, made on whatever keys are valid so that every problem is reported at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from dpkit.relations import NeighboringRelation
from dpkit.training.kinds import KINDS
from dpkit.training.problems import ABSENT, Problem, as_toml
from dpkit.training.sections import MechanismSection


def contradictions(valid: Mapping[str, Any], present: set[str]) -> list[Problem]:
    """What does not fit together.

    Args:
        valid: the values of the keys that are valid by themselves, by dotted key.
        present: every key in the file, valid or not: an invalid key is not reported as missing a second time.
    """
    return [
        *_population(valid, present),
        *_steps(valid, present),
        *_mechanism(valid, present),
        *_strategy(valid, present),
    ]


def _population(valid: Mapping[str, Any], present: set[str]) -> Iterator[Problem]:
    unit = valid.get("data.unit")
    if unit is None:
        if not present & {"data.examples", "data.users"}:
            yield Problem("data.examples", ABSENT, "missing", "write examples = 60000 (how many there are)")
        return
    wanted, other = ("examples", "users") if unit == "example" else ("users", "examples")
    if f"data.{wanted}" not in present:
        yield Problem(f"data.{wanted}", ABSENT, "missing", f'write how many units there are, since unit = "{unit}"')
    if f"data.{other}" in valid:
        fault = f'does not go with unit = "{unit}"'
        yield Problem(f"data.{other}", valid[f"data.{other}"], fault, f"write the number of units as {wanted}")
    population, batch = valid.get(f"data.{wanted}"), valid.get("training.batch_size")
    if population is not None and batch is not None and batch > population:
        remedy = f"write at most {population} (units, not records, are counted)"
        yield Problem("training.batch_size", batch, f"more than data.{wanted} = {population}", remedy)


def _steps(valid: Mapping[str, Any], present: set[str]) -> Iterator[Problem]:
    epochs, iterations = "training.epochs" in present, "training.iterations" in present
    if epochs and iterations:
        value = valid.get("training.iterations", ABSENT)
        yield Problem("training.iterations", value, "given as well as epochs", "keep one of the two")
    elif not epochs and not iterations:
        yield Problem("training.iterations", ABSENT, "missing", "write iterations = 14063, or epochs = 60")
    sampling = valid.get("training.sampling")
    if sampling is None:
        return
    if "training.batch_size" not in present:
        if sampling in ("poisson", "shuffle", "fixed_size", "cyclic_poisson"):
            fault = f'missing, and sampling = "{sampling}" needs it'
            remedy = "write batch_size = 256" + (" (its expected size)" if sampling == "poisson" else "")
            yield Problem("training.batch_size", ABSENT, fault, remedy)
        elif sampling in ("min_sep", "balls_in_bins") and epochs and not iterations:
            fault = "missing, and epochs cannot be turned into steps without it"
            yield Problem("training.batch_size", ABSENT, fault, "write batch_size = 256, or iterations for epochs")
    relation = valid.get("privacy.relation", NeighboringRelation.REPLACE_ONE)
    if sampling == "fixed_size" and relation != NeighboringRelation.REPLACE_ONE:
        # Where a unit is removed another one takes its place in the sample.
        fault = "samples of a fixed size are accounted for only where a unit is replaced by another"
        yield Problem("privacy.relation", str(relation), fault, 'write relation = "replace_one"')
    for key, (sampler, words) in _SAMPLER_KEYS.items():
        if f"training.{key}" in valid and sampling != sampler:
            remedy = f'remove it, or write sampling = "{sampler}" if the code enforces it'
            yield Problem(
                f"training.{key}", valid[f"training.{key}"], f'does not go with sampling = "{sampling}"', remedy
            )
        elif words and sampling == sampler and f"training.{key}" not in present:
            yield Problem(f"training.{key}", ABSENT, f'missing, and sampling = "{sampler}" needs it', f"write {words}")
    yield from _groups(valid)


# The keys of [training] that belong to one sampler, and how they are asked for where they are needed.
_SAMPLER_KEYS = {
    "min_sep": ("min_sep", "min_sep = 342 (least number of steps from one participation to the next)"),
    "max_participations": ("min_sep", ""),
    "num_groups": ("cyclic_poisson", "num_groups = 32 (the groups of units that take turns, at least num_bands)"),
    "num_bins": ("balls_in_bins", "num_bins = 100 (the steps of one pass)"),
}


def _groups(valid: Mapping[str, Any]) -> Iterator[Problem]:
    """What cyclic Poisson and balls-in-bins sampling ask of the rest."""
    groups, batch = valid.get("training.num_groups"), valid.get("training.batch_size")
    population = valid.get("data.examples", valid.get("data.users"))
    if groups is not None and None not in (batch, population) and batch * groups > population:
        fault = f"more than {population} / batch_size = {population // batch} groups: a step draws from one of them"
        yield Problem("training.num_groups", groups, fault, "use fewer groups, or smaller batches")
    sampling, kind = valid.get("training.sampling"), valid.get("mechanism.kind")
    accountant = valid.get("privacy.accountant", "pld")
    if (sampling == "balls_in_bins") != (accountant == "monte_carlo"):
        if sampling == "balls_in_bins":
            fault, remedy = "balls-in-bins sampling has no formula", 'write accountant = "monte_carlo"'
        else:
            fault, remedy = f'not needed for sampling = "{sampling}"', 'write accountant = "pld"'
        yield Problem("privacy.accountant", accountant, fault, remedy)
    if sampling != "balls_in_bins":
        return
    if kind not in ("gaussian", None):
        yield Problem("mechanism.kind", kind, "not accounted for with balls in bins", 'write kind = "gaussian"')
    if valid.get("mechanism.noise_multiplier") == 0:
        fault = "no noise, and nothing to draw"
        yield Problem("mechanism.noise_multiplier", 0.0, fault, "write noise_multiplier = 1.1")
    bins, iterations = valid.get("training.num_bins", 1), valid.get("training.iterations")
    if iterations is not None and bins > iterations:
        yield Problem("training.num_bins", bins, f"more than iterations = {iterations}", "use no more bins than steps")
    if valid.get("privacy.relation") == NeighboringRelation.REPLACE_ONE:
        remedy = 'write relation = "add_or_remove_one" or "replace_special"'
        yield Problem("privacy.relation", "replace_one", "nothing is proved for balls in bins", remedy)


def _mechanism(valid: Mapping[str, Any], present: set[str]) -> Iterator[Problem]:
    kind = valid.get("mechanism.kind")
    if kind is None:
        return
    own = KINDS[kind]
    missing = [key for key in own.needed if f"mechanism.{key}" not in present]
    table = {key.removeprefix("mechanism."): value for key, value in valid.items() if key.startswith("mechanism.")}
    for key in missing:
        examples = MechanismSection.model_fields[key].examples or [""]
        remedy = f"write {key} = {as_toml(examples[0])}"
        yield Problem(f"mechanism.{key}", ABSENT, f'missing, and kind = "{kind}" needs it', remedy)
    for key in sorted(set(table) - {"kind", *own.keys}):
        remedy = f"the keys of this kind are {', '.join(own.keys)}"
        yield Problem(f"mechanism.{key}", table[key], f'does not go with kind = "{kind}"', remedy)
    if all(key in table for key in own.needed):
        try:
            own.mechanism(table)
        except ValueError as error:
            yield Problem("mechanism", ABSENT, str(error), "correct the key it names")
    yield from _accountant(valid, present, kind)


def _accountant(valid: Mapping[str, Any], present: set[str], kind: str) -> Iterator[Problem]:
    accountant = valid.get("privacy.accountant", "pld" if "privacy.accountant" not in present else None)
    if kind == "zcdp" and accountant == "pld":
        fault = 'no privacy loss distribution follows from kind = "zcdp"'
        value = valid.get("privacy.accountant", ABSENT)
        yield Problem("privacy.accountant", value, fault, 'write accountant = "zcdp" or "rdp"')


# The keys of [strategy] that each kind needs, and those it may have besides; all may have an objective.
_STRATEGY_KEYS = {
    "identity": ((), ("window_scales",)),
    "banded": (("num_bands",), ("column_norms",)),
    "banded_toeplitz": (("num_bands",), ("window_scales",)),
    "blt": (("num_buffers",), ("window_scales",)),
    "square_root": ((), ("window_scales",)),
    "banded_square_root": (("num_bands",), ("window_scales",)),
    "banded_inverse_square_root": (("num_bands",), ("window_scales",)),
}


def _strategy(valid: Mapping[str, Any], present: set[str]) -> Iterator[Problem]:
    written = {key.removeprefix("strategy.") for key in present if key.startswith("strategy.")}
    if not written:
        return
    if not written & {"kind", "file"}:
        yield Problem("strategy.kind", ABSENT, "missing", 'write kind = "banded", or file = "strategy.npz"')
        return
    kind = valid.get("strategy.kind")
    if "file" in written:
        name, needed, allowed = "a file, which holds the finished strategy", (), ()
    elif kind is not None:
        name, (needed, allowed) = f'kind = "{kind}"', _STRATEGY_KEYS.get(kind, ((), ()))
        allowed = (*allowed, "kind", "objective")
    else:
        return
    for key in needed:
        if key not in written:
            fault, remedy = f"missing, and {name} needs it", f"write {key} = {_EXAMPLES[key]}"
            yield Problem(f"strategy.{key}", ABSENT, fault, remedy)
    for key in sorted(written - {*needed, *allowed, "file"}):
        if f"strategy.{key}" in valid:
            yield Problem(f"strategy.{key}", valid[f"strategy.{key}"], f"does not go with {name}", "remove it")
    yield from _correlated_run(valid)


_EXAMPLES = {"num_bands": 32, "num_buffers": 3}


def _cyclic_run(valid: Mapping[str, Any]) -> Iterator[Problem]:
    """Cyclic Poisson sampling is accounted for where two draws of a unit share no row of C."""
    kind, bands = valid.get("strategy.kind"), valid.get("strategy.num_bands")
    if valid.get("training.sampling") != "cyclic_poisson" or kind is None:
        return
    banded = ("identity", "banded", "banded_toeplitz", "banded_square_root")
    if kind not in banded:
        fault = "its matrix is not banded, and cyclic Poisson sampling is accounted for only where it is"
        yield Problem("strategy.kind", kind, fault, f"write one of {', '.join(banded)}")
    elif bands is not None and bands > valid.get("training.num_groups", bands):
        fault = f"more than num_groups = {valid['training.num_groups']}: two draws of a unit would share a row"
        yield Problem("strategy.num_bands", bands, fault, "use fewer bands, or more groups")


def _correlated_run(valid: Mapping[str, Any]) -> Iterator[Problem]:
    """What correlated noise asks of the other tables."""
    sampling, mechanism = valid.get("training.sampling"), valid.get("mechanism.kind")
    yield from _cyclic_run(valid)
    if sampling in ("poisson", "fixed_size"):
        fault = "correlated noise is not accounted for under random sampling"
        remedy = 'write sampling = "min_sep" if the code enforces it, or remove [strategy]'
        yield Problem("training.sampling", sampling, fault, remedy)
    if mechanism not in ("gaussian", None):
        fault = "only Gaussian noise can be correlated by a [strategy]"
        yield Problem("mechanism.kind", mechanism, fault, 'write kind = "gaussian", or remove [strategy]')
