"""The training config: what a person writes, checked once at the boundary."""

import json
import math
import pathlib
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Self, cast

import pydantic
from pydantic import Field

from dpkit.training import fields, sections
from dpkit.training.contradictions import contradictions
from dpkit.training.kinds import KINDS
from dpkit.training.problems import ABSENT, ConfigError, Problem, as_toml, nearest


class TrainingConfig(sections.Section):
    """A training run as its author describes it; `dpkit.training.plan` derives the rest.

    Build it with `load_config`, or with `TrainingConfig.parse` from the same tables as a dict, so that every mistake is
    reported at once.

    >>> config = TrainingConfig.parse({
    ...     "data": {"examples": 60_000, "unit": "example"},
    ...     "training": {"batch_size": 256, "epochs": 60, "sampling": "poisson"},
    ...     "mechanism": {"kind": "gaussian", "noise_multiplier": 1.1, "l2_clip_norm": 1.0},
    ...     "privacy": {"delta": 1e-5, "relation": "add_or_remove_one", "accountant": "pld"},
    ... })
    >>> config.iterations
    14063
    """

    data: sections.DataSection
    training: sections.TrainingSection
    mechanism: sections.MechanismSection
    privacy: sections.PrivacySection
    strategy: sections.StrategySection = Field(default_factory=sections.StrategySection)
    optimizer: sections.OptimizerSection = Field(default_factory=sections.OptimizerSection)
    report: sections.ReportSection = Field(default_factory=sections.ReportSection)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {f"{table}.{key}": value for table, section in self.tables().items() for key, value in section.items()}
        if problems := contradictions(given, set(given)):
            raise ValueError("\n".join(map(str, problems)))
        return self

    @classmethod
    def parse(cls, tables: Mapping[str, Any], source: str = "the config") -> "TrainingConfig":
        """The config that `tables` describe.

        Args:
            tables: the file as nested dicts.
            source: where they came from, for the message.

        Raises:
            ConfigError: naming everything that is wrong with it.
        """
        # A table left out is one whose keys are all missing, and is reported so.
        complete = {name: {} for name, field in cls.model_fields.items() if field.is_required()} | dict(tables)
        try:
            return cls.model_validate(complete)
        except pydantic.ValidationError as error:
            problems = [_problem(detail) for detail in error.errors() if detail["loc"]]
        faulty = {problem.key for problem in problems}
        given = {
            f"{table}.{key}": value
            for table, section in complete.items()
            if isinstance(section, Mapping)
            for key, value in section.items()
            if value is not None
        }
        problems += contradictions({key: value for key, value in given.items() if key not in faulty}, set(given))
        raise ConfigError(problems, source) from None

    def override(
        self, *, delta: float | None = None, accountant: str | None = None, relation: str | None = None
    ) -> "TrainingConfig":
        """This config with other privacy settings.

        Raises:
            ConfigError: a setting is invalid, or does not go with the rest.
        """
        changed = {"delta": delta, "accountant": accountant, "relation": relation}
        changed = {key: value for key, value in changed.items() if value is not None}
        if self.mechanism.kind == "zcdp" and changed.get("relation", self.privacy.relation) != self.privacy.relation:
            remedy = f'keep relation = "{self.privacy.relation}", or declare the rho proved for the other relation'
            raise ConfigError(
                [Problem("privacy.relation", relation, "the declared rho was proved under another relation", remedy)]
            )
        return self._with("privacy", changed)

    def with_noise(self, amount: float) -> "TrainingConfig":
        """This config with another amount of noise, from 0 to infinity, in the key that is the kind's own.

        Raises:
            ConfigError: the amount is negative or not finite, or the mechanism has no such key.
        """
        kind = KINDS[self.mechanism.kind]
        if kind.noise is None:
            fault, remedy = "there is no noise to choose", 'describe the mechanism, for instance kind = "gaussian"'
            raise ConfigError([Problem("mechanism.kind", self.mechanism.kind, fault, remedy)])
        return self._with("mechanism", {kind.noise: kind.of_noise(amount)})

    def _with(self, table: str, changed: Mapping[str, Any]) -> "TrainingConfig":
        tables = self.tables()
        return self.parse({**tables, table: {**tables[table], **changed}})

    def tables(self) -> dict[str, dict[str, Any]]:
        """What was written, as nested dicts."""
        return {
            table: {key: value for key, value in section if key in section.model_fields_set and value is not None}
            for table, section in self
        }

    def toml(self) -> str:
        """This config as the text of a file that `load_config` reads as the same config.

        >>> tables = {"data": {"unit": "user", "users": 10}, "training": {"sampling": "full_batch", "epochs": 2.5}}
        >>> tables |= {"mechanism": {"kind": "gaussian", "noise_multiplier": 1.5}}
        >>> config = TrainingConfig.parse({**tables, "privacy": {"delta": 1e-5, "relation": "replace_one"}})
        >>> print(config.toml())
        [data]
        unit = "user"
        users = 10
        <BLANKLINE>
        [training]
        sampling = "full_batch"
        epochs = 2.5
        <BLANKLINE>
        [mechanism]
        kind = "gaussian"
        noise_multiplier = 1.5
        <BLANKLINE>
        [privacy]
        delta = 1e-05
        relation = "replace_one"
        <BLANKLINE>
        """
        blocks = []
        for table, keys in self.tables().items():
            if keys:
                blocks.append("\n".join([f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]))
        return "\n\n".join(blocks) + "\n"

    @property
    def correlated(self) -> bool:
        """Whether the noise of the steps is correlated by a strategy."""
        return self.strategy.kind is not None or self.strategy.file is not None

    @property
    def iterations(self) -> int:
        """How many steps are run: as given, or `ceil(epochs * population / batch_size)` in exact arithmetic."""
        if self.training.iterations is not None:
            return self.training.iterations
        # The constraints above leave `batch_size` out only where a step uses everyone.
        epochs = self.training.epochs or Fraction(0)
        return math.ceil(epochs * self.data.population / (self.training.batch_size or self.data.population))


