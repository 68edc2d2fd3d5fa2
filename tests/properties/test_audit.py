"""Laws of the audit on any rows: order, identity, bounds, loops, Parseval."""

from collections import Counter
from math import log

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.audit.drift import cosine_drift, l2_drift, linear_cka, moved_far
from sightline.audit.frequency import (
    Band,
    band_edges,
    band_noise,
    band_power,
    coherence,
    high_pass,
    low_pass,
)
from sightline.audit.instability import TRUTH_UNKNOWN, Pairs, instability, visual_entropy
from sightline.audit.labels import labels, margins, score_change
from sightline.audit.prior import drift_to_prior
from sightline.audit.resampled import Clusters
from sightline.audit.structure import dirichlet_energy, energy_map
from sightline.core.errors import UndefinedMetricError

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)


def clusters_of(images):
    return Clusters.of(images, rng=np.random.default_rng(0), n_resamples=60)


@st.composite
def pair_columns(draw):
    """Items on images, several pairs each, small label sets so that flips and ties occur."""
    items = draw(st.integers(1, 8))
    options = draw(st.integers(2, 4))
    label = st.integers(0, options - 1)
    image_of = draw(st.lists(st.integers(0, 4), min_size=items, max_size=items))
    clean = draw(st.lists(label, min_size=items, max_size=items))
    truth = draw(st.lists(st.integers(-1, options - 1), min_size=items, max_size=items))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, items - 1), label, st.booleans()), min_size=1, max_size=30
        )
    )
    item = np.array([row[0] for row in rows])
    return {
        "images": np.array(image_of)[item],
        "items": item,
        "clean": np.array(clean)[item],
        "perturbed": np.array([row[1] for row in rows]),
        "truth": np.array(truth)[item],
        "excluded": np.array([TRUTH_UNKNOWN if row[2] else "" for row in rows]),
    }


def over(part, whole):
    return part / whole if whole else None


@quick
@given(pair_columns())
def test_rates_equal_a_naive_loop(columns):
    found = instability(Pairs.of_labels(**columns), clusters_of(columns["images"]))
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    used = [row for row in rows if not row["excluded"]]
    known = [row for row in used if row["truth"] >= 0]
    moves = Counter(
        (bool(r["clean"] == r["truth"]), bool(r["perturbed"] == r["truth"])) for r in known
    )
    flips = [row for row in used if row["clean"] != row["perturbed"]]
    every, touched = {r["items"] for r in used}, {r["items"] for r in flips}
    right = moves[True, True] + moves[True, False]
    expected = {
        "ifr": over(len(flips), len(used)),
        "iv": over(len(touched), len(every)),
        "lost": over(moves[True, False], right),
        "won": over(moves[False, True], len(known) - right),
        "accuracy_before": over(right, len(known)),
        "accuracy_after": over(moves[True, True] + moves[False, True], len(known)),
    }
    for name, value in expected.items():
        figure = getattr(found, name)
        assert (figure.value is None) == (value is None), name
        assert value is None or figure.value == pytest.approx(value, abs=1e-12), name
        if figure.low is not None:
            assert 0 <= figure.low <= figure.high <= 1
    assert sum(skipped.n for skipped in found.excluded) == len(rows) - len(used)
    assert found.pairs == len(used)


@quick
@given(pair_columns(), st.randoms(use_true_random=False))
def test_the_order_of_pairs_never_shows(columns, random):
    order = list(range(len(columns["items"])))
    random.shuffle(order)
    clusters = clusters_of(columns["images"])
    shuffled = {name: values[order] for name, values in columns.items()}
    first, second = (instability(Pairs.of_labels(**c), clusters) for c in (columns, shuffled))
    assert first == second


@quick
@given(pair_columns())
def test_identity_never_flips(columns):
    columns["perturbed"] = columns["clean"]
    found = instability(Pairs.of_labels(**columns), clusters_of(columns["images"]))
    assert found.ifr.value in (0, None)
    assert found.transitions.right_wrong == found.transitions.wrong_right == 0


@quick
@given(pair_columns())
def test_visual_entropy_equals_a_naive_loop(columns):
    items, entropy = visual_entropy(columns["items"], columns["clean"], columns["perturbed"])
    for item, value in zip(items, entropy, strict=True):
        own = columns["items"] == item
        seen = [columns["clean"][own][0], *columns["perturbed"][own]]
        shares = [count / len(seen) for count in Counter(seen).values()]
        assert value == pytest.approx(-sum(p * log(p) for p in shares), abs=1e-12)
        assert 0 <= value <= log(len(seen)) + 1e-12


