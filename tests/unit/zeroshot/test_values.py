"""Values worked by hand, limiting cases, and what the released code of TrustVLM computes."""

import random
from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_curve

from sightline.core.errors import DataError, UsageError
from sightline.metrics.discrimination import auroc, fpr_at_tpr_nearest
from sightline.metrics.selective import aurc
from sightline.zeroshot import (
    BLOCK_ROWS,
    ZERO_SHOT_SCORES,
    ClassifierOutputs,
    ClassTexts,
    Support,
    draw_support,
    draw_support_compat,
    parse_score,
    score,
)
from sightline.zeroshot.density import shrunk_covariance
from sightline.zeroshot.outputs import as_rows
from sightline.zeroshot.prototypes import class_prototypes, deal_folds
from sightline.zeroshot.trustvlm import TrustVLM

from .conftest import World, unit

RNG = np.random.default_rng(0)
AXES = ClassTexts(("cat", "dog"), np.eye(2, dtype=np.float32), logit_scale=5.0)
IMAGES = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
PAIR = Support(np.array([[0.8, 0.6], [0.0, 1.0]], dtype=np.float32), np.array([0, 1]))

NUMBERS = [
    (name, field.name)
    for name, entry in ZERO_SHOT_SCORES.items()
    for field in fields(entry)
    if isinstance(getattr(entry, field.name), float) and not entry.traits.slow
] + [("vector_scaling", "strength")]


def of(entry, outputs=None, support=PAIR, texts=AXES):
    entry = ZERO_SHOT_SCORES[entry] if isinstance(entry, str) else entry
    outputs = outputs or ClassifierOutputs(texts, IMAGES)
    return score(entry.fit(texts, support, np.random.default_rng(0)), outputs)


class TestByHand:
    """Logits (3, 4) and (5, 0): odds against the label e⁻¹ and e⁻⁵."""

    ODDS = np.exp([-1.0, -5.0])
    P = 1 / (1 + ODDS)

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("msp", 1 - P),
            ("max_logit", [-4.0, -5.0]),
            ("energy", [-4 - np.log1p(ODDS[0]), -5 - np.log1p(ODDS[1])]),
            ("entropy", -P * np.log(P) - (1 - P) * np.log(1 - P)),
            ("margin", 1 - (2 * P - 1)),
            ("mcm", 1 - 1 / (1 + np.exp([-0.2, -1.0]))),
            ("doctor_alpha", (1 - P**2 - (1 - P) ** 2) / (P**2 + (1 - P) ** 2)),
            ("doctor_beta", ODDS),
            ("max_cosine", [0.2, 0.0]),
            ("prototype", [0.2, 0.2]),  # (0.6, 0.8) to (0, 1); (1, 0) to (0.8, 0.6)
        ],
    )
    def test_zero_shot_scores(self, name, wanted):
        result = of(name)
        assert result.label.tolist() == [1, 0]
        np.testing.assert_allclose(result.uncertainty, wanted, rtol=1e-5)

    def test_kappa(self):
        found = of(TrustVLM(select="fixed", alpha=0.5)).uncertainty
        np.testing.assert_allclose(1 + 0.5 - found, self.P + 0.5 * 0.8, rtol=1e-6)

    def test_the_rescored_label_follows_the_prototypes(self):
        """(0.6, 0.8) is nearer to the cat's prototype: cosines 0.96 and 0.8."""
        result = of(TrustVLM(rescored=True, select="fixed", alpha=1.0, tau=0.1))
        similar = 1 / (1 + np.exp(-1.6))
        assert result.label.tolist() == [0, 0]
        kappa = (1 - self.P[0]) + similar + 0.96
        assert 1 + 2 - result.uncertainty[0] == pytest.approx(kappa, rel=1e-5)

    def test_trust_score(self):
        """(0.6, 0.8): to the dog at √0.4, to the cat at √0.08."""
        d, c = np.sqrt(0.4), np.sqrt(0.08)
        assert of("trust_score").uncertainty[0] == pytest.approx(d / (d + c), rel=1e-5)

    def test_neighbours(self):
        one = replace(ZERO_SHOT_SCORES["knn"], k=1)
        np.testing.assert_allclose(of(one).uncertainty, np.sqrt([0.08, 0.4]), rtol=1e-5)
        labels = of(replace(one, read="labels")).uncertainty
        assert labels.tolist() == [1.0, 0.0]  # nearest is the cat, predicted are dog and cat

    def test_templates_that_agree_do_not_disagree(self):
        same = replace(AXES, templates=np.stack([AXES.vectors] * 3))
        np.testing.assert_allclose(
            of("template_disagreement", ClassifierOutputs(same, IMAGES), texts=same).uncertainty,
            0.0,
            atol=1e-6,
        )

    def test_opposite_templates_disagree_by_ln_2(self):
        sharp = replace(
            AXES, logit_scale=500.0, templates=np.stack([AXES.vectors, AXES.vectors[::-1]])
        )
        found = of("template_disagreement", ClassifierOutputs(sharp, IMAGES), texts=sharp)
        np.testing.assert_allclose(found.uncertainty, np.log(2), rtol=1e-5)

    def test_views_like_the_image_are_msp(self):
        seen = ClassifierOutputs(AXES, IMAGES, views=np.stack([IMAGES, IMAGES]))
        np.testing.assert_allclose(
            of("augmentation_consistency", seen).uncertainty, of("msp").uncertainty, rtol=1e-6
        )

    def test_sure_images_still_differ(self):
        sharp = replace(AXES, logit_scale=100.0)
        rows = unit([[0.7, 0.9], [0.5, 0.9], [0.3, 0.9]])
        u = of("msp", ClassifierOutputs(sharp, rows), texts=sharp).uncertainty
        assert u[0] > u[1] > u[2] > 0


