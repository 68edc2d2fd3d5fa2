"""Choosing perturbations: the informative one first, deterministically, without leaks."""

import numpy as np
import pytest

from sightline.audit.budget import (
    Labelled,
    choose_perturbations,
    cross_fitted,
)
from sightline.core.errors import DataError, UsageError


def labelled(n=400, p=6, seed=0, informative=(4, 1), first_group=0):
    """The target hangs on one perturbation strongly, on another weakly; the rest is noise."""
    rng = np.random.default_rng(seed)
    shown = rng.normal(size=(n, p, 2))
    strong, weak = informative
    logits = 2.0 * shown[:, strong, 0] - 1.0 * shown[:, weak, 1]
    return Labelled(
        shown=shown,
        target=rng.random(n) < 1 / (1 + np.exp(-logits)),
        groups=first_group + np.arange(n) // 2,
        known=np.zeros((n, 0)),
    )


def test_the_informative_perturbations_come_first():
    found = choose_perturbations(labelled(), k=3)
    assert [one.perturbation for one in found.chosen[:2]] == [4, 1]
    assert found.chosen[0].gain > found.chosen[1].gain > 0.01 > found.chosen[2].gain
    assert found.loss > found.chosen[0].loss > found.chosen[1].loss
    assert found.loss == pytest.approx(np.log(2), abs=0.01)
    assert found.useful()[:2] == (4, 1)


def test_without_signal_the_useful_ones_are_none():
    rows = labelled()
    noise = Labelled(rows.shown[:, [0, 2, 3]], rows.target, rows.groups, rows.known)
    found = choose_perturbations(noise, k=3)
    assert found.useful() == ()


def test_what_is_known_anyway_is_no_gain():
    rows = labelled()
    known = Labelled(rows.shown, rows.target, rows.groups, rows.shown[:, 4])
    found = choose_perturbations(known, k=2)
    assert found.chosen[0].perturbation == 1
    copy = next(one for one in choose_perturbations(known, k=6).chosen if one.perturbation == 4)
    assert copy.gain < 0.002


def test_the_choice_does_not_depend_on_the_order_of_rows():
    rows = labelled(seed=3)
    order = np.random.default_rng(1).permutation(400)
    shuffled = Labelled(
        rows.shown[order], rows.target[order], rows.groups[order], rows.known[order]
    )
    one, other = choose_perturbations(rows, k=4), choose_perturbations(shuffled, k=4)
    assert [c.perturbation for c in one.chosen] == [c.perturbation for c in other.chosen]
    assert one.chosen[-1].loss == pytest.approx(other.chosen[-1].loss, abs=1e-9)
    assert choose_perturbations(rows, k=4) == one


def test_equal_perturbations_go_to_the_first():
    rows = labelled()
    twice = Labelled(rows.shown[:, [4, 4, 1]], rows.target, rows.groups, rows.known)
    assert choose_perturbations(twice, k=1).chosen[0].perturbation == 0


def test_more_than_there_are_is_all():
    assert len(choose_perturbations(labelled(p=5), k=99).chosen) == 5


def test_features_without_variation_and_perfect_ones_do_no_harm():
    rows = labelled(n=60)
    shown = rows.shown.copy()
    shown[:, 0] = 0.1
    shown[:, 2, 0] = rows.target
    found = choose_perturbations(Labelled(shown, rows.target, rows.groups, rows.known), k=6)
    assert found.chosen[0].perturbation == 2
    assert np.isfinite([one.loss for one in found.chosen]).all()


def test_the_model_equals_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is absent")
    from sightline.audit.budget import _fit, _losses

    rows = labelled(seed=5)
    x = rows.columns((1, 4))
    fitted = _fit(x, rows.target, 1.0)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    peer = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000)
    peer.fit(standard, rows.target)
    assert fitted.coefficients[1:] == pytest.approx(peer.coef_[0], abs=1e-5)
    assert fitted.coefficients[0] == pytest.approx(peer.intercept_[0], abs=1e-5)
    likely = peer.predict_proba(standard)[np.arange(400), rows.target.astype(int)]
    assert _losses(x, rows.target, fitted) == pytest.approx(-np.log(likely), abs=1e-5)


def test_rows_that_teach_nothing_are_refused():
    rows = labelled(n=40)
    one_class = Labelled(rows.shown, np.ones(40, dtype=bool), rows.groups, rows.known)
    with pytest.raises(DataError, match="all have the same outcome"):
        choose_perturbations(one_class, k=1)
    with pytest.raises(DataError, match="20 groups for 30 parts"):
        choose_perturbations(rows, k=1, folds=30)
    with pytest.raises(UsageError, match="at least 1"):
        choose_perturbations(rows, k=0)
    with pytest.raises(DataError, match="NaN"):
        Labelled(rows.shown * np.nan, rows.target, rows.groups, rows.known)
    with pytest.raises(DataError, match="at least one perturbation"):
        Labelled(rows.shown[:, :0], rows.target, rows.groups, rows.known)


def test_every_row_is_measured_by_a_choice_that_did_not_see_it():
    rows = labelled(n=300)
    found = cross_fitted(rows, k=2)
    assert [own[0] for own in found.chosen] == [4] * 5
    assert found.gains.shape == (3, 300)
    one, two, everything = found.gains.mean(axis=1)
    assert two > one > 0.05
    assert everything == pytest.approx(two, abs=0.05)
    same = cross_fitted(rows, k=2)
    assert np.array_equal(same.gains, found.gains)
    # Rows of one part do not move the choice that measures them.
    part = np.flatnonzero(found.gains[0] != 0)[:1]
    changed = rows.target.copy()
    changed[part] = ~changed[part]
    other = cross_fitted(Labelled(rows.shown, changed, rows.groups, rows.known), k=2)
    assert other.gains[0, part] != found.gains[0, part]


def test_noise_is_worth_nothing_elsewhere():
    rows = labelled(n=300)
    noise = Labelled(rows.shown[:, [0, 2, 3]], rows.target, rows.groups, rows.known)
    found = cross_fitted(noise, k=3)
    assert found.gains.mean(axis=1).max() < 0.005
    with pytest.raises(DataError, match="groups for 5 parts"):
        cross_fitted(labelled(n=8), k=1)