@quick
@given(seeds, st.integers(1, 12), st.integers(2, 5), st.floats(0, 3))
def test_margins_tell_labels_and_flips(seed, n, options, noise):
    rng = np.random.default_rng(seed)
    clean = np.round(-rng.gamma(2.0, 2.0, (n, options)), 1)
    moved = np.round(clean - noise * rng.random((n, options)), 1)
    base = labels(clean)
    assert (margins(clean, base) >= 0).all()
    under = margins(moved, base)
    assert ((under < 0) <= (labels(moved) != base)).all()
    assert ((under > 0) <= (labels(moved) == base)).all()
    assert (score_change(clean, moved, base) <= 1e-12).all()


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 20), st.sampled_from([np.float16, np.float64]))
def test_drift_is_symmetric_bounded_and_zero_for_the_same(seed, n, width, dtype):
    clean, moved = np.random.default_rng(seed).normal(size=(2, n, width)).astype(dtype)
    clean[:, 0] += 9  # no representation is all zero
    moved[:, 0] += 9
    for drift in (cosine_drift, l2_drift):
        assert not drift(clean, clean.copy()).any()
        assert np.array_equal(drift(clean, moved), drift(moved, clean))
        assert (drift(clean, moved) >= 0).all()
    assert (cosine_drift(clean, moved) <= 2).all()
    assert cosine_drift(clean, -clean) == pytest.approx(np.full(n, 2.0))


@quick
@given(seeds, st.integers(2, 12), st.integers(1, 8), st.integers(1, 8))
def test_cka_is_symmetric_and_in_bounds_by_rows_as_by_features(seed, n, d, e):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, e))
    try:
        value = linear_cka(x, y)
    except UndefinedMetricError:
        return
    assert 0 <= value <= 1
    assert linear_cka(y, x) == pytest.approx(value, abs=1e-9)
    wide = np.concatenate([x, np.zeros((n, 30))], axis=1)  # forces the other form
    assert linear_cka(wide, y) == pytest.approx(value, abs=1e-9)
    assert linear_cka(x, x) == pytest.approx(1)


@quick
@given(seeds, st.integers(20, 60), st.floats(0.05, 0.9))
def test_controls_flag_themselves_at_their_own_rate(seed, n, quantile):
    control = np.random.default_rng(seed).gamma(2.0, size=n)
    share = moved_far(control, control, quantile=quantile).flags.mean()
    assert abs(share - (1 - quantile)) <= 1 / n


@quick
@given(seeds, st.integers(1, 7), st.integers(2, 7), st.integers(1, 4), st.floats(-5, 5))
def test_energy_ignores_offsets_and_turning_the_grid(seed, h, w, width, offset):
    grid = np.random.default_rng(seed).normal(size=(h, w, width))
    energy = dirichlet_energy(grid)
    assert energy >= 0
    assert dirichlet_energy(grid + offset) == pytest.approx(energy, rel=1e-9)
    assert dirichlet_energy(grid.transpose(1, 0, 2)[::-1]) == pytest.approx(energy)
    assert not dirichlet_energy(np.full_like(grid, offset)).any()
    edges = h * (w - 1) + (h - 1) * w
    naive = sum(
        float(((grid[i, j] - grid[a, b]) ** 2).sum())
        for i in range(h)
        for j in range(w)
        for a, b in ((i + 1, j), (i, j + 1))
        if a < h and b < w
    )
    assert energy == pytest.approx(naive / edges)
    assert (energy_map(grid) >= 0).all()


@quick
@given(
    seeds,
    st.integers(1, 12),
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from(["log", "equal"]),
)
def test_bands_add_up_on_any_picture(seed, h, w, count, spacing):
    image = np.random.default_rng(seed).random((h, w, 2))
    edges = band_edges(count, spacing, height=64, width=64)
    assert band_power(image, edges).sum() == pytest.approx((image**2).sum(), rel=1e-10)
    assert coherence(image[None], image[None], edges) == pytest.approx(np.ones((1, count)))


@quick
@given(seeds, st.integers(2, 12), st.integers(2, 12), st.floats(0, 1))
def test_filters_split_a_picture_and_are_projections(seed, h, w, cutoff):
    image = np.random.default_rng(seed).random((h, w, 1))
    low, high = low_pass(image, cutoff), high_pass(image, cutoff, keep_mean=False)
    assert low + high == pytest.approx(image, abs=1e-12)
    assert low_pass(low, cutoff) == pytest.approx(low, abs=1e-12)


@quick
@given(seeds, st.floats(0, 0.6), st.floats(0.2, 0.4), st.floats(0, 1))
def test_noise_has_the_asked_size_in_the_asked_band(seed, low, span, size):
    band = Band(low, low + span)
    noise = band_noise((16, 12, 3), band, size, rng=np.random.default_rng(seed))
    assert np.abs(noise).max() == pytest.approx(size)
    if size > 1e-6:
        assert band.share(noise) == pytest.approx(1, abs=1e-9)


@quick
@given(seeds, st.integers(1, 20))
def test_the_prior_index_counts_every_row_once(seed, n):
    clean, perturbed, blank = np.random.default_rng(seed).normal(size=(3, n))
    found = drift_to_prior(clean, perturbed, blank)
    assert len(found.rows) + sum(skipped.n for skipped in found.excluded) == n
    assert ((found.values >= -1) & (found.values <= 2)).all()
