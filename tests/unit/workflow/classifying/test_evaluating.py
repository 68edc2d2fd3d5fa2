"""Evaluating a classifier's run: the same protocol, over support draws, from the store alone."""

import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.api import audit, derive, evaluate, fit, write_report
from sightline.core.column import ColumnKind
from sightline.core.errors import (
    DataError,
    LeakageError,
    MissingFeatureError,
    UsageError,
)
from sightline.core.features import Feature
from sightline.core.results import load_evaluation
from sightline.data.image_sets import load_image_set, with_classes
from sightline.metrics.discrimination import auroc, fpr95, fpr_at_tpr_nearest
from sightline.metrics.selective import aurc
from sightline.report.classifier_tables import facts, over_draws, second_task, source_marks
from sightline.report.terminal import print_leaderboard
from sightline.store.layout import CLASSES, SUPPORT
from sightline.store.run import RunStore
from sightline.workflow.classifying.collecting import classify
from sightline.workflow.classifying.evaluating import ClassifierSettings, evaluate_classifier
from sightline.workflow.classifying.reading import read_embedded, read_support, read_texts
from sightline.workflow.classifying.scoring import score_embedded
from sightline.workflow.evaluate import Settings, read_judged
from sightline.zeroshot import ZERO_SHOT_SCORES, parse_score, score

from .conftest import COLOURS, ColourClassifier, colour_run, patches, write_pictures

METRICS = (auroc, aurc, fpr95, fpr_at_tpr_nearest)
FIGURES = ("accuracy", "auroc", "aurc", "fpr95", "fpr95_nearest")
FAST = Settings(resamples=100, seeds=2)
SOME = ("msp", "entropy", "trustvlm_aux", "trustvlm_aux_rescored", "prototype")


@pytest.fixture(scope="module")
def outcome(run):
    return evaluate_classifier(run, FAST)


@pytest.fixture(scope="module")
def evaluation(outcome):
    return outcome.evaluation


def by_name(evaluation):
    return {e.name: e for e in evaluation.estimators}


def print_to(evaluation, **settings):
    out = io.StringIO()
    print_leaderboard(evaluation, file=out, **settings)
    return out.getvalue()


def stored(run):
    return read_embedded(RunStore.open(run), read_texts(RunStore.open(run / CLASSES)))


class TestReadingInParts:
    def test_figures_are_the_same_however_much_is_read_at_once(
        self, tmp_path, tested, pool, monkeypatch
    ):
        colour_run(tmp_path / "run", tested, pool, shard_size=50)
        monkeypatch.setattr("sightline.zeroshot.blocks.BLOCK_ROWS", 32)
        at_once = stored(tmp_path / "run")
        draws = read_support(tmp_path / "run", at_once, None)
        whole, _, _ = score_embedded(at_once, [at_once], draws, SOME)
        monkeypatch.setattr("sightline.workflow.classifying.reading.PART_ROWS", 64)
        seen = stored(tmp_path / "run")
        parts = list(seen.parts(0))
        assert [len(part) for part in parts] == [64, 64, 52]
        every = at_once.vectors
        for name, table in (("image", every.image), ("aux", every.aux[0]), ("views", every.views)):
            joined = np.concatenate([getattr(part, name) for part in parts], axis=table.ndim - 2)
            np.testing.assert_array_equal(joined, table)
        assert "vectors" not in vars(seen)
        in_parts, again, _ = score_embedded(seen, [seen], draws, SOME)
        for one, other, third in zip(whole, in_parts, again[0], strict=True):
            for a, b, c in zip(one.results, other.results, third.results, strict=True):
                np.testing.assert_array_equal(a.uncertainty, b.uncertainty)
                np.testing.assert_array_equal(a.label, b.label)
                np.testing.assert_array_equal(b.uncertainty, c.uncertainty)

    def test_shards_committed_since_the_records_were_read_are_left_out(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "run")
        held = [tmp_path / name for name in ("rows", "arrays")]
        (first,) = (tmp_path / "run" / "shards").glob("000000.parquet")
        (arrays,) = (tmp_path / "run" / "shards").glob("000000.*.safetensors")
        places = [first, arrays]
        for place, away in zip(places, held, strict=True):
            place.rename(away)
        seen = stored(tmp_path / "run")
        for place, away in zip(places, held, strict=True):
            away.rename(place)
        whole = stored(run)
        assert len(seen) == len(seen.vectors.image) == len(whole) - 32
        np.testing.assert_array_equal(seen.vectors.image, whole.vectors.image[32:])
        np.testing.assert_array_equal(
            seen.support(np.array([0]), None).image, whole.support(np.array([32]), None).image
        )

    def test_a_shard_of_another_number_of_records_is_refused(self, run):
        seen = stored(run)
        before = replace(seen, shards={**seen.shards, 1: 31})
        with pytest.raises(DataError, match=r"Shard 1 of .* holds 32 records now and held 31"):
            before.vectors  # noqa: B018

    def test_vectors_are_those_of_the_records(self, run):
        seen = stored(run)
        records = list(RunStore.open(run).records())
        assert [r.key for r in seen.records] == [r.key for r in records]
        found = seen.vectors
        for at in (0, 70, 179):
            arrays = records[at].features
            np.testing.assert_array_equal(found.image[at], arrays[Feature.IMAGE_VECTOR])
            np.testing.assert_array_equal(found.aux[0][at], arrays[Feature.AUX_VECTORS])
            np.testing.assert_array_equal(found.views[:, at], arrays[Feature.VIEW_VECTORS])


