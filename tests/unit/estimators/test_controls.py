"""Controls: they must know nothing of the answer, and say so reproducibly."""

import numpy as np
import pytest

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Example, Generation, Record
from sightline.estimators.controls import AnswerLength, QuestionType, Random


def record(kind="count", name="1", **more):
    return Record(Example(name, "?", question_type=kind), greedy=Generation("two dogs", **more))


def test_length_in_tokens_or_else_in_characters():
    records = [
        record(token_ids=np.arange(5)),
        record(token_ids=np.arange(5), answer_start=3),
        record(token_ids=np.arange(5), answer_start=5),
        record(tokens=("two", "dogs", "<end>")),
        record(),
    ]
    assert AnswerLength().uncertainty(records).tolist() == [5, 2, 5, 3, 8]


def test_random_is_uniform_and_depends_on_key_and_seed_alone():
    records = [record(name=str(i)) for i in range(4000)]
    values = Random().uncertainty(records)
    np.testing.assert_array_equal(Random().uncertainty(records[::-1]), values[::-1])
    assert len(np.unique(values)) == len(values)
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert np.sum((counts - 400.0) ** 2 / 400) < 27.9  # chi-squared, 9 degrees, p = .001
    other = Random(seed=1).uncertainty(records)
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.06


def test_random_is_the_same_on_every_machine():
    assert Random().uncertainty([record(name="vsr-111")])[0] == 0.2841950675891166


def test_error_rates_by_type_smoothed_toward_the_overall_rate():
    records = [record("count")] * 3 + [record("colour")] * 2
    fitted = QuestionType().fit(
        records, np.array([1.0, 0.0, 0.0, 1.0, 1.0]), rng=np.random.default_rng(0)
    )
    # Overall .4; (2 + .4)/(3 + 1) and (0 + .4)/(2 + 1); a type never seen gets the overall rate.
    values = fitted.uncertainty([record("count"), record("colour"), record("shape")])
    np.testing.assert_allclose(values, [0.6, 0.4 / 3, 0.4])


def test_strong_smoothing_leaves_the_overall_rate():
    records = [record("count")] * 2 + [record("colour")] * 2
    correct = np.array([0.0, 0.5, 1.0, 1.0])
    fitted = QuestionType(strength=1e12).fit(records, correct, rng=np.random.default_rng(0))
    np.testing.assert_allclose(fitted.uncertainty(records), 0.375)


def test_all_right_or_all_wrong_is_a_limit_not_an_error():
    for value in (0.0, 1.0):
        fitted = QuestionType().fit([record()], np.array([value]), rng=np.random.default_rng(0))
        assert fitted.uncertainty([record()])[0] == 1.0 - value


@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 1)])
def test_fitting_needs_one_correctness_per_record(n, m):
    with pytest.raises(DataError, match=f"{n} records and {m} values"):
        QuestionType().fit([record()] * n, np.ones(m), rng=np.random.default_rng(0))


@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf"), float("nan")])
def test_strength_must_be_positive(strength):
    with pytest.raises(UsageError, match="a positive number"):
        QuestionType(strength=strength)
