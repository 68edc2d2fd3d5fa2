"""A confidence recorded by another tool."""

import numpy as np
import pytest

from sightline.core.errors import DataError
from sightline.core.types import Example, Feature, Generation, Record
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


@pytest.mark.parametrize("confidence", [-0.01, 1.01, 87.0])
def test_a_number_that_is_no_probability_is_refused(confidence):
    with pytest.raises(DataError, match=rf"{confidence:g} of record \('7', 'clean'\)"):
        RecordedConfidence().uncertainty([record(0.5), record(confidence)])