class TestEveryScore:
    def test_all_are_measured_or_named(self, evaluation):
        lacking = {n.name: n.reasons[0].reason for n in evaluation.not_applicable}
        assert set(by_name(evaluation)) | set(lacking) == set(ZERO_SHOT_SCORES)
        slow = {n for n, s in ZERO_SHOT_SCORES.items() if s.traits.slow}
        why = "its fit takes longer than seconds; name it with -e"
        assert {n for n, reason in lacking.items() if reason == why} == slow

    def test_terminal_and_page_say_what_was_left_out_and_how_to_ask_for_it(
        self, run, evaluation, tmp_path
    ):
        text = " ".join(print_to(evaluation).split())
        assert "5 scores were not computed; the report names them all" in text
        slow = [n for n, score in ZERO_SHOT_SCORES.items() if score.traits.slow]
        assert f"{', '.join(slow)}: its fit takes longer than seconds; name it with -e" in text
        evaluate(run, FAST)
        page = write_report([run], tmp_path / "r.html").read_text()
        _, _, left_out = page.partition("Estimators left out")
        assert "dirichlet" in left_out
        assert "name it with -e" in left_out

    def test_scores_with_support_are_marked(self, evaluation):
        for name, result in by_name(evaluation).items():
            uses = ZERO_SHOT_SCORES[name].traits.uses_support
            assert result.family == ("uses support labels" if uses else "zero-shot")
            assert source_marks(name, evaluation)[0] == result.family
            figures = evaluation.classifier.scores[name]
            assert figures.uses_support == uses
            assert figures.draws == (3 if uses else 1)

    def test_the_baseline_is_zero_shot(self, evaluation):
        assert not ZERO_SHOT_SCORES[evaluation.protocol.baseline].traits.uses_support

    def test_figures_over_draws_are_those_of_the_scores_by_hand(self, run, evaluation):
        seen = stored(run)
        draws = read_support(run, seen, None)
        by_hand = []
        for draw, rows in enumerate(draws.rows):
            fitted = parse_score("trustvlm_aux_rescored").fit(
                seen.texts, draws.pictures.support(rows, 0), np.random.default_rng([0, draw])
            )
            (outputs,) = seen.parts(0)
            result = score(fitted, outputs)
            right = (result.label == seen.labels).astype(float)
            trust = -result.uncertainty
            by_hand.append([right.mean(), *(m(trust, right) for m in METRICS)])
        figures = evaluation.classifier.scores["trustvlm_aux_rescored"]
        for at, metric in enumerate(FIGURES):
            column = [row[at] for row in by_hand]
            assert figures.mean[metric] == pytest.approx(np.mean(column), abs=1e-9)
            assert figures.spread[metric] == pytest.approx(np.std(column, ddof=1), abs=1e-9)

    def test_a_zero_shot_score_does_not_vary(self, evaluation):
        figures = evaluation.classifier.scores["msp"]
        assert figures.spread == dict.fromkeys(FIGURES, None)
        assert figures.mean["accuracy"] == pytest.approx(evaluation.accuracy.value)

    def test_relabelling_scores_are_judged_by_their_own_labels(self, run, evaluation):
        """The encoder sees the pure corner, so its prototypes correct the classifier."""
        figures = evaluation.classifier.scores["trustvlm_aux_rescored"]
        assert figures.may_relabel
        assert figures.mean["accuracy"] > evaluation.accuracy.value + 0.02
        result = by_name(evaluation)["trustvlm_aux_rescored"]
        seen = stored(run)
        wrong = [row for row in result.confident_wrong if row.answer == row.references[0]]
        assert wrong == []
        assert result.coverage_table[-1].accuracy.value > evaluation.accuracy.value
        assert len(seen.records) == result.scored

    def test_support_helps_where_the_encoder_sees_more(self, evaluation):
        results = by_name(evaluation)
        gain = results["trustvlm_aux"].vs_baseline["auroc"]
        assert gain.value > 0
        assert gain.low is not None

    def test_differences_of_relabelling_scores_are_paired_too(self, evaluation):
        difference = by_name(evaluation)["trustvlm_aux_rescored"].vs_baseline["aurc"]
        own = by_name(evaluation)["trustvlm_aux_rescored"].heldout["aurc"]
        base = by_name(evaluation)[evaluation.protocol.baseline].heldout["aurc"]
        assert difference.value == pytest.approx(own.value - base.value, abs=1e-9)
        assert difference.low < difference.value < difference.high

    def test_one_split_for_each_draw(self, evaluation):
        assert evaluation.protocol.seeds == (0, 1, 2)

    def test_calibrated_confidences_are_measured(self, evaluation):
        assert by_name(evaluation)["msp"].heldout["ece"].value is not None

    def test_scores_of_the_zero_shot_kind_are_stored_as_columns(self, run, evaluation):
        columns = RunStore.open(run).columns()
        assert (ColumnKind.UNCERTAINTY, "msp") in columns
        assert (ColumnKind.UNCERTAINTY, "trustvlm_aux") not in columns
        assert (ColumnKind.CORRECT, "class") in columns

    def test_results_survive_the_file(self, run, tmp_path, evaluation):
        evaluate(run, Settings(estimators=SOME, resamples=100, seeds=2))
        again = load_evaluation(Path(run) / "evaluation" / "results.json")
        assert (again.classifier.fewest_shots, again.classifier.shots) == (4, 4)
        assert json.dumps(asdict(again), allow_nan=False)

    def test_the_samples_hold_every_confidence(self, outcome):
        names = outcome.samples.column_names
        assert "uncertainty.msp" in names
        assert "confidence.trustvlm_aux" in names