def _toml(value: Any) -> str:
    """A value as TOML has it, without rounding."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's.
        return json.dumps(str(value))
    if isinstance(value, Fraction):
        return fields.plain(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def load_config(path: str | pathlib.Path) -> TrainingConfig:
    """Reads a TOML config.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or is not a valid config; the message lists every problem
            with its key, its value and the remedy.

    >>> load_config("no/such/file.toml")
    Traceback (most recent call last):
    dpkit.training.problems.ConfigError: 1 problem in no/such/file.toml:
      there is no such file; check the path, relative to the current directory
    """
    source = str(path)
    try:
        return TrainingConfig.parse(_placed(_read(pathlib.Path(path)), pathlib.Path(path).parent), source)
    except _Unreadable as error:
        raise ConfigError([Problem("", ABSENT, *error.args)], source) from None


def _placed(tables: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """`tables` with the strategy file, which is named relative to the config in `folder`, where it really is."""
    strategy = tables.get("strategy")
    if not isinstance(strategy, dict) or not isinstance(strategy.get("file"), str) or not strategy["file"].strip():
        return tables
    return {**tables, "strategy": {**strategy, "file": str(folder / strategy["file"])}}


class _Unreadable(Exception):
    """What is wrong with a file, and the remedy."""


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _Unreadable("there is no such file", "check the path, relative to the current directory") from None
    except IsADirectoryError:
        raise _Unreadable("this is a directory", "name a TOML file in it") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the file") from None
    try:
        return tomllib.loads(content.decode("utf-8-sig"), parse_float=fields.toml_float)
    except UnicodeDecodeError as error:
        raise _Unreadable(f"not UTF-8 at byte {error.start}", "save the file as UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"not valid TOML: {error}", "see https://toml.io; text needs quotes") from None


def _problem(detail: Any) -> Problem:
    """One pydantic error in the words of the config's author."""
    key, value = ".".join(map(str, detail["loc"])), detail["input"]
    if detail["type"] == "extra_forbidden":
        return _unknown(detail["loc"], value)
    if len(detail["loc"]) == 1:
        return Problem(key, value, "must be a table", f"write [{key}] with its keys below")
    field = _SECTIONS[detail["loc"][0]].model_fields[detail["loc"][1]]
    example = as_toml((field.examples or [""])[0])
    remedy = f"write {detail['loc'][1]} = {example}" + (f" ({field.description})" if field.description else "")
    if detail["type"] == "missing":
        return Problem(key, ABSENT, "missing", remedy)
    return Problem(key, value, str(detail["ctx"]["error"]), remedy)


def _unknown(place: tuple[Any, ...], value: Any) -> Problem:
    if len(place) == 1:
        if home := _home(place[0]):
            return Problem(place[0], value, "unknown table or a key of one", f"write it below [{home}]")
        meant = nearest(place[0], _SECTIONS)
        tables = f"the tables are {', '.join(f'[{name}]' for name in _SECTIONS)}"
        return Problem(place[0], value, "unknown", f"did you mean [{meant}]?" if meant else tables)
    table, key = place
    if table not in _SECTIONS:
        return Problem(f"{table}.{key}", value, "unknown", "remove it")
    if home := _home(key):
        return Problem(f"{table}.{key}", value, "unknown key here", f"write it below [{home}]")
    valid = _SECTIONS[table].model_fields
    meant = nearest(key, valid)
    remedy = f"did you mean {meant}?" if meant else f"the keys of [{table}] are {', '.join(valid)}"
    return Problem(f"{table}.{key}", value, "unknown key", remedy)


def _home(key: str) -> str | None:
    """The table that has this key."""
    return next((name for name, section in _SECTIONS.items() if key in section.model_fields), None)


_SECTIONS: dict[str, type[sections.Section]] = {
    name: cast(type[sections.Section], field.annotation) for name, field in TrainingConfig.model_fields.items()
}
