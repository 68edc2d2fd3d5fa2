"""Probes on hidden states whose content is known."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hidden_records import planted, record
from sklearn.linear_model import LogisticRegression

from sightline.core.errors import DataError, MissingExtraError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.estimators import ESTIMATORS, parse_estimator
from sightline.estimators.probes import FittedProbe, LinearProbe, NeuralProbe, _rotated
from sightline.metrics.discrimination import auroc

PROBES = (LinearProbe(), LinearProbe(at="prompt_end"), NeuralProbe(), ESTIMATORS["mind"])


def fit(probe, records, correct, seed=0):
    return probe.fit(records, correct, rng=np.random.default_rng(seed))


def test_a_linear_probe_by_hand():
    """Log-odds 3 − 1·x₁ + 2·x₂ at x = (1, 0.5): 3, so the chance of being wrong is 1/(1 + e³)."""
    probe = FittedProbe("answer_end", 2, (np.array([[-1.0], [2.0]]),), (np.array([3.0]),))
    one = record("a", [[[9.0, 9.0]], [[1.0, 0.5]]])
    assert probe.uncertainty([one])[0] == pytest.approx(1 / (1 + np.exp(3)))


def test_a_network_by_hand():
    """Hidden units max(0, x) and max(0, −x), summed: log-odds |x|."""
    weights = (np.array([[1.0, -1.0]]), np.array([[1.0], [1.0]]))
    probe = FittedProbe("answer_end", 1, weights, (np.zeros(2), np.zeros(1)))
    values = probe.uncertainty([record("a", [[[-2.0]]]), record("b", [[[2.0]]])])
    np.testing.assert_allclose(values, 1 / (1 + np.exp(2.0)))


@pytest.mark.parametrize("probe", PROBES)
def test_the_layer_that_tells_is_chosen_and_read(probe):
    records, correct = planted(300, told_by=2)
    fitted = fit(probe, records[:200], correct[:200])
    assert fitted.layer == 2
    trust = 1 - fitted.uncertainty(records[200:])
    assert auroc(trust, correct[200:]) > 0.9


@pytest.mark.parametrize("probe", PROBES)
def test_a_given_layer_is_read_whatever_the_others_tell(probe):
    records, correct = planted(120, told_by=2)
    fitted = fit(replace(probe, layer="1"), records, correct)
    assert fitted.layer == 1


def test_nothing_to_tell_gives_about_the_base_rate():
    records, correct = planted(300, strength=0.0)
    wrong = fit(LinearProbe(), records, correct).uncertainty(records)
    assert abs(wrong.mean() - (1 - correct.mean())) < 0.02
    assert wrong.std() < 0.15


def test_the_linear_probe_is_scikit_learns_on_standardised_states():
    records, correct = planted(150)
    fitted = fit(LinearProbe(at="answer_end", layer="2"), records, correct)
    states = np.array([r.array(Feature.HIDDEN)[1, -1] for r in records], dtype=np.float64)
    states = (states - states.mean(axis=0)) / states.std(axis=0)
    found = fitted.uncertainty(records)
    differences = []
    for strength in (1e-3, 1e-2, 1e-1):
        peer = LogisticRegression(C=strength, max_iter=1000).fit(states, correct)
        differences.append(np.abs(peer.predict_proba(states)[:, 0] - found).max())
    assert min(differences) < 1e-4


def test_rotation_changes_no_fit():
    """With fewer rows than entries, the products of rows are all that a penalised fit reads."""
    features = np.random.default_rng(0).normal(size=(20, 90))
    rotated = _rotated(features)
    assert rotated.shape == (20, 20)
    np.testing.assert_allclose(rotated @ rotated.T, features @ features.T, atol=1e-10)
    np.testing.assert_array_equal(_rotated(features.T), features.T)


@pytest.mark.parametrize("probe", PROBES)
def test_the_same_generator_gives_the_same_probe_in_any_order_of_rows(probe):
    records, correct = planted(80, per_group=2)
    first = fit(probe, records, correct).uncertainty(records)
    order = np.random.default_rng(3).permutation(80)
    again = fit(probe, [records[i] for i in order], correct[order]).uncertainty(records)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("probe", PROBES)
def test_more_entries_than_rows_and_twenty_labels_only(probe):
    records, correct = planted(20, width=60)
    values = fit(probe, records, correct).uncertainty(records)
    assert np.all((values >= 0) & (values <= 1))


@pytest.mark.parametrize("probe", PROBES)
def test_part_marks_are_weights(probe):
    records, correct = planted(60)
    values = fit(probe, records, 0.1 + 0.8 * correct).uncertainty(records)
    assert auroc(1 - values, correct) > 0.9


@pytest.mark.parametrize("probe", PROBES)
def test_states_that_are_all_the_same_give_the_base_rate(probe):
    records = [record(f"r{i}", np.ones((2, 1, 4)), prompt=np.ones((2, 4))) for i in range(40)]
    correct = np.array([0.0, 1, 1, 1] * 10)
    values = fit(probe, records, correct).uncertainty(records)
    assert np.ptp(values) == 0
    assert values[0] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("probe", PROBES)
def test_one_class_or_one_group_of_it_is_one_clear_line(probe):
    records, _ = planted(20)
    with pytest.raises(DataError, match="20 of them right; right and wrong ones are required"):
        fit(probe, records, np.ones(20))
    single = np.ones(20)
    single[3] = 0
    with pytest.raises(DataError, match="only 1 with a wrong one"):
        fit(probe, records, single)


@pytest.mark.parametrize("probe", PROBES)
def test_states_of_another_model_are_refused_row_by_row(probe):
    records, correct = planted(40)
    fitted = fit(probe, records, correct)
    wider, _ = planted(2, width=9)
    with pytest.raises(UnscorableError, match=r"wide; .* are required") as error:
        fitted.uncertainty([records[0], *wider])
    assert error.value.rows == (1, 2)
    deeper = replace(records[1], features={**records[1].features}, layers=(7, 8, 9))
    with pytest.raises(UnscorableError, match="no hidden state of layer") as error:
        fitted.uncertainty([records[0], deeper])
    assert error.value.rows == (1,)


def test_rows_it_cannot_be_fitted_on_are_named_by_their_place_among_those_given():
    records, correct = planted(30)
    odd, _ = planted(1, width=9, seed=5)
    given = [*reversed(records), odd[0]]
    with pytest.raises(UnscorableError) as error:
        fit(LinearProbe(layer="2"), given, np.append(correct[::-1], 1.0))
    assert error.value.rows == (30,)


@pytest.mark.parametrize("probe", PROBES)
def test_a_written_probe_scores_alike_to_the_bit(probe):
    records, correct = planted(60)
    fitted = fit(probe, records, correct)
    again = FittedProbe.from_state(*fitted.state())
    np.testing.assert_array_equal(again.uncertainty(records), fitted.uncertainty(records))
    assert again.needs == fitted.needs


def test_settings_are_read_from_a_spec():
    assert parse_estimator("linear_probe:at=prompt_end:layer=12") == LinearProbe("prompt_end", "12")
    with pytest.raises(UsageError, match="Layer 'deep'"):
        parse_estimator("saplma:layer=deep")
    with pytest.raises(UsageError, match="answer_end"):
        parse_estimator("linear_probe:at=middle")


def test_a_missing_torch_names_the_extra(monkeypatch):
    records, correct = planted(30)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"torch is not installed.*\[models\]"):
        fit(NeuralProbe(), records, correct)
