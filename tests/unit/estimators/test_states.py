"""The vector that stands for an answer."""

import numpy as np
import pytest
from hidden_records import planted, record

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.estimators import parse_estimator
from sightline.estimators.states import check_layer, layers_read, state_needs, states

HIDDEN = np.arange(12.0).reshape(
    2, 3, 2
)  # layer 1: (0 1) (2 3) (4 5); layer 2: (6 7) (8 9) (10 11)


@pytest.mark.parametrize(
    ("at", "layer", "expected"),
    [
        ("answer_end", 1, [4, 5]),
        ("answer_end", 2, [10, 11]),
        ("answer_mean", 1, [2, 3]),
        ("answer_end_and_mean", 2, [10, 11, 8, 9]),
        ("prompt_end", 2, [-3, -4]),
    ],
)
def test_the_state_is_read_where_it_is_said(at, layer, expected):
    one = record("a", HIDDEN, prompt=[[-1, -2], [-3, -4]])
    np.testing.assert_array_equal(states([one], at, layer), [expected])


def test_reasoning_is_left_out_of_the_mean_unless_there_is_nothing_else():
    reasoned = record("a", HIDDEN, answer_start=1)
    np.testing.assert_array_equal(states([reasoned], "answer_mean", 1), [[3, 4]])
    cut_off = record("b", HIDDEN, answer_start=3)
    np.testing.assert_array_equal(states([cut_off], "answer_mean", 1), [[2, 3]])


def test_an_answer_of_2000_tokens_has_one_vector():
    long = record("a", np.ones((1, 2000, 4)))
    np.testing.assert_array_equal(states([long], "answer_end_and_mean", 1), np.ones((1, 8)))


def test_no_record_has_no_vector():
    assert states([], "answer_end", 1, 7).shape == (0, 7)


def test_rows_without_the_layer_or_of_another_width_are_named():
    records = [
        record("a", HIDDEN),
        record("b", HIDDEN, layers=(3, 4)),
        record("c", np.zeros((2, 3, 5))),
    ]
    with pytest.raises(UnscorableError, match=r"no hidden state of layer 2; layers \[3, 4\]") as e:
        states(records, "answer_end", 2)
    assert e.value.rows == (1,)
    with pytest.raises(UnscorableError, match="hidden states 5 wide; 2 are required") as e:
        states([records[0], records[2]], "answer_end", 2)
    assert e.value.rows == (1,)
    with pytest.raises(UnscorableError, match="2 wide; 4 are required") as e:
        states([records[0]], "answer_mean", 2, 4)
    assert e.value.rows == (0,)


def test_each_position_names_its_signal():
    assert state_needs("prompt_end") == {Feature.PROMPT_HIDDEN}
    assert state_needs("answer_mean") == state_needs("answer_end") == {Feature.HIDDEN}


@pytest.mark.parametrize("layer", ["last", "-1", "0.5", "", "²"])
def test_a_layer_that_is_no_index_is_refused(layer):
    with pytest.raises(UsageError, match="auto or the index of a stored layer"):
        check_layer(layer, "auto")
    check_layer("auto", "auto")
    check_layer("16", "auto")


def read_by(*specs):
    return layers_read([parse_estimator(spec) for spec in specs])


def test_layers_that_are_read_are_those_that_are_named():
    assert read_by("sequence_probability") == ()
    assert read_by("eigenscore:layer=9", "sequence_probability", "von_neumann_entropy:layer=4") == (
        9,
    )
    hidden = "von_neumann_entropy:similarity=hidden:layer=4"
    assert read_by("eigenscore:layer=9", hidden) == (4, 9)


def test_where_one_goes_by_the_layers_that_are_there_none_can_be_left_out():
    assert read_by("eigenscore:layer=9", "eigenscore") is None
    assert read_by("drift_share") is None


def test_a_fitted_one_states_the_layers_it_chose():
    records, correct = planted(told_by=2)
    rng = np.random.default_rng(0)
    probe = parse_estimator("linear_probe").fit(records, correct, rng=rng)
    assert layers_read([probe]) == (2,)
    ensemble = parse_estimator("mahalanobis").fit(records, correct, rng=rng)
    assert layers_read([probe, ensemble]) == (1, 2, 3)
