import json
import math

import pytest

import dpkit
from dpkit import training
from dpkit.accounting.base import Bounds
from dpkit.training import PrivacyReport, TrainingConfig
from dpkit.training.sections import ReportSection
from dpkit.training.summary import Summary, interval, rounded_down, rounded_up
from training.configs import changed
from training.truth import gaussian_epsilon


def reported(**changes) -> PrivacyReport:
    return PrivacyReport.of(training.plan(TrainingConfig.parse(changed(**changes))))


ONE_STEP = {"training__sampling": "full_batch", "training__batch_size": None, "training__epochs": 1}
TOLD = {f"report__{key}": f"the {key} is told" for key in ReportSection.model_fields}


def test_what_the_config_does_not_answer_is_unknown_with_the_remedy():
    report = reported(**ONE_STEP, mechanism__l2_clip_norm=None)
    text = " ".join(report.text().split())
    for key in set(ReportSection.model_fields) - {"title"}:
        assert f"unknown (write report.{key} = " in text
    assert "unknown (write mechanism.l2_clip_norm = 1.0" in text
    fields = report.as_dict()["sections"]
    assert fields["Setting"]["setting"]["known"] is False
    assert fields["Guarantee"]["epsilon"]["known"] is True


def test_what_the_config_answers_is_quoted():
    report = reported(**ONE_STEP, **TOLD)
    for rendered in (report.text(), report.markdown().replace("\\", ""), report.json()):
        assert "unknown" not in rendered
        for key in ReportSection.model_fields:
            assert f"the {key} is told" in rendered


def test_every_field_of_the_guide_is_there():
    sections = reported(**ONE_STEP).as_dict()["sections"]
    keys = {key for fields in sections.values() for key in fields}
    assert keys >= {
        "setting", "data_accesses", "output", "unit", "contribution", "contribution_bound", "relation", "type",
        "assumptions", "sampling_in_code", "floating_point", "epsilon", "delta", "rho", "by_accountant", "tuning",
        "code", "audit", "l2_clip_norm", "noise_multiplier", "sampling_probability", "iterations", "tier",
    }  # fmt: skip


def test_the_epsilon_in_the_report_is_the_closed_form():
    report = reported(**ONE_STEP, mechanism__noise_multiplier=2.0)
    truth = gaussian_epsilon(0.5, 1e-5)
    numbers = json.loads(report.json())["numbers"]
    assert numbers["epsilon"]["lower"] <= truth <= numbers["epsilon"]["upper"]
    assert report.as_dict()["sections"]["Guarantee"]["rho"]["value"] == "0.125"  # 1 / (2 * 2^2)
    assert dpkit.__version__ in report.text()


@pytest.mark.parametrize(("noise", "tier"), [(6.0, "strong"), (1.0, "reasonable"), (0.3, "weak")])
def test_the_tier_follows_the_upper_end(noise, tier):
    # Closed forms: 0.58, 4.38 and about 19.
    upper = gaussian_epsilon(1 / noise, 1e-5)
    assert ("strong" if upper <= 1 else "reasonable" if upper <= 10 else "weak") == tier
    assert Summary.of(reported(**ONE_STEP, mechanism__noise_multiplier=noise).summary.plan).tier.startswith(tier)


def test_only_an_unproved_run_has_a_non_guarantee():
    shuffled = reported(training__sampling="shuffle")
    value = shuffled.as_dict()["sections"]["Not a guarantee"]["if_poisson"]["value"]
    assert "not a guarantee of any kind" in value
    assert rounded_up(shuffled.summary.if_poisson.upper) in value
    assert any(warning.startswith("NOT A GUARANTEE") for warning in shuffled.summary.warnings)
    assert shuffled.summary.as_dict()["epsilon"]["lower"] > shuffled.summary.if_poisson.upper
    assert "Not a guarantee" not in reported().as_dict()["sections"]


def test_text_fits_its_width():
    for report in (reported(**ONE_STEP), reported(training__sampling="shuffle", **TOLD)):
        assert max(map(len, report.text().splitlines())) <= 80


def test_markdown_cannot_be_broken_by_what_is_told():
    report = reported(**ONE_STEP, report__title="*x* <b>", report__code="a | b\n\n# heading [link](x)")
    assert "# \\*x\\* \\<b\\>" in report.markdown()
    assert "- **Code**: a \\| b \\# heading \\[link\\](x)\n" in report.markdown()


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one", "replace_special"])
def test_the_guarantee_names_the_unit_and_the_change(relation):
    changes = {**ONE_STEP, "data__unit": "user", "data__users": 500, "data__examples": None}
    guarantee = reported(**changes, privacy__relation=relation, privacy__delta=1e-6).summary.guarantee
    assert "any one user" in guarantee
    assert guarantee.endswith("plus at most 1e-06.")
    changed_by = {"add_or_remove_one": "in the data or not", "replace_one": "replaced by any other"}
    assert changed_by.get(relation, "blanked out") in guarantee


def test_infinite_epsilon_is_said_and_is_valid_json():
    plan = training.plan(TrainingConfig.parse(changed(**ONE_STEP)))
    unbounded = Bounds(1.0, math.inf, note="some accountant gave up")
    by_accountant = {"pld": unbounded, "rdp": Bounds(0.0, math.inf, order=math.inf), "zcdp": "nothing is known"}
    numbers = json.loads(json.dumps(Summary(plan, unbounded, by_accountant, None, ()).as_dict(), allow_nan=False))
    assert numbers["epsilon"] == {"lower": 1.0, "upper": "inf"}
    assert numbers["by_accountant"] == {
        "pld": {"lower": 1.0, "upper": "inf"},
        "rdp": {"upper": "inf", "order": "inf"},
        "zcdp": {"upper": None, "order": None, "unsupported": "nothing is known"},
    }
    assert "Nothing is guaranteed" in Summary(plan, unbounded, by_accountant, None, ()).guarantee


def test_a_note_of_the_accountant_is_passed_on(monkeypatch):
    plan = training.plan(TrainingConfig.parse(changed(**ONE_STEP)))
    noted = Bounds(0.5, math.inf, note="the RDP bound was used")
    monkeypatch.setattr(training.TrainingPlan, "epsilons", lambda _: {"pld": noted})
    warnings = Summary.of(plan).warnings
    assert "the RDP bound was used" in warnings
    assert any("infinite" in warning for warning in warnings)


@pytest.mark.parametrize("value", [2.38184101, 1e-9 / 3, 123456.789, 0.1, 8.0, 5e-324, 1.7e308])
def test_rounding_is_outward(value):
    assert float(rounded_down(value)) <= value <= float(rounded_up(value))
    assert float(rounded_up(value)) - float(rounded_down(value)) <= 1.1e-4 * value or value < 1e-300


def test_rounding_of_what_needs_none():
    assert (rounded_up(0.0), rounded_up(math.inf), rounded_down(4.0)) == ("0", "inf", "4")
    assert interval(Bounds(0.0, math.inf)) == "[0, inf]"
