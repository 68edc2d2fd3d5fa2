"""Yes-or-no rates by hand."""

import numpy as np
import pytest

from sightline.audit.yes_no import yes_no_flips, yes_no_rates

SAYS = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
TRUE = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)


def test_rates_by_hand(clusters_of):
    images = np.arange(8)
    found = yes_no_rates(images, SAYS, TRUE, clusters_of(images))
    assert found.accuracy.value == 5 / 8
    assert found.precision.value == 2 / 4
    assert found.recall.value == pytest.approx(2 / 3)
    assert found.f1.value == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert found.false_positive_rate.value == pytest.approx(2 / 5)
    assert found.yes_rate.value == 4 / 8
    assert found.recall.n == 3
    assert found.precision.n == 4


def test_always_no_has_no_precision(clusters_of):
    images = np.arange(8)
    found = yes_no_rates(images, np.zeros(8, dtype=bool), TRUE, clusters_of(images))
    assert found.precision.value is None
    assert found.precision.reason == "no answer is yes"
    assert found.recall.value == found.yes_rate.value == found.f1.value == 0


def test_flips_by_answer_and_truth(clusters_of):
    images = np.arange(8)
    now = np.array([0, 1, 0, 1, 1, 0, 0, 1], dtype=bool)
    found = yes_no_flips(images, SAYS, now, TRUE, clusters_of(images))
    assert found.hit.value == 1 / 2
    assert found.false_alarm.value == 1 / 2
    assert found.miss.value == 1
    assert found.rejection.value == pytest.approx(1 / 3)
