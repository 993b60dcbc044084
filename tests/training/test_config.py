import math
from decimal import Decimal
from fractions import Fraction

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import NeighboringRelation
from dpkit.training import ConfigError, TrainingConfig, load_config
from training.configs import VALID, changed, write


def test_the_valid_config_loads(tmp_path):
    config = load_config(write(tmp_path, VALID))
    assert config.data.population == 60_000
    assert config.iterations == 14_063  # 60 * 60000 / 256 = 14062.5
    assert config.privacy.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
    assert config == TrainingConfig.parse(changed())


# Each: what to replace in the valid file, by what, and words that the message must hold.
BAD = {
    "epochs as text": ("epochs = 60", 'epochs = "sixty"', ['training.epochs = "sixty"', "must be a number"]),
    "epochs as a truth value": ("epochs = 60", "epochs = true", ["training.epochs = true", "must be a number"]),
    "epochs nan": ("epochs = 60", "epochs = nan", ["training.epochs = nan", "finite"]),
    "epochs inf": ("epochs = 60", "epochs = inf", ["training.epochs = inf", "finite"]),
    "epochs zero": ("epochs = 60", "epochs = 0", ["training.epochs = 0", "> 0"]),
    "epochs negative": ("epochs = 60", "epochs = -1.5", ["training.epochs = -1.5", "> 0"]),
    "epochs beyond reason": ("epochs = 60", "epochs = 1e999999999", ["training.epochs", "finite"]),
    "epochs beyond Decimal": ("epochs = 60", "epochs = 1e99999999999999999999", ["training.epochs", "finite"]),
    "epochs tiny": ("epochs = 60", "epochs = 1e-300", ["training.epochs", "1e-9"]),
    "epochs as a date": ("epochs = 60", "epochs = 2020-01-01", ["training.epochs", "must be a number"]),
    "epochs and iterations": ("epochs = 60", "epochs = 60\niterations = 5", ["training.iterations = 5", "keep one"]),
    "neither": ("epochs = 60", "", ["training.iterations", "missing"]),
    "iterations fractional": ("epochs = 60", "iterations = 1.5", ["training.iterations = 1.5", "whole number"]),
    "iterations zero": ("epochs = 60", "iterations = 0", ["training.iterations = 0", ">= 1"]),
    "iterations huge": ("epochs = 60", f"iterations = {10**30}", ["training.iterations", "2^53"]),
    "batch above population": ("= 256", "= 60_001", ["training.batch_size = 60001", "data.examples = 60000"]),
    "batch negative": ("= 256", "= -256", ["training.batch_size = -256", ">= 1"]),
    "batch missing": ("batch_size = 256", "", ["training.batch_size", "missing", "poisson"]),
    "examples as a float": ("60_000", "60_000.0", ["data.examples = 60000.0", "whole number"]),
    "examples zero": ("60_000", "0", ["data.examples = 0", ">= 1"]),
    "unit unknown": ('"example"', '"exampel"', ['data.unit = "exampel"', "did you mean example"]),
    "unit without its number": ('"example"', '"user"', ["data.users", "missing", "data.examples = 60000"]),
    "noise nan": ("1.1", "nan", ["mechanism.noise_multiplier = nan", "finite"]),
    "noise inf": ("1.1", "inf", ["mechanism.noise_multiplier = inf", "finite"]),
    "noise negative": ("1.1", "-1.1", ["mechanism.noise_multiplier = -1.1", ">= 0"]),
    "noise text": ("1.1", '"1.1"', ['mechanism.noise_multiplier = "1.1"', "must be a number"]),
    "noise missing": ("noise_multiplier = 1.1", "", ["mechanism.noise_multiplier", "missing", "gaussian"]),
    "noise beyond float": ("1.1", "1e400", ["mechanism.noise_multiplier", "finite"]),
    "clip zero": ("= 1.0", "= 0", ["mechanism.l2_clip_norm = 0", "> 0"]),
    "kind unknown": ('"gaussian"', '"gausian"', ["mechanism.kind", "did you mean gaussian"]),
    "kind zcdp without rho": ('"gaussian"', '"zcdp"', ["mechanism.rho", "mechanism.noise_multiplier = 1.1", "zcdp"]),
    "delta zero": ("1e-5", "0", ["privacy.delta = 0", "strictly between 0 and 1"]),
    "delta one": ("1e-5", "1", ["privacy.delta = 1", "strictly between 0 and 1"]),
    "delta nan": ("1e-5", "nan", ["privacy.delta = nan", "finite"]),
    "delta negative": ("1e-5", "-1e-5", ["privacy.delta = -1e-05", "strictly between 0 and 1"]),
    "delta above one": ("1e-5", "1.5", ["privacy.delta = 1.5", "strictly between 0 and 1"]),
    "delta missing": ("delta = 1e-5", "", ["privacy.delta", "missing", "write delta = "]),
    "relation unknown": ('"add_or_remove_one"', '"add-remove"', ["privacy.relation", "replace_special"]),
    "relation as a number": ('"add_or_remove_one"', "3", ["privacy.relation = 3", "replace_special"]),
    "relation missing": ('relation = "add_or_remove_one"', "", ["privacy.relation", "missing"]),
    "accountant unknown": ('"pld"', '"prv"', ['privacy.accountant = "prv"', "pld, rdp, zcdp"]),
    "unknown key": ("noise_multiplier", "noise_multipler", ["mechanism.noise_multipler", "mean noise_multiplier?"]),
    "unknown key, nothing near": ("l2_clip_norm", "zzz", ["mechanism.zzz", "the keys of [mechanism] are"]),
    "key of another table": ("epochs = 60", "epochs = 60\ndelta = 1e-5", ["training.delta", "below [privacy]"]),
    "key above all tables": ("[data]", "delta = 1e-5\n[data]", ["delta", "below [privacy]"]),
    "unknown table": ("[privacy]", "[privcy]", ["privcy", "did you mean [privacy]", "privacy.delta: missing"]),
    "unknown table, nothing near": ("[data]", "[zzz]\n[data]", ["zzz", "the tables are"]),
    "table as a number": ("[data]", "report = 5\n[data]", ["report = 5", "must be a table"]),
    "table as an array": ("[data]", "[[data]]", ["data", "must be a table"]),
    "report not text": ("[privacy]", "[report]\ncode = 5\n[privacy]", ["report.code = 5", "non-empty text"]),
    "sampling unknown": ('"poisson"', '"poison"', ["training.sampling", "did you mean poisson"]),
    "min_sep without its sampler": ("epochs = 60", "epochs = 60\nmin_sep = 4", ["training.min_sep = 4", "poisson"]),
    "max_participations without its sampler": (
        "epochs = 60",
        "epochs = 60\nmax_participations = 4",
        ["training.max_participations = 4", "poisson"],
    ),
    "min_sep missing": ('"poisson"', '"min_sep"', ["training.min_sep", "missing"]),
    "not TOML": ("[data]", "[data", ["not valid TOML", "line 2"]),
    "the same key twice": ("unit =", 'unit = "user"\nunit =', ["not valid TOML", "line 5"]),
    "absurd nesting": ("60_000", "[" * 5_000, ["not valid TOML"]),
    "an integer too long to read": ("60_000", "9" * 5_000, ["not valid TOML"]),
}


