"""Drift-to-prior and the answers without the picture, by hand."""

import numpy as np
import pytest

from sightline.audit.prior import drift_to_prior, language_prior
from sightline.core.errors import DataError
from sightline.core.results import Skipped


def test_the_index_by_hand():
    clean = np.array([4.0, 4.0, 4.0, 4.0, 4.0, 1.0])
    perturbed = np.array([4.0, 2.0, 3.0, -9.0, 7.0, 0.0])
    blank = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 0.95])
    found = drift_to_prior(clean, perturbed, blank)
    assert found.rows.tolist() == [0, 1, 2, 3, 4]
    assert found.values.tolist() == [0, 1, 0.5, 2, -1]
    assert found.excluded == (Skipped("the picture moves the margin by no more than 0.1 nats", 1),)


def test_a_blank_picture_that_raises_the_margin_has_an_index_too():
    found = drift_to_prior(np.array([1.0]), np.array([2.0]), np.array([3.0]))
    assert found.values.tolist() == [0.5]
    assert found.excluded == ()


def test_identity_is_zero_and_blank_is_one():
    rng = np.random.default_rng(0)
    clean, blank = rng.normal(size=(2, 50)) * 5
    assert not drift_to_prior(clean, clean, blank).values.any()
    assert (drift_to_prior(clean, blank, blank).values == 1).all()


def test_margins_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        drift_to_prior(np.array([1.0]), np.array([-np.inf]), np.array([0.0]))


def test_shares_without_the_picture_by_hand(clusters_of):
    images = np.arange(6)
    found = language_prior(
        images,
        label=np.array([0, 1, 2, 0, 1, 2]),
        blank_label=np.array([0, 1, 0, 0, 0, 0]),
        margin=np.arange(6.0),
        blank_margin=np.arange(6.0) - 3,
        truth=np.array([0, 1, 2, 1, 0, -1]),
        clusters=clusters_of(images),
    )
    assert found.unchanged.value == pytest.approx(3 / 6)
    assert found.unchanged_right.value == pytest.approx(2 / 3)
    assert found.unchanged_wrong.value == pytest.approx(1 / 2)
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.accuracy_blank.value == pytest.approx(3 / 5)
    assert found.accuracy_gain.value == 0
    assert (found.margin.value, found.margin_blank.value) == (2.5, -0.5)


def test_without_truth_there_are_no_accuracies(clusters_of):
    images, labels = np.arange(3), np.zeros(3, dtype=int)
    found = language_prior(
        images, labels, labels, np.ones(3), np.ones(3), labels - 1, clusters_of(images)
    )
    assert found.unchanged.value == 1
    assert found.accuracy.value is None
    assert "known right answer" in found.accuracy_gain.reason
