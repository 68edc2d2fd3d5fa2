"""A confidence recorded by another tool."""

import numpy as np

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.recorded import RecordedConfidence


def record(confidence):
    return Record(
        Example("7", "?"),
        greedy=Generation("x"),
        features={Feature.RECORDED_CONFIDENCE: np.array(confidence)},
    )


def test_one_minus_the_confidence():
    values = RecordedConfidence().uncertainty([record(0.75), record(0.0), record(1.0)])
    assert values.tolist() == [0.25, 1.0, 0.0]


def test_a_score_that_is_no_probability_keeps_its_order():
    values = RecordedConfidence().uncertainty([record(c) for c in (-0.5, 0.3, 1.4, 87.0)])
    assert np.all(np.diff(values) < 0)