class TestFloat16:
    def test_every_value_is_widened_to_the_bit(self):
        halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
        for rows in (halves, halves[::2], halves[:, 3:40]):
            wide = as_rows(rows, np.float32)
            np.testing.assert_array_equal(wide, rows.astype(np.float32))
            assert wide.dtype == np.float32
            assert wide.flags.c_contiguous

    def test_stored_as_float16_a_score_is_that_of_the_rounded_vectors(self):
        world = World(seed=3)
        seen, _ = world.outputs(40)
        small = ClassifierOutputs(
            world.texts, seen.image.astype(np.float16), seen.aux.astype(np.float16)
        )
        rounded = ClassifierOutputs(
            world.texts, small.image.astype(np.float32), small.aux.astype(np.float32)
        )
        support = world.support(5)
        for name in ("msp", "trustvlm_aux", "knn_labels_aux"):
            pair = [of(name, o, support, world.texts) for o in (small, rounded)]
            np.testing.assert_array_equal(pair[0].uncertainty, pair[1].uncertainty)


class TestLimits:
    world = World(seed=11)
    outputs, labels = world.outputs(BLOCK_ROWS + 44)
    support = world.support(5)

    def of(self, entry):
        return of(entry, self.outputs, self.support, self.world.texts)

    @pytest.mark.parametrize("mode", ["corrected", "compat"])
    def test_alpha_0_is_the_classifier_itself(self, mode):
        msp = self.of("msp")
        for rescored in (False, True):
            entry = TrustVLM(encoder="aux", rescored=rescored, alpha=0.0, select="fixed", mode=mode)
            result = self.of(entry)
            np.testing.assert_array_equal(result.label, msp.label)
            # compat is in double precision; ours is the classifier's own to the bit.
            slack = 1e-6 if mode == "compat" else 0.0
            np.testing.assert_allclose(result.uncertainty, msp.uncertainty, rtol=0, atol=slack)

    def test_a_large_alpha_ranks_as_the_prototype(self):
        u = self.of(TrustVLM(encoder="aux", alpha=1e7, select="fixed")).uncertainty
        np.testing.assert_array_equal(
            np.argsort(u), np.argsort(self.of("prototype_aux").uncertainty)
        )

    def test_one_shot_uses_the_settings_given(self):
        one = self.world.support(1)
        chosen = TrustVLM(encoder="aux", alpha=0.7).fit(self.world.texts, one, RNG)
        assert chosen.alpha == 0.7

    def test_the_folds_trust_an_encoder_that_sees_more(self):
        fitted = ZERO_SHOT_SCORES["trustvlm_aux"].fit(
            self.world.texts, self.support, np.random.default_rng(0)
        )
        assert fitted.alpha > 0
        right = (self.of("msp").label == self.labels).astype(float)
        better = aurc(-self.of("trustvlm_aux").uncertainty, right)
        assert better < 0.5 * aurc(-self.of("msp").uncertainty, right)

    def test_the_folds_leave_out_an_encoder_that_sees_nothing(self):
        """Noise as auxiliary vectors: any weight but a small one makes the ranking worse."""
        noise = np.random.default_rng(4).normal(size=(len(self.support), 9))
        blind = replace(self.support, aux=noise)
        fitted = ZERO_SHOT_SCORES["trustvlm_aux"].fit(self.world.texts, blind, RNG)
        assert fitted.alpha <= 0.3

    def test_tuning_helps_the_prototypes_on_their_own_images(self):
        vectors, labels = self.support.of("aux", None), self.support.labels
        plain = ZERO_SHOT_SCORES["trustvlm_aux"].fit(self.world.texts, self.support, RNG)
        tuned = replace(TrustVLM(encoder="aux", tuned=True, select="fixed"), tau=0.1).fit(
            self.world.texts, self.support, RNG
        )

        def loss(prototypes):
            logits = vectors @ prototypes.T / 0.1
            each = np.arange(len(labels))
            return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[each, labels])

        assert loss(tuned.prototypes) < loss(plain.prototypes)
        np.testing.assert_allclose(np.linalg.norm(tuned.prototypes, axis=1), 1.0, rtol=1e-5)

    def test_a_temperature_is_found_again(self):
        """Labels drawn at three times the model's temperature."""
        rng = np.random.default_rng(2)
        rows = unit(rng.normal(size=(4000, 24)))
        logits = 20.0 * rows.astype(float) @ self.world.texts.vectors.T / 3
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = (p.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(max=5)
        known = Support(rows, labels)
        found = ZERO_SHOT_SCORES["temperature"].fit(self.world.texts, known, rng).inverse
        assert found == pytest.approx(1 / 3, rel=0.1)
        for name in ("vector_scaling", "dirichlet"):
            fitted = ZERO_SHOT_SCORES[name].fit(self.world.texts, known, rng)
            held = 1 - score(fitted, ClassifierOutputs(self.world.texts, rows)).uncertainty
            assert held.mean() == pytest.approx(p.max(axis=1).mean(), abs=0.02)

    def test_correctness_aware_confidence_is_nearer_to_correctness(self):
        right = (self.of("msp").label == self.labels).astype(float)
        flat = replace(self.world.texts, logit_scale=3.0)  # far too unsure
        seen = replace(self.outputs, texts=flat)
        known = self.world.support(40)
        brier = {
            name: np.mean((1 - of(name, seen, known, flat).uncertainty - right) ** 2)
            for name in ("msp", "correctness_aware")
        }
        assert brier["correctness_aware"] < 0.7 * brier["msp"]

    def test_shrinkage_is_that_of_scikit_learn(self):
        rows = np.random.default_rng(1).normal(size=(30, 50)) @ np.diag(np.linspace(0.1, 2, 50))
        rows -= rows.mean(axis=0)
        wanted, _ = ledoit_wolf(rows, assume_centered=True)
        np.testing.assert_allclose(shrunk_covariance(rows), wanted, rtol=1e-8, atol=1e-12)


def released_auroc(wanted, right):
    """Share of pairs in the right order, a tie counting one half."""
    good, bad = wanted[right == 1][:, None], wanted[right == 0][None, :]
    return np.mean((good > bad) + 0.5 * (good == bad))


def released_fpr95(wanted, right):
    """The curve's corners by threshold, and the one whose true positive rate is nearest to .95."""
    points = [
        (int(np.sum(right[wanted >= level])), int(np.sum(1 - right[wanted >= level])))
        for level in sorted(set(wanted.tolist()), reverse=True)
    ]
    corners = [
        here
        for at, here in enumerate(points)
        if at in (0, len(points) - 1)
        or any(2 * here[i] != points[at - 1][i] + points[at + 1][i] for i in (0, 1))
    ]
    tp, fp = np.array([(0, 0), *corners]).T
    return (fp / fp[-1])[np.argmin(np.abs(tp / tp[-1] - 0.95))]


class TestReleasedCode:
    """An independent transcription of the published formulas, in double precision."""

    @pytest.mark.parametrize("alpha", [1.0, 0.1])
    @pytest.mark.parametrize("tau", [0.01, 0.1])
    def test_equal_to_1e_6(self, alpha, tau):
        rng = np.random.default_rng(7)
        n, c, d, e, shots = 400, 12, 64, 48, 16
        text, image = unit(rng.normal(size=(c, d))), unit(rng.normal(size=(n, d)))
        labels = rng.integers(0, c, n)
        aux = (rng.normal(size=(n, e)) * rng.gamma(2, size=(n, 1))).astype(np.float32)
        train = (rng.normal(size=(c * shots, e)) * rng.gamma(2, size=(c * shots, 1))).astype(
            np.float32
        )
        train_labels = np.tile(np.arange(c), shots)

        logits = 100 * image.astype(float) @ text.astype(float).T
        p_it = np.exp(logits - logits.max(1, keepdims=True))
        p_it /= p_it.sum(1, keepdims=True)
        P = np.stack([train[train_labels == k].astype(float).mean(0) for k in range(c)])
        P /= np.linalg.norm(P, axis=1, keepdims=True)
        E = aux.astype(float) / np.linalg.norm(aux.astype(float), axis=1, keepdims=True)
        S = E @ P.T
        y = p_it.argmax(1)
        kappa = p_it.max(1) + alpha * S[np.arange(n), y]
        p_ii = np.exp(S / tau - (S / tau).max(1, keepdims=True))
        p = p_it + alpha * p_ii / p_ii.sum(1, keepdims=True)
        y_star = p.argmax(1)
        kappa_star = p.max(1) + alpha * S[np.arange(n), y_star]

        texts = ClassTexts(tuple(map(str, range(c))), text, logit_scale=100.0)
        known = Support(unit(rng.normal(size=(c * shots, d))), train_labels, train)
        seen = ClassifierOutputs(texts, image, aux)
        entry = TrustVLM(encoder="aux", mode="compat", alpha=alpha, tau=tau)
        for variant, label, wanted, offset in (
            (entry, y, kappa, 1 + alpha),
            (replace(entry, rescored=True), y_star, kappa_star, 1 + 2 * alpha),
        ):
            result = of(variant, seen, known, texts)
            np.testing.assert_array_equal(result.label, label)
            np.testing.assert_allclose(offset - result.uncertainty, wanted, rtol=0, atol=1e-6)

            right = (label == labels).astype(float)
            order = np.argsort(-wanted)
            risks = np.cumsum(1 - right[order]) / np.arange(1, n + 1)
            found = -result.uncertainty
            assert 1000 * aurc(found, right) == pytest.approx(1000 * risks.mean(), abs=1e-6)
            assert auroc(found, right) == pytest.approx(released_auroc(wanted, right), abs=1e-6)
            nearest = released_fpr95(wanted, right)
            assert fpr_at_tpr_nearest(found, right) == pytest.approx(nearest, abs=1e-6)

    @pytest.mark.parametrize("digits", [1, 2, 9])
    @pytest.mark.parametrize("seed", range(40))
    def test_metrics_with_ties(self, seed, digits):
        """Among few answers, where a corner of the curve more or less counts, and many ties."""
        rng = np.random.default_rng([9, seed])
        n = int(rng.integers(5, 120))
        right = (np.arange(n) < rng.integers(1, n)).astype(float)
        wanted = np.round(rng.normal(size=n) + 0.5 * right, digits)
        assert auroc(wanted, right) == pytest.approx(released_auroc(wanted, right), abs=1e-6)
        nearest = released_fpr95(wanted, right)
        assert fpr_at_tpr_nearest(wanted, right) == pytest.approx(nearest, abs=1e-6)
        # What the transcription stands for: scikit-learn's curve as its callers get it.
        fpr, tpr, _ = roc_curve(right, wanted)
        assert nearest == fpr[np.argmin(np.abs(tpr - 0.95))]

    def test_unit_averaging_differs_where_lengths_do(self):
        vectors = np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=np.float32)
        labels = np.array([0, 0, 1])
        np.testing.assert_allclose(
            class_prototypes(vectors, labels)[0], [0.948683, 0.316228], rtol=1e-5
        )
        known = Support(IMAGES[[0, 1, 0]], labels, vectors)
        ours = TrustVLM(encoder="aux", select="fixed").fit(AXES, known, RNG)
        np.testing.assert_allclose(ours.prototypes[0], np.sqrt([0.5, 0.5]), rtol=1e-5)

    def test_the_draw_is_seeded_anew_for_every_class(self):
        labels = np.tile(np.arange(3), 40)
        rows = draw_support_compat(labels, 16)
        for k in range(3):
            items = np.flatnonzero(labels == k).tolist()
            random.seed(0)
            assert rows[16 * k : 16 * (k + 1)].tolist() == random.sample(items, 16)
        with pytest.raises(DataError, match="Class 0 has 40 images for 41 shots"):
            draw_support_compat(labels, 41)