class TestAskedFor:
    def test_settings_of_a_score(self, run):
        found = evaluate_classifier(
            run, Settings(estimators=("trustvlm:alpha=0:select=fixed", "msp"), resamples=100)
        ).evaluation
        first, second = (by_name(found)[n] for n in ("trustvlm:alpha=0:select=fixed", "msp"))
        assert first.raw["auroc"].value == pytest.approx(second.raw["auroc"].value, abs=1e-12)

    def test_fewer_shots(self, run):
        found = evaluate_classifier(
            run, Settings(estimators=("prototype",), resamples=100), ClassifierSettings(shots=1)
        ).evaluation
        assert (found.classifier.fewest_shots, found.classifier.shots) == (1, 1)

    def test_shots_are_those_that_there_were_not_those_asked_for(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", {"red": 2, "green": 9, "blue": 9}, seed=5)
        colour_run(tmp_path / "r", tested, pool, shots=30)
        found = evaluate_classifier(
            tmp_path / "r", Settings(estimators=("msp", "prototype"), resamples=100)
        ).evaluation
        assert (found.classifier.fewest_shots, found.classifier.shots) == (2, 9)
        assert "draws of 2 to 9 support pictures of every class" in over_draws(found).caption
        said = {fact.term: fact.text for fact in facts(found)}["Support pictures"]
        assert said.startswith("2 to 9 pictures of every class")

    def test_two_encoders_give_every_score_twice(self, tmp_path, tested, pool):
        images = [*load_image_set(tested).examples, *load_image_set(pool).examples]
        table = np.random.default_rng(0).normal(size=(len(images), 4)).astype(np.float32)
        np.savez(tmp_path / "far.npz", keys=[e.images[0].sha256 for e in images], vectors=table)
        from sightline.workflow.classifying.embedding import FileEncoder

        far = FileEncoder.read(tmp_path / "far.npz")
        colour_run(tmp_path / "r", tested, pool, encoders=[patches(), far])
        found = evaluate_classifier(
            tmp_path / "r", Settings(estimators=("prototype_aux",), resamples=100)
        ).evaluation
        near, random = (by_name(found)[f"prototype_aux[{n}]"] for n in ("patches", "far"))
        assert near.raw["auroc"].value > random.raw["auroc"].value
        assert near.spec["auxiliary_encoder"] == "patches"

    def test_without_support_the_others_are_named(self, tmp_path, tested):
        colour_run(tmp_path / "r", tested)
        found = evaluate_classifier(tmp_path / "r", FAST).evaluation
        lacking = {n.name: n.reasons[0].reason for n in found.not_applicable}
        assert lacking["trustvlm"] == "no support pictures; classify with --support"
        assert found.classifier.support is None
        assert over_draws(found) is not None

    def test_without_encoder_or_views(self, tmp_path, tested, pool):
        colour_run(tmp_path / "r", tested, pool, encoders=[], views=())
        found = evaluate_classifier(tmp_path / "r", FAST).evaluation
        lacking = {n.name: n.reasons[0].reason for n in found.not_applicable}
        assert lacking["knn_aux"] == "no auxiliary encoder; classify with --encoder"
        why = "no transformed views; classify with --views"
        assert lacking["augmentation_consistency"] == why
        assert "msp" in by_name(found)

    def test_the_terminal_says_why_a_score_could_not_be_fitted(self, tmp_path, tested):
        pool = tmp_path / "pool"
        for at, (name, colour) in enumerate(COLOURS.items()):
            (pool / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full((8, 8, 3), np.array(colour) * (250 - 5 * i - at)).astype(np.uint8)
                Image.fromarray(pixels).save(pool / name / f"{i}.png")
        colour_run(tmp_path / "r", tested, pool)
        settings = replace(FAST, estimators=("msp", "logistic"))
        text = print_to(evaluate_classifier(tmp_path / "r", settings).evaluation)
        assert "1 score was not computed; the report names it" in text
        said = "logistic: on draw 1 of 3: The classifier is right on all 12 support images"
        assert said in text
        assert "need signals" not in text

    def test_only_what_cannot_be_computed_is_one_line(self, tmp_path, tested):
        colour_run(tmp_path / "r", tested)
        with pytest.raises(MissingFeatureError, match="'trustvlm': no support pictures"):
            evaluate_classifier(tmp_path / "r", Settings(estimators=("trustvlm",)))

    def test_an_unknown_score(self, run):
        with pytest.raises(UsageError, match="closest names are"):
            evaluate_classifier(run, Settings(estimators=("trustvml",)))

    def test_a_grader_or_condition_means_nothing_here(self, run):
        for settings in (Settings(grader="vqa"), Settings(condition="blank")):
            with pytest.raises(UsageError, match="judged by their class"):
                evaluate_classifier(run, settings)

    def test_a_given_split_with_leakage_is_refused(self, run):
        groups = [e.group for e in RunStore.open(run).examples()]
        split = {g: ("train", "calibration", "test")[i % 3] for i, g in enumerate(groups)}
        found = evaluate_classifier(
            run, Settings(estimators=("msp", "prototype"), resamples=100), given_split=split
        ).evaluation
        assert found.protocol.rows == (60, 60, 60)


class TestShift:
    """Support from the clean run, judged on another."""

    @pytest.fixture(scope="class")
    @classmethod
    def shifted(cls, tmp_path_factory):
        folder = write_pictures(
            tmp_path_factory.mktemp("shifted"), dict.fromkeys(COLOURS, 30), seed=9
        )
        path = tmp_path_factory.mktemp("runs") / "shifted"
        colour_run(path, folder)
        return path

    def test_the_support_of_the_clean_run_is_used(self, shifted, run):
        found = evaluate_classifier(
            shifted, Settings(estimators=SOME, resamples=100), ClassifierSettings(support=run)
        ).evaluation
        assert found.classifier.support == "colours"
        assert found.run.records == 90
        assert {"msp", "trustvlm_aux"} <= set(by_name(found))

    def test_another_classifier_is_refused(self, shifted, tmp_path, tested, pool):
        colour_run(tmp_path / "r", tested, pool, templates=("{}",))
        with pytest.raises(UsageError, match="differ in templates"):
            evaluate_classifier(shifted, FAST, ClassifierSettings(support=tmp_path / "r"))

    def test_a_run_without_support_is_refused(self, run, shifted):
        with pytest.raises(UsageError, match="has no support pictures"):
            evaluate_classifier(run, FAST, ClassifierSettings(support=shifted))

    def test_an_unfinished_support_is_refused(self, tmp_path, tested, pool, run, shifted):
        stops = iter([False] * 7)
        colour_run(tmp_path / "r", tested, pool, should_stop=lambda: next(stops, True))
        if (tmp_path / "r" / "support" / "manifest.json").exists():
            with pytest.raises(Exception, match="all are required"):
                evaluate_classifier(shifted, FAST, ClassifierSettings(support=tmp_path / "r"))

    def test_leakage_over_runs_is_refused(self, tmp_path, pool, run):
        colour_run(tmp_path / "r", pool)
        with pytest.raises(LeakageError):
            evaluate_classifier(tmp_path / "r", FAST, ClassifierSettings(support=run))


class TestOutOfDistribution:
    @pytest.fixture(scope="class")
    @classmethod
    def other(cls, tmp_path_factory):
        """Gray pictures: none of the colours."""
        folder = tmp_path_factory.mktemp("ood")
        rng = np.random.default_rng(3)
        (folder / "gray").mkdir()
        (folder / "dull").mkdir()
        for i in range(60):
            level = rng.integers(60, 200, 3) // 3 + 80
            pixels = np.clip(level + rng.normal(0, 15, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / ("gray", "dull")[i % 2] / f"{i}.png")
        path = tmp_path_factory.mktemp("runs") / "gray"
        classify(
            ColourClassifier(),
            with_classes(load_image_set(folder), ("blue", "green", "red")),
            path,
            templates=("a photo of {}", "{}"),
            encoders=[patches()],
            views=("mirror",),
        )
        return path

    def test_scores_tell_other_pictures(self, run, other):
        found = evaluate_classifier(
            run, Settings(estimators=SOME, resamples=100), ClassifierSettings(ood=other)
        ).evaluation
        task = found.classifier.out_of_distribution
        assert task.pictures == 60
        assert task.figures["prototype"]["auroc"].low > 0.5
        seen, outside = stored(run), stored(other)
        scored, others, _ = score_embedded(seen, [outside], None, ("msp",))
        trust = -np.concatenate(
            [scored[0].results[0].uncertainty, others[0][0].results[0].uncertainty]
        )
        inside = np.repeat([1.0, 0.0], [180, 60])
        by_hand = auroc(np.round(trust, 12), inside)
        assert task.figures["msp"]["auroc"].value == pytest.approx(by_hand, abs=1e-6)
        assert second_task(found).rows

    @pytest.mark.parametrize("kind", ["test", "support"])
    def test_pictures_of_the_run_among_them_are_refused(self, run, tmp_path, kind):
        store = RunStore.open(run if kind == "test" else run / SUPPORT)
        picture = store.examples()[0].images[0].path
        folder = tmp_path / "ood"
        for place in ("gray/a.png", "dull/b.png"):
            (folder / place).parent.mkdir(parents=True)
        shutil.copy(picture, folder / "gray" / "a.png")
        Image.new("RGB", (8, 8), (90, 90, 90)).save(folder / "dull" / "b.png")
        classify(
            ColourClassifier(),
            with_classes(load_image_set(folder), ("blue", "green", "red")),
            tmp_path / "r",
            templates=("a photo of {}", "{}"),
            encoders=[patches()],
            views=("mirror",),
        )
        said = rf"1 other pictures \(--ood\) of .* are among the {kind} pictures of .*'gray/a.png'"
        with pytest.raises(LeakageError, match=said):
            evaluate_classifier(run, FAST, ClassifierSettings(ood=tmp_path / "r"))

    def test_pictures_of_a_known_class_are_refused(self, run, tmp_path, pool):
        colour_run(tmp_path / "r", pool)
        with pytest.raises(UsageError, match="36 of 36 pictures"):
            evaluate_classifier(run, FAST, ClassifierSettings(ood=tmp_path / "r"))

    def test_of_other_classes_they_are_refused_as_what_they_are(self, run, tmp_path, pool):
        images = with_classes(load_image_set(pool), ("one", "two", "three"))
        classify(ColourClassifier(), images, tmp_path / "r", templates=("{}",))
        said = r"The other pictures \(--ood\) of .* differ in classes, encoders, templates, views;"
        with pytest.raises(UsageError, match=said):
            evaluate_classifier(run, FAST, ClassifierSettings(ood=tmp_path / "r"))

    def test_the_terminal_shows_the_second_task(self, run, other):
        found = evaluate_classifier(
            run, Settings(estimators=SOME, resamples=100), ClassifierSettings(ood=other)
        ).evaluation
        _, _, task = print_to(found).partition("from 60 of none of its classes (gray)")
        assert "AUROC" in task
        assert "FPR95" in task
        for name, figures in found.classifier.out_of_distribution.figures.items():
            line = next(line for line in task.splitlines() if line.startswith(f"{name} "))
            assert f"{figures['auroc'].value:.3f}" in line
        first = print_to(found, top=1).partition("none of its classes (gray)")[2]
        assert first.startswith(f"; {len(SOME) - 1} more in the report")
        assert "none of its classes" not in print_to(evaluate_classifier(run, FAST).evaluation)

    def test_a_run_of_unknown_labels_cannot_be_judged(self, other):
        with pytest.raises(DataError, match="None of 60 pictures"):
            evaluate_classifier(other, FAST)


class TestReport:
    def test_the_page_shows_draws_and_sources(self, run, evaluation):
        evaluate(run, Settings(estimators=SOME, resamples=100, seeds=2))
        text = write_report([run]).read_text()
        assert "FPR95, nearest rate" in text
        assert "rule of TrustVLM&#39;s released code" in text
        assert "Over the support draws" in text
        assert "uses support labels" in text
        assert "zero-shot" in text
        assert "±" in text

    def test_the_table_orders_by_auroc(self, evaluation):
        table = over_draws(evaluation)
        shown = [float(row.cells[2].text) for row in table.rows]
        assert shown == sorted(shown, reverse=True)
        assert second_task(evaluation) is None

    def test_the_page_has_no_rows_of_generated_answers(self, run, tmp_path, evaluation):
        evaluate(run, Settings(estimators=SOME, resamples=100, seeds=2))
        page = write_report([run], tmp_path / "r.html").read_text()
        for words in ("Generated tokens", "answers that hit the token limit", "visible character"):
            assert words not in page
        assert "Forward passes" in page

    def test_the_protocol_names_what_was_given(self, evaluation):
        found = {fact.term: fact.text for fact in facts(evaluation)}
        assert found["Classes"] == "3"
        assert found["Auxiliary encoders"] == "patches"
        assert found["Support pictures"] == "4 pictures of every class from colours, 3 draws"


def test_a_stored_record_is_scored_as_its_row(run):
    """The estimator form of a score reads records, and agrees with the arrays."""
    seen = stored(run)
    draws = read_support(run, seen, None)
    scored, _, _ = score_embedded(seen, [], draws, SOME)
    records = [r for r in RunStore.open(run).records() if r.has(Feature.IMAGE_VECTOR)][:40]
    for one in scored:
        found = one.estimator.uncertainty(records)
        np.testing.assert_allclose(found, one.results[0].uncertainty[:40], atol=2e-5)
        assert one.estimator.cost(records).forward_passes == int("aux" in one.name)


def test_flags_that_mean_nothing_to_a_classifiers_run_are_refused(run, tmp_path, tested):
    with pytest.raises(UsageError, match=r"evaluated together with .*Leave --together out"):
        evaluate(run, FAST, other_runs=[run])
    colour_run(tmp_path / "r", tested)
    with pytest.raises(UsageError, match=r"--shots 2 with .* which has no support pictures"):
        evaluate_classifier(tmp_path / "r", FAST, ClassifierSettings(shots=2))


@pytest.mark.parametrize("part", ["", SUPPORT])
def test_commands_for_answers_refuse_a_classifiers_run_by_name(run, tmp_path, part):
    out = tmp_path / "out"
    asked = {
        "fit": lambda path: fit(path, "probe", out),
        "derive": lambda path: derive(path, embeddings="words"),
        "audit": audit,
    }
    for command, ask in asked.items():
        with pytest.raises(UsageError, match=r"is a run of a classifier; .* evaluate") as error:
            ask(run / part)
        assert "\n" not in str(error.value), command
    assert not out.exists()


def test_a_classifier_is_none_of_several_models(run):
    with pytest.raises(UsageError, match="is a run of a classifier"):
        read_judged(RunStore.open(run), Settings(), (), other_runs=[run])


def test_another_kind_of_run_is_no_classifier(tmp_path):
    from tests.unit.workflow import test_evaluate

    path = test_evaluate.write_run(tmp_path / "r", test_evaluate.known_records(20))
    with pytest.raises(UsageError, match="sightline classify"):
        evaluate_classifier(path, FAST)


def test_ten_thousand_classes(tmp_path):
    """Class texts are stored and scored in blocks; nothing is quadratic in the classes."""
    rng = np.random.default_rng(0)
    names = tuple(f"kind {i}" for i in range(10_000))

    class Many(ColourClassifier):
        def text_vectors(self, texts):
            codes = [int(t.rsplit(" ", 1)[1].rstrip(".")) for t in texts]
            return np.stack([np.random.default_rng(c).normal(size=3) for c in codes]).astype(
                np.float32
            )

    class Unit(Many):
        def text_vectors(self, texts):
            rows = super().text_vectors(texts)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 20), seed=int(rng.integers(9)))
    images = load_image_set(folder)
    named = with_classes(images, (*names[:-3], *images.classes))

    class Both(Unit):
        def text_vectors(self, texts):
            known = [any(c in t for c in COLOURS) for t in texts]
            own = ColourClassifier.text_vectors(self, texts)
            other = super().text_vectors(
                [t if not k else "kind 0" for t, k in zip(texts, known, strict=True)]
            )
            return np.where(np.array(known)[:, None], own, other).astype(np.float32)

    classify(Both(), named, tmp_path / "r", templates=("{}",))
    found = evaluate_classifier(
        tmp_path / "r", Settings(estimators=("msp", "energy"), resamples=100)
    ).evaluation
    assert found.classifier.classes == 10_000
    assert found.run.records == 60
