"""Drift, CKA, percentages of control and the flag: by hand, at the limits, on bad input."""

import numpy as np
import pytest

from sightline.audit.controls import other_items
from sightline.audit.drift import (
    ControlDrift,
    control_drift,
    cosine_drift,
    l2_drift,
    linear_cka,
    moved_far,
    summarise_drift,
)
from sightline.core.errors import DataError, UndefinedMetricError


def test_drift_by_hand():
    clean = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    moved = np.array([[0.0, 3.0], [-2.0, 0.0], [1.0, 1.0], [8.0, 0.0]])
    assert cosine_drift(clean, moved) == pytest.approx([1, 2, 1 - 0.5**0.5, 0])
    assert l2_drift(clean, moved) == pytest.approx([10**0.5, 3, 1, 6])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_identity_gives_exactly_no_drift(dtype):
    states = np.random.default_rng(0).normal(size=(40, 3, 64)).astype(dtype)
    assert not cosine_drift(states, states.copy()).any()
    assert not l2_drift(states, states.copy()).any()


def test_a_shift_by_the_full_width_gives_exactly_no_drift():
    rng = np.random.default_rng(1)
    pictures, reader = rng.random((5, 12, 16, 3)), rng.normal(size=(12 * 16 * 3, 20))
    shifted = np.roll(pictures, 16, axis=2)
    states, moved = (p.reshape(5, -1) @ reader for p in (pictures, shifted))
    assert not cosine_drift(states, moved).any()
    half = np.roll(pictures, 8, axis=2).reshape(5, -1) @ reader
    assert (cosine_drift(states, half) > 1e-3).all()


def test_a_tiny_drift_keeps_its_digits():
    clean = np.array([[1.0, 0.0]])
    moved = np.array([[1.0, 1e-9]])
    assert cosine_drift(clean, moved)[0] == pytest.approx(5e-19, rel=1e-6)


def test_neither_size_nor_layers_matter_to_cosine_drift():
    rng = np.random.default_rng(2)
    clean, moved = rng.normal(size=(2, 6, 4, 32))
    found = cosine_drift(clean, moved)
    assert found.shape == (6, 4)
    assert cosine_drift(clean * 1e200, moved * 1e-200) == pytest.approx(found, rel=1e-12)