class TestDraws:
    def test_each_draw_differs_and_has_the_shots(self):
        labels = np.repeat(np.arange(4), 30)
        rng = np.random.default_rng(0)
        first, second = draw_support(labels, 5, rng), draw_support(labels, 5, rng)
        assert np.bincount(labels[first]).tolist() == [5] * 4
        assert len(set(first)) == 20
        assert set(first) != set(second)

    def test_a_small_class_gives_all_it_has(self):
        labels = np.array([0, 0, 0, 1])
        assert np.bincount(labels[draw_support(labels, 2, RNG)]).tolist() == [2, 1]

    def test_a_class_without_images_is_refused(self):
        with pytest.raises(DataError, match="1 of them without"):
            draw_support(np.array([0, 2]), 1, RNG)

    def test_folds_leave_every_class_an_image(self):
        labels = np.array([0] * 16 + [1] * 2 + [2])
        fold = deal_folds(labels, 4, RNG)
        assert np.bincount(fold[:16]).tolist() == [4] * 4
        assert sorted(fold[16:18]) == [0, 1]
        assert fold[18] == -1


class TestBadInput:
    def test_classes(self):
        with pytest.raises(DataError, match="1 classes were given; at least 2"):
            ClassTexts(("cat",), np.eye(1, 2, dtype=np.float32), logit_scale=1.0)
        with pytest.raises(DataError, match="'cat' is named 2 times"):
            ClassTexts(("cat", "cat"), np.eye(2, dtype=np.float32), logit_scale=1.0)
        with pytest.raises(DataError, match="logit scale is 0"):
            replace(AXES, logit_scale=0.0)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([0.0, 0.0], "Image vector 1 is zero"),
            ([np.nan, 1.0], "Image vector 1 is not finite"),
            ([2.0, 0.0], "Image vector 1 is not of length one"),
        ],
    )
    def test_image_vectors(self, row, message):
        with pytest.raises(DataError, match=message):
            ClassifierOutputs(AXES, np.array([[1.0, 0.0], row], dtype=np.float32))

    def test_widths_and_lengths(self, unchecked):
        outputs = unchecked("sightline.zeroshot.outputs")
        eye = np.eye(2, dtype=np.float32)
        texts = outputs.ClassTexts(("cat", "dog"), eye, 5.0)
        with pytest.raises(DataError, match="one row per class"):
            outputs.ClassTexts(("cat", "dog"), np.eye(3, dtype=np.float32), 5.0)
        with pytest.raises(DataError, match="Template vectors have shape"):
            outputs.ClassTexts(("cat", "dog"), eye, 5.0, templates=np.ones((2, 3, 2)))
        with pytest.raises(DataError, match="as wide as the class vectors, 2"):
            outputs.ClassifierOutputs(texts, np.eye(3, dtype=np.float32))
        with pytest.raises(DataError, match="auxiliary vectors have shape"):
            outputs.ClassifierOutputs(texts, IMAGES, aux=np.ones((3, 4), dtype=np.float32))
        with pytest.raises(DataError, match="views have shape"):
            outputs.ClassifierOutputs(texts, IMAGES, views=np.ones((1, 3, 2), dtype=np.float32))
        with pytest.raises(DataError, match="one class index per image"):
            outputs.Support(IMAGES, np.array([0]))
        with pytest.raises(DataError, match="at least one row"):
            ClassifierOutputs(AXES, IMAGES[:0])
        known = replace(PAIR, aux=np.ones((2, 4), dtype=np.float32))
        with pytest.raises(DataError, match="images are 3 wide, those of the support images 4"):
            of("prototype_aux", ClassifierOutputs(AXES, IMAGES, np.ones((2, 3), np.float32)), known)

    def test_support_sets(self):
        with pytest.raises(DataError, match="'dog'"):
            of("prototype", support=replace(PAIR, labels=np.array([0, 0])))
        with pytest.raises(DataError, match="names none of 2 classes"):
            of("prototype", support=replace(PAIR, labels=np.array([0, 2])))
        with pytest.raises(DataError, match="cancel out"):
            of("prototype", support=Support(unit([[1, 0], [-1, 0], [0, 1]]), np.array([0, 0, 1])))

    def test_one_shot_is_too_few_for_a_covariance_and_a_stack(self):
        for name in ("mahalanobis", "logistic"):
            with pytest.raises(DataError, match="at least 2 shots"):
                of(name)

    def test_a_stack_needs_right_and_wrong_images(self):
        rows = unit([[1, 0.1], [1, 0.2], [0.1, 1], [0.2, 1]])
        with pytest.raises(DataError, match="right on all 4 support images"):
            of("logistic", support=Support(rows, np.array([0, 0, 1, 1])))

    def test_settings(self):
        with pytest.raises(UsageError, match="standardised"):
            TrustVLM(standardised=True, rescored=True)
        with pytest.raises(UsageError, match="k is 0"):
            replace(ZERO_SHOT_SCORES["knn"], k=0)

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300", "-1e-300"])
    @pytest.mark.parametrize(("name", "setting"), NUMBERS)
    def test_no_number_outside_its_bounds(self, name, setting, value):
        with pytest.raises(UsageError, match=f"{setting} is .* is required. Use {setting}="):
            parse_score(f"{name}:{setting}={value}")

    @pytest.mark.parametrize(
        ("name", "setting", "value"),
        [("mcm", "temperature", "0"), ("trustvlm", "tau", "0"), ("trustvlm", "tau", "1e-320")],
    )
    def test_nothing_is_divided_by_nothing(self, name, setting, value):
        with pytest.raises(UsageError, match=f"{setting} is .*from 1e-06 to 1e"):
            parse_score(f"{name}:{setting}={value}")

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("end", ["1e9", "least"])
    @pytest.mark.parametrize(("name", "setting"), NUMBERS)
    def test_the_bounds_themselves_give_numbers(self, name, setting, end):
        least = "1e-6" if setting in ("temperature", "tau") else "0"
        entry = parse_score(f"{name}:{setting}={least if end == 'least' else end}")
        world = World(seed=4)
        seen, _ = world.outputs(50)
        found = of(entry, seen, world.support(4), world.texts)
        assert np.isfinite(found.uncertainty).all()

    def test_dirichlet_scaling_stops_at_200_classes(self):
        c = 201
        texts = ClassTexts(tuple(map(str, range(c))), np.eye(c, dtype=np.float32), logit_scale=1.0)
        with pytest.raises(DataError, match="201 classes; at most 200"):
            of(
                "dirichlet",
                ClassifierOutputs(texts, texts.vectors),
                Support(texts.vectors, np.arange(c)),
                texts,
            )

    def test_identical_images_and_ten_thousand_classes(self):
        c = 10_000
        texts = ClassTexts(
            tuple(map(str, range(c))), unit(np.random.default_rng(0).normal(size=(c, 8))), 100.0
        )
        seen = ClassifierOutputs(texts, np.repeat(texts.vectors[:1], 5, axis=0))
        for name in ("msp", "entropy", "trust_score", "trustvlm"):
            entry = ZERO_SHOT_SCORES[name]
            result = of(entry, seen, Support(texts.vectors, np.arange(c)), texts)
            assert result.label.tolist() == [0] * 5
            np.testing.assert_allclose(result.uncertainty, result.uncertainty[0], rtol=1e-4)
