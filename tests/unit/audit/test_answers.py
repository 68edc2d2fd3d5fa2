"""The table of per-answer features."""

import numpy as np
import pytest

from sightline.audit.answers import FEATURES, answer_features
from sightline.audit.drift import ControlDrift
from sightline.audit.prior import PriorIndex, drift_to_prior
from sightline.core.errors import DataError
from sightline.core.results import Skipped

ITEMS = np.array([7, 7, 3, 3])
CONTROL = ControlDrift(np.array([7, 7, 3]), np.array([0.2, 0.4, 0.5]))


def test_every_column_by_hand():
    clean, perturbed = np.array([2.0, 2.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0, -2.0])
    found = answer_features(
        ITEMS,
        flipped=np.array([False, False, False, True]),
        margin_loss=clean - perturbed,
        drift=np.array([0.1, 0.3, 0.04, 0.04]),
        control=CONTROL,
        energy_change=np.array([-2.0, 2.0, 0.0, 1.0]),
        prior=drift_to_prior(clean, perturbed, np.array([1.0, 1.0, 0.0, 0.0])),
    )
    assert found.names == FEATURES
    assert found.items.tolist() == [3, 7]
    # The mean control is that of the items' means: (0.3 + 0.5) / 2.
    assert found.values[0] == pytest.approx([0.5, 1.5, 10.0, 0.5, 1.0])
    assert found.values[1] == pytest.approx([0.0, 0.5, 50.0, 2.0, 0.5])
    assert found.column("margin_loss") == pytest.approx([1.5, 0.5])
    assert found.excluded == ()


def test_items_that_lack_a_feature_are_counted():
    prior = PriorIndex(np.array([0]), np.array([0.5]), ())
    found = answer_features(ITEMS, flipped=np.ones(4, dtype=bool), prior=prior)
    assert found.items.tolist() == [7]
    assert found.excluded == (Skipped("no prior_index", 1),)


def test_drift_needs_a_control_and_the_table_a_feature():
    nothing = ControlDrift(np.zeros(0, dtype=int), np.zeros(0))
    still = ControlDrift(np.array([1]), np.zeros(1))
    for control in (None, nothing, still):
        with pytest.raises(DataError, match="control that moves"):
            answer_features(ITEMS, drift=np.ones(4), control=control)
    with pytest.raises(DataError, match="any feature"):
        answer_features(ITEMS)
    with pytest.raises(DataError, match="NaN"):
        answer_features(ITEMS, margin_loss=np.array([np.nan, 0, 0, 0]))
    with pytest.raises(DataError, match="has no drift_percent"):
        answer_features(ITEMS, margin_loss=np.ones(4)).column("drift_percent")
