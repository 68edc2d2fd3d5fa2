"""A stack over scores whose worth is known."""

from dataclasses import replace

import numpy as np
import pytest
from hidden_records import planted, record

from sightline.core.errors import DataError, MissingFeatureError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Generation, Record, Related
from sightline.estimators import ESTIMATORS, from_spec, parse_estimator, spec_of
from sightline.estimators.fusion import FittedFusion, Fusion
from sightline.estimators.recorded import RecordedConfidence
from sightline.metrics.calibration_error import ece
from sightline.metrics.discrimination import auroc

PAIR = "recorded_confidence+negative_log_likelihood"


def fit(fusion, records, correct, seed=0):
    return fusion.fit(records, correct, rng=np.random.default_rng(seed))


def two_signals(n=600, *, product=False, seed=0):
    """Two independent scores that tell as much each, alone or only by their product."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, n))
    log_odds = 2 * first * second if product else 1.5 * first + 1.5 * second
    correct = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(float)
    records = [
        replace(
            record(f"r{i:04d}", np.zeros((1, 1, 1))),
            greedy=Generation("x", logprobs=np.array([second[i] - 9.0])),
            features={Feature.RECORDED_CONFIDENCE: np.array(1 / (1 + np.exp(-first[i])))},
        )
        for i in range(n)
    ]
    return records, correct


def test_the_stack_by_hand():
    """Log-odds 1 + 2·(logit of .8)/1 for the one member, whose probability of being right is .8."""
    one = record("a", np.zeros((1, 1, 1)))
    one = replace(one, features={Feature.RECORDED_CONFIDENCE: np.array(0.8)})
    member = RecordedConfidence()
    fitted = FittedFusion(
        (member,), (spec_of(member),), np.zeros(1), np.ones(1), np.array([2.0]), 1.0
    )
    expected = 1 / (1 + np.exp(1 + 2 * np.log(4)))
    assert fitted.uncertainty([one])[0] == pytest.approx(expected)


def test_two_signals_together_beat_each_and_are_calibrated():
    records, correct = two_signals()
    train, test = slice(0, 300), slice(300, 600)
    wrong = fit(Fusion(PAIR), records[train], correct[train]).uncertainty(records[test])
    together = auroc(1 - wrong, correct[test])
    for member in PAIR.split("+"):
        alone = -ESTIMATORS[member].uncertainty(records[test])
        assert together > auroc(alone, correct[test]) + 0.03
    assert ece(1 - wrong, correct[test]) < 0.1


def test_only_interactions_see_a_product():
    records, correct = two_signals(product=True)
    train, test = slice(0, 300), slice(300, 600)
    plain, crossed = (
        fit(Fusion(PAIR, interactions=i), records[train], correct[train]).uncertainty(records[test])
        for i in (False, True)
    )
    assert auroc(1 - plain, correct[test]) < 0.6
    assert auroc(1 - crossed, correct[test]) > 0.75


def test_a_member_that_learns_is_never_scored_on_rows_it_was_fitted_on():
    """States 300 wide and without content: in sample a probe is sure, held out it is worthless."""
    records, correct = planted(150, width=300, strength=0.0)
    fitted = fit(Fusion("linear_probe+answer_length"), records, correct)
    in_sample = fitted.members[0].uncertainty(records)
    assert auroc(1 - in_sample, correct) > 0.9
    assert abs(fitted.weights[0]) < 0.6
    others, truth = planted(300, width=300, strength=0.0, seed=1)
    wrong = fitted.uncertainty(others)
    assert abs(wrong.mean() - (1 - truth.mean())) < 0.1


def test_a_member_fitted_without_its_groups_sees_none_of_them():
    """Each group has a label and a state of its own; a leak across rows would look perfect."""
    rng = np.random.default_rng(0)
    records, correct = [], []
    for g in range(40):
        state, label = rng.normal(size=(1, 1, 100)), float(g % 2)
        for i in range(3):
            records.append(record(f"r{g:02d}{i}", state, group=f"g{g}"))
            correct.append(label)
    fitted = fit(Fusion("linear_probe+answer_length"), records, np.array(correct))
    assert abs(fitted.weights[0]) < 0.6


def test_default_members_score_an_ordinary_run():
    records, correct = planted(100)
    fitted = fit(Fusion(), records, correct)
    assert [type(m).__name__ for m in fitted.members] == [
        "SequenceProbability",
        "SampleAgreement",
        "FittedProbe",
    ]
    assert auroc(1 - fitted.uncertainty(records), correct) > 0.9


def test_needs_and_costs_are_those_of_the_members():
    fusion = Fusion("sample_agreement+distinct_answers+visual_uncertainty+linear_probe")
    assert (
        fusion.needs
        == {
            Feature.SAMPLES,
            Feature.ANSWER,
            Feature.LOGPROBS,
            Feature.BLANK_LOGPROBS,
            Feature.HIDDEN,
        }
        | ESTIMATORS["sample_agreement"].needs
        | ESTIMATORS["visual_uncertainty"].needs
    )
    records, _ = planted(4)
    assert fusion.cost(records) == Cost(forward_passes=1, generations=2)
    assert Fusion("perplexity+sequence_probability").cost(records) == Cost()


def test_costs_do_not_depend_on_the_order_and_nothing_is_counted_twice():
    one = record("a", np.zeros((1, 1, 1)))
    seen = ("blur:1", "blur:2", "negated", "noise:5")
    others = [Record(one.example, name, greedy=Generation("x")) for name in seen]
    one = one.with_related(Related(conditions=tuple(others)))
    alone = {
        "sequence_probability": Cost(),
        "noise_visual_information": Cost(forward_passes=1),
        "flip_rate": Cost(forward_passes=3, generations=3),
        "vl_uncertainty": Cost(forward_passes=2, generations=2),
        "condition_agreement": Cost(forward_passes=3, generations=3),
        "condition_and_negation_consistency": Cost(forward_passes=4, generations=4),
    }
    assert {name: ESTIMATORS[name].cost([one]) for name in alone} == alone
    together = {
        ("sequence_probability", "noise_visual_information"): 1,
        ("sequence_probability", "flip_rate"): 3,
        ("flip_rate", "drift_share", "delta_energy", "margin_loss", "prior_index"): 3,
        ("vl_uncertainty", "condition_agreement"): 3,
        ("condition_agreement", "condition_and_negation_consistency"): 4,
    }
    for names, passes in together.items():
        for order in (names, names[::-1]):
            assert Fusion("+".join(order)).cost([one]).forward_passes == passes, order


def test_it_is_as_slow_as_its_slowest_member():
    assert not Fusion().slow
    assert Fusion("perplexity+saplma").slow


def test_settings_of_members_follow_them():
    spec = "fusion:members=linear_probe@at=prompt_end@layer=3+perplexity:interactions=true"
    fusion = parse_estimator(spec)
    assert fusion == Fusion("linear_probe@at=prompt_end@layer=3+perplexity", interactions=True)
    assert from_spec(spec_of(fusion)) == fusion
    records, correct = planted(60)
    assert fit(fusion, records, correct).members[0].layer == 3


@pytest.mark.parametrize("members", ["perplexity", "perplexity+perplexity", ""])
def test_fewer_than_two_members_are_refused(members):
    with pytest.raises(UsageError, match="at least 2 different members"):
        Fusion(members)


def test_unknown_and_nested_members_are_refused():
    records, correct = planted(20)
    with pytest.raises(UsageError, match=r"'perplexty' does not exist.*perplexity"):
        fit(Fusion("perplexty+answer_length"), records, correct)
    with pytest.raises(UsageError, match="cannot be a member of another"):
        fit(Fusion("fusion+answer_length"), records, correct)


def test_too_little_to_fit_on_is_one_clear_line():
    records, _ = planted(20)
    with pytest.raises(DataError, match="right and wrong ones are required"):
        fit(Fusion(), records, np.ones(20))
    single = np.ones(20)
    single[0] = 0
    with pytest.raises(DataError, match="only 1 with a wrong one"):
        fit(Fusion(), records, single)
    lacking = [*records[:-1], replace(records[-1], samples=())]
    with pytest.raises(MissingFeatureError, match="samples"):
        fit(Fusion(), lacking, np.arange(20) % 2.0)


def test_twenty_labels_are_enough_to_fit():
    records, correct = planted(20)
    values = fit(Fusion(), records, correct).uncertainty(records)
    assert np.all((values >= 0) & (values <= 1))


def test_rows_a_member_cannot_read_are_named_by_their_place():
    records, correct = planted(30)
    odd, _ = planted(1, width=9, seed=5)
    given = [*reversed(records), odd[0]]
    with pytest.raises(UnscorableError) as error:
        fit(Fusion(), given, np.append(correct[::-1], 1.0))
    assert set(error.value.rows) <= set(range(31))
    fitted = fit(Fusion(), records, correct)
    with pytest.raises(UnscorableError, match="9 wide; 8 are required") as error:
        fitted.uncertainty(given)
    assert error.value.rows == (30,)


@pytest.mark.parametrize("interactions", [False, True])
def test_order_of_rows_changes_nothing_and_what_was_written_scores_alike(interactions):
    records, correct = planted(60, per_group=2)
    fusion = Fusion(interactions=interactions)
    fitted = fit(fusion, records, correct)
    order = np.random.default_rng(2).permutation(60)
    again = fit(fusion, [records[i] for i in order], correct[order])
    np.testing.assert_array_equal(fitted.uncertainty(records), again.uncertainty(records))
    read = FittedFusion.from_state(*fitted.state())
    np.testing.assert_array_equal(fitted.uncertainty(records), read.uncertainty(records))


def test_a_written_stack_whose_member_lost_its_fit_is_refused():
    records, correct = planted(40)
    settings, arrays = fit(Fusion(), records, correct).state()
    del settings["members"][2]["class"]
    with pytest.raises(ValueError, match="linear_probe is not fitted"):
        FittedFusion.from_state(settings, arrays)