def test_zero_and_missing_representations_are_refused():
    with pytest.raises(DataError, match="all zero"):
        cosine_drift(np.zeros((1, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match="NaN"):
        l2_drift(np.array([[np.nan]]), np.array([[1.0]]))


def test_cka_ignores_rotation_scale_and_offset():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for debiased in (False, True):
        assert linear_cka(x, 3 * x @ rotation + 5, debiased=debiased) == pytest.approx(1, abs=1e-12)


def test_debiased_cka_of_unrelated_wide_sets_is_about_zero():
    rng = np.random.default_rng(4)
    plain, debiased = [], []
    for _ in range(20):
        x, y = rng.normal(size=(2, 50, 200))
        plain.append(linear_cka(x, y))
        debiased.append(linear_cka(x, y, debiased=True))
    assert np.mean(plain) > 0.75
    assert abs(np.mean(debiased)) < 0.02


def test_cka_without_variation_or_rows_is_undefined():
    x = np.random.default_rng(5).normal(size=(6, 2))
    with pytest.raises(UndefinedMetricError, match="alike"):
        linear_cka(x, np.full((6, 3), 0.1))
    with pytest.raises(UndefinedMetricError, match="1 rows"):
        linear_cka(x[:1], x[:1])
    with pytest.raises(UndefinedMetricError, match="at least 4"):
        linear_cka(x[:3], x[:3], debiased=True)


@pytest.mark.parametrize("measure", ["cosine", "l2"])
def test_a_control_is_the_drift_between_partners_to_the_bit(measure):
    states = np.random.default_rng(7).normal(size=(70, 9)).astype(np.float16)
    items = np.arange(70) + 100
    keys = np.array([f"{i:02d}" for i in range(70)])
    drawn = other_items(keys, items, k=25)  # more pairs than fit into one block
    found = control_drift(states, items, drawn.rows, drawn.partners, measure=measure)
    drift = cosine_drift if measure == "cosine" else l2_drift
    assert np.array_equal(found.values, drift(states[drawn.rows], states[drawn.partners]))
    assert np.array_equal(found.items, items[drawn.rows])


def summary_input(seed=6, items=30, shift=0.4):
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(items), 4)
    control_item = np.repeat(np.arange(items), 5)
    return {
        "images": item // 2,
        "items": item,
        "drift": rng.gamma(2.0, shift / 2, len(item)),
        "control": ControlDrift(control_item, rng.gamma(8.0, 1 / 8, len(control_item))),
    }


def test_a_summary_equals_the_formulas_over_item_means(clusters_of):
    given = summary_input()
    found = summarise_drift(**given, clusters=clusters_of(given["images"]))
    x = given["drift"].reshape(30, 4).mean(axis=1)
    y = given["control"].values.reshape(30, 5).mean(axis=1)
    pooled = np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    assert found.drift.value == pytest.approx(x.mean())
    assert found.control_sd == pytest.approx(y.std(ddof=1))
    assert found.percent.value == pytest.approx(100 * x.mean() / y.mean())
    assert found.percent_sd == pytest.approx(100 * x.std(ddof=1) / y.mean())
    assert found.cohens_d.value == pytest.approx((x.mean() - y.mean()) / pooled)
    assert found.paired_d.value == pytest.approx((x - y).mean() / (x - y).std(ddof=1))
    assert (found.rows, found.pairs, found.percent.n) == (120, 150, 30)
    assert found.percent.low < found.percent.value < found.percent.high
    assert found.cohens_d.high < 0


def test_only_rows_that_count_and_items_with_a_control_are_summarised(clusters_of):
    given = summary_input()
    kept = np.arange(120) % 3 > 0
    kept[:4] = False
    control = given["control"]
    given["control"] = ControlDrift(control.items[:100], control.values[:100])
    clusters = clusters_of(given["images"])
    found = summarise_drift(**given, clusters=clusters, among=kept)
    rows = kept & (given["items"] < 20)
    means = [given["drift"][rows & (given["items"] == i)].mean() for i in range(1, 20)]
    assert found.drift.value == pytest.approx(np.mean(means))
    assert found.drift.n == 19
    assert found.pairs == 95


def test_no_drift_at_all_is_zero_per_cent(clusters_of):
    given = summary_input() | {"drift": np.zeros(120)}
    found = summarise_drift(**given, clusters=clusters_of(given["images"]))
    assert found.percent.value == 0
    assert found.drift.value == 0


def test_a_control_that_does_not_move_has_no_per_cent(clusters_of):
    given = summary_input() | {"control": ControlDrift(np.arange(30), np.zeros(30))}
    found = summarise_drift(**given, clusters=clusters_of(given["images"]))
    assert found.percent.value is None
    assert found.percent_sd is None
    assert found.cohens_d.value > 0


def test_one_item_has_no_summary(clusters_of):
    given = summary_input(items=1)
    found = summarise_drift(**given, clusters=clusters_of(given["images"]))
    assert found.drift.value is None
    assert "fewer than 2" in found.drift.reason


def test_an_item_on_two_images_is_refused(clusters_of):
    given = summary_input() | {"images": np.arange(120)}
    with pytest.raises(DataError, match="several images"):
        summarise_drift(**given, clusters=clusters_of(np.arange(120)))


def test_the_flag_is_the_control_quantile():
    control = np.arange(1.0, 21.0)
    drift = np.array([0.0, 1.95, 1.96, 5.0, 30.0])
    found = moved_far(drift, control)
    assert found.threshold == pytest.approx(1.95)
    assert found.flags.tolist() == [False, False, True, True, True]
    assert "0.05 quantile of 20" in found.rule
    conditioned = moved_far(drift, control, among=np.array([1, 1, 1, 0, 1], dtype=bool))
    assert conditioned.flags.tolist() == [False, False, True, False, True]


def test_too_few_controls_flag_nothing_and_say_so():
    found = moved_far(np.ones(3), np.zeros(19))
    assert found.threshold is None
    assert not found.flags.any()
    assert "requires 20" in found.rule
    with pytest.raises(DataError, match="between 0 and 1"):
        moved_far(np.ones(3), np.zeros(19), quantile=1.0)


def test_unrelated_rows_lie_at_a_hundred_per_cent(clusters_of):
    rng = np.random.default_rng(8)
    states = rng.normal(size=(80, 24))
    items = np.arange(80)
    keys = np.array([f"{i:02d}" for i in items])
    drawn = other_items(keys, items, k=10, seed=1)
    again = other_items(keys, items, k=4, seed=2)
    control = control_drift(states, items, drawn.rows, drawn.partners)
    moved = cosine_drift(states[again.rows], states[again.partners])
    found = summarise_drift(again.rows, again.rows, moved, control, clusters_of(items))
    assert found.percent.low < 100 < found.percent.high