@pytest.mark.parametrize(("old", "new", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_named_with_its_remedy(tmp_path, old, new, words):
    assert VALID.count(old) >= 1
    path = write(tmp_path, VALID.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_every_error_is_reported_at_once_and_once(tmp_path):
    text = VALID
    for old, new in [
        ("60_000", "-3"), ("256", "nan"), ("epochs = 60", 'epochs = "many"\niterations = 7'), ("1.1", "-1"),
        ("l2_clip_norm", "l2_clip_norms"), ("1e-5", "2"), ('"add_or_remove_one"', '"none"'),
    ]:  # fmt: skip
        text = text.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert sorted(problem.key for problem in caught.value.problems) == sorted([
        "data.examples", "training.batch_size", "training.epochs", "training.iterations",
        "mechanism.noise_multiplier", "mechanism.l2_clip_norms", "privacy.delta", "privacy.relation",
    ])  # fmt: skip
    assert str(caught.value).startswith("8 problems in ")


def test_an_empty_file_lists_what_is_missing(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, ""))
    assert {problem.key for problem in caught.value.problems} == {
        "data.unit", "data.examples", "training.sampling", "training.iterations", "mechanism.kind", "privacy.delta",
        "privacy.relation",
    }  # fmt: skip


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("a\0b")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(write(tmp_path, VALID) / "below.toml")
    (tmp_path / "latin.toml").write_bytes(VALID.encode() + b"# caf\xe9")
    with pytest.raises(ConfigError, match=f"not UTF-8 at byte {len(VALID) + 5}"):
        load_config(tmp_path / "latin.toml")


def test_a_byte_order_mark_and_windows_lines_are_harmless(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load_config(path) == load_config(write(tmp_path, VALID))


@given(
    epochs=st.decimals(min_value="0.000001", max_value=10_000, places=6),
    population=st.integers(1, 10**7),
    batch_size=st.integers(1, 10**7),
)
def test_iterations_are_exact(epochs, population, batch_size):
    batch_size = min(batch_size, population)
    tables = changed(training__epochs=epochs, data__examples=population, training__batch_size=batch_size)
    expected = -(-Fraction(epochs) * population // batch_size)
    assert TrainingConfig.parse(tables).iterations == expected


@pytest.mark.parametrize(
    ("epochs", "population", "batch_size", "expected"),
    [
        ("0.1", 100, 10, 1),  # the float 0.1 is above one tenth: rounding up would give 2
        ("0.3", 1_000, 1, 300),  # 0.3 * 1000 in floats is 300 only by luck
        ("0.7", 1_000, 10, 70),  # 0.7 * 1000 / 10 = 70 exactly, 0.7 / 0.01 is below 70 in floats
        ("1.1", 10, 1, 11),  # 1.1 * 10 = 11.000000000000002 in floats
        ("60", 60_000, 256, 14_063),
        ("1e-3", 2_000, 1, 2),
        ("1_0.0", 100, 100, 10),
    ],
)
def test_iterations_from_a_file_are_exact(tmp_path, epochs, population, batch_size, expected):
    text = VALID.replace("epochs = 60", f"epochs = {epochs}").replace("60_000", str(population))
    config = load_config(write(tmp_path, text.replace("256", str(batch_size))))
    assert config.iterations == expected


@pytest.mark.parametrize("epochs", [0.1, Decimal("0.1"), Fraction(1, 10)])
def test_epochs_in_python_mean_what_they_print(epochs):
    assert TrainingConfig.parse(changed(training__epochs=epochs)).training.epochs == Fraction(1, 10)


def test_full_batch_counts_one_step_a_pass():
    tables = changed(training__sampling="full_batch", training__batch_size=None, training__epochs=2.5)
    assert TrainingConfig.parse(tables).iterations == 3


def test_override_changes_privacy_and_nothing_else():
    config = TrainingConfig.parse(changed(training__epochs=0.1))
    other = config.override(delta=1e-7, accountant="rdp", relation="replace_special")
    assert (other.privacy.delta, other.privacy.accountant) == (1e-7, "rdp")
    assert other.privacy.relation is NeighboringRelation.REPLACE_SPECIAL
    assert (other.data, other.training, other.mechanism) == (config.data, config.training, config.mechanism)
    assert config.override() == config
    with pytest.raises(ConfigError, match=r"privacy\.delta = nan"):
        config.override(delta=math.nan)
    with pytest.raises(ConfigError, match=r"privacy\.accountant"):
        config.override(accountant="prv")


def test_a_declared_rho_cannot_change_its_relation():
    tables = changed(mechanism__noise_multiplier=None, mechanism__rho=0.81, privacy__accountant="zcdp")
    tables["mechanism"]["kind"] = "zcdp"
    config = TrainingConfig.parse(tables)
    assert config.override(relation="add_or_remove_one") == config
    with pytest.raises(ConfigError, match="proved under another relation"):
        config.override(relation="replace_one")
    with pytest.raises(ConfigError, match="no privacy loss distribution"):
        config.override(accountant="pld")


def test_the_models_check_themselves():
    with pytest.raises(pydantic.ValidationError, match="keep one of the two"):
        TrainingConfig.model_validate(changed(training__iterations=5))
    config = TrainingConfig.model_validate(changed())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.data.unit = "user"  # type: ignore[misc]
