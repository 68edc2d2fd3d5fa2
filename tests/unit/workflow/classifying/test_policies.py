"""Policies over a classifier's pictures: fitted, saved, applied to another run, refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sightline.api import apply_policy, ask, calibrate, load_policy
from sightline.cli import policies, policy_lines
from sightline.core.errors import (
    CorruptStoreError,
    DataError,
    LeakageError,
    MissingFeatureError,
    SightlineError,
    UsageError,
)
from sightline.core.features import Feature
from sightline.serving.judging import saved_judge
from sightline.store.layout import CLASSES, SUPPORT
from sightline.store.run import RunStore
from sightline.store.sealed import dump_document, load_document
from sightline.workflow.classifying.embedding import ModelEncoder
from sightline.workflow.classifying.reading import read_embedded, read_support, read_texts
from sightline.workflow.classifying.scoring import score_embedded
from sightline.workflow.evaluate import Settings
from sightline.workflow.policy import class_sets, save_policy
from sightline.workflow.policy.pictures import decide_pictures

from .conftest import COLOURS, ColourClassifier, Patches, colour_run, patches, write_pictures

SCORES = (
    "msp", "energy", "max_cosine", "augmentation_consistency", "trustvlm",
    "trustvlm_aux", "trustvlm_standardised", "trustvlm_aux_compat", "prototype_aux",
    "trust_score_aux", "knn_labels_aux", "temperature", "logistic_aux",
)  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Further pictures of the same colours, embedded alike."""
    folder = tmp_path_factory.mktemp("other")
    colour_run(folder / "run", write_pictures(folder / "test", dict.fromkeys(COLOURS, 40), seed=7))
    return folder / "run"


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """A policy of a score that learns, with sets."""
    folder = tmp_path_factory.mktemp("policies") / "p"
    calibrate(run, "trustvlm_aux", folder, risk=0.3, sets="aps", sets_level=0.8, hold_out=0.2)
    return folder


def embedded(path):
    return read_embedded(RunStore.open(path), read_texts(RunStore.open(path / CLASSES)))


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", SCORES)
def test_a_policy_scores_as_evaluate_does_and_is_read_back_the_same(name, run, other, tmp_path):
    policy = calibrate(run, name, tmp_path / "p", coverage=0.5)
    (stage,) = policy.stages
    seen = embedded(run)
    (drawn,), _, _ = score_embedded(seen, [], read_support(run, seen, None), [name])
    decisions = decide_pictures(policy, seen, range(len(seen)))
    found = [decision.uncertainty for decision in decisions]
    np.testing.assert_allclose(found, drawn.results[0].uncertainty, atol=3e-5)
    assert dict(stage.spec) == dict(drawn.spec)
    back = load_policy(tmp_path / "p")
    assert back.evidence == policy.evidence
    new = embedded(other)
    assert decide_pictures(back, new, range(len(new))) == decide_pictures(
        policy, new, range(len(new))
    )
    save_policy(tmp_path / "again", back)
    for file in ("policy.json", "stage-0/score.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "p" / file).read_bytes()


def test_the_protocol_is_that_of_every_other_run(run, tmp_path):
    said = []
    policy = calibrate(
        run, "msp", tmp_path / "p", risk=0.3, hold_out=0.2, announce=said.append,
        settings=Settings(seed=3),
    )  # fmt: skip
    evidence = policy.evidence
    assert said[0].startswith("A risk of 30.0% with 95% certainty takes at least 9 accepted")
    assert said[1].startswith("Answers to fit on: 0 (0 groups); to calibrate on: 43")
    parts = (evidence.fitted_on, evidence.calibrated_on, evidence.certified_on, evidence.tested)
    assert [part.rows for part in parts] == [0, 43, 101, 36]
    assert evidence.origin.grader == {"name": "class"}
    assert evidence.origin.split == {"seed": 3, "fractions": [0.0, 0.3, 0.7], "hold_out": 0.2}
    assert evidence.origin.request is None
    own = evidence.origin.classifier
    assert (own.classes, own.encoders, own.support) == (3, ("patches",), None)
    assert own.templates == ("a photo of {}", "{}")
    # What was held out is what another look at the run, without what was fitted on, finds.
    found = apply_policy(run, tmp_path / "p", unseen=True)
    assert found.left_out == 144
    assert found.achieved == evidence.tested


def test_a_score_that_learns_does_so_on_the_first_draw_alone(run, saved):
    origin = load_policy(saved).evidence.origin
    own = origin.classifier
    assert (own.support, own.shots, own.pictures) == (run.name, (4, 4), 12)
    draws = read_support(run, embedded(run), None)
    first = {draws.pictures.records[row].example.images[0].sha256[:16] for row in draws.rows[0]}
    assert first <= set(origin.content)
    rest = {r.example.images[0].sha256[:16] for r in draws.pictures.records} - first
    assert rest
    assert not rest & set(origin.content)


def test_fewer_shots_and_another_runs_support(run, tested, tmp_path):
    colour_run(tmp_path / "bare", tested)
    policy = calibrate(
        tmp_path / "bare", "trustvlm_aux", tmp_path / "p", coverage=0.5, support=run, shots=2
    )
    own = policy.evidence.origin.classifier
    assert (own.support, own.shots, own.pictures) == (run.name, (2, 2), 6)
    (line,) = [x for x in policy_lines.policy_lines("p", policy) if "support" in x]
    assert "6 pictures of colours, 2 of every class" in line
    with pytest.raises(MissingFeatureError, match=r"no support pictures; classify with --supp"):
        calibrate(tmp_path / "bare", "trustvlm", tmp_path / "q", coverage=0.5)


def test_another_run_is_decided_and_measured_and_its_sets_too(saved, other, tmp_path):
    policy = load_policy(saved)
    found = apply_policy(other, policy, tmp_path / "d.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    records = list(RunStore.open(other).records(features=()))
    assert [line["id"] for line in lines] == [record.example.id for record in records]
    right = [r.answer.text == r.example.references[0] for r in records]
    assert [line["correct"] for line in lines] == right
    accepted = np.array([line["accepted"] for line in lines])
    assert found.achieved.coverage.value == pytest.approx(accepted.mean())
    assert found.achieved.risk.value == pytest.approx(1 - np.mean(np.array(right)[accepted]))
    held = [
        r.example.references[0] in x["prediction_set"] for r, x in zip(records, lines, strict=True)
    ]
    assert found.achieved.set_coverage.value == pytest.approx(np.mean(held))
    assert found.achieved.set_size == np.mean([len(x["prediction_set"]) for x in lines])
    assert {name for line in lines for name in line["prediction_set"]} == set(COLOURS)
    text = "\n".join(policy_lines.application_lines(policy, found))
    assert "of sets hold the right class" in text
    assert "classes in a set" in text
    document = policies._application(policy, found)
    assert document["achieved"]["set_size"] == found.achieved.set_size
    ungraded = apply_policy(other, policy, graded=False)
    assert ungraded.achieved is None
    assert ungraded.decisions == found.decisions


def apart(some, others):
    """Sets that differ: the one at the quantile may, by the rounding of a product."""
    return sum(one != other for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
def test_sets_are_those_of_the_classifiers_own_probabilities(kind, run, tmp_path, monkeypatch):
    policy = calibrate(run, "energy", tmp_path / "p", coverage=0.5, sets=kind, sets_level=0.8)
    fit, sets = policy.evidence.sets, policy.sets
    assert (fit.options, sets.conformal.n) == (3.0, 126)
    assert fit.coverage == sets.conformal.coverage
    features = {Feature.IMAGE_VECTOR}
    records = list(RunStore.open(run).records(features=features))
    image = np.stack([r.array(Feature.IMAGE_VECTOR) for r in records]).astype(np.float64)
    logits = sets.texts.logit_scale * image @ sets.texts.vectors.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    inside = sets.conformal.sets(p / p.sum(axis=1, keepdims=True))
    found = sets.of(records)
    assert apart(found, [tuple(np.array(sets.texts.classes)[mask]) for mask in inside]) <= 1
    assert 1.0 <= fit.size < 3.0
    # As bounded blocks, of one picture each, they are the same.
    monkeypatch.setattr(class_sets, "_MOST", 1)
    assert apart(sets.of(records), found) <= 1
    again = calibrate(run, "energy", tmp_path / "q", coverage=0.5, sets=kind, sets_level=0.8)
    assert again.evidence.sets.size == pytest.approx(fit.size, abs=0.01)
    assert again.sets.conformal.quantile == pytest.approx(sets.conformal.quantile, abs=1e-6)
    bare = [replace(record, features={}) for record in records[:2]]
    assert sets.of([bare[0], records[0], bare[1]])[::2] == [None, None]
    assert sets.of(bare) == [None, None]
    assert "126, one a group" in "\n".join(policy_lines.policy_lines("p", policy))


def test_too_few_pictures_for_the_level_of_the_sets(run, tmp_path):
    with pytest.raises(DataError, match=r"126 groups of pictures .*; 199 are required") as error:
        calibrate(run, "msp", tmp_path / "p", coverage=0.5, sets="lac", sets_level=0.995)
    one_line(error)
    assert not (tmp_path / "p").exists()


def test_what_it_learned_from_and_was_fitted_on_is_refused(run, saved, pool, tmp_path):
    with pytest.raises(LeakageError, match=r"fitted on 144 group\(s\).*--unseen") as error:
        apply_policy(run, saved)
    one_line(error)
    # The support pictures of its draw count as seen; those of other draws do not.
    colour_run(tmp_path / "pool", pool)
    with pytest.raises(LeakageError, match=r"fitted on 12 group\(s\)"):
        apply_policy(tmp_path / "pool", saved)
    found = apply_policy(tmp_path / "pool", saved, unseen=True)
    assert (found.left_out, len(found.decisions)) == (12, 24)
    calibrate(run, "msp", tmp_path / "p", coverage=0.5)
    assert len(apply_policy(tmp_path / "pool", tmp_path / "p").decisions) == 36
    # Nor may support be among the pictures that a policy is fitted on.
    with pytest.raises(LeakageError, match="support pictures of"):
        calibrate(tmp_path / "pool", "trustvlm", tmp_path / "q", coverage=0.5, support=run)


class Louder(ColourClassifier):
    scale = 30.0


def blind(path, tested):
    """Of another encoder of the same name."""

    class Centre(Patches):
        def fingerprint(self):
            return {"name": "centre"}

    colour_run(path, tested, encoders=[ModelEncoder.of("patches", Centre())])


OTHERS = {
    "logit_scale": lambda path, tested: colour_run(path, tested, model=Louder()),
    "templates": lambda path, tested: colour_run(path, tested, templates=("{}",)),
    "encoders": blind,
}


@pytest.mark.parametrize("differs", OTHERS)
def test_another_classifier_is_refused_as_far_as_the_score_depends_on_it(
    differs, run, saved, tested, tmp_path
):
    pictures = write_pictures(tmp_path / "new", dict.fromkeys(COLOURS, 4), seed=11)
    OTHERS[differs](tmp_path / "r", pictures)
    with pytest.raises(UsageError, match=rf"differ in .*{differs}.*; the same") as error:
        apply_policy(tmp_path / "r", saved)
    one_line(error)
    calibrate(run, "msp", tmp_path / "p", coverage=0.5)
    if differs == "encoders":
        assert len(apply_policy(tmp_path / "r", tmp_path / "p").decisions) == 12
    else:
        with pytest.raises(UsageError, match=differs):
            apply_policy(tmp_path / "r", tmp_path / "p")


def test_other_classes_are_refused(saved, tmp_path):
    pictures = write_pictures(tmp_path / "new", {"red": 4, "blue": 4}, seed=11)
    colour_run(tmp_path / "r", pictures)
    with pytest.raises(UsageError, match=r"differ in classes; the same"):
        apply_policy(tmp_path / "r", saved)


def test_of_several_encoders_one_is_named(tested, tmp_path):
    class Dim(Patches):
        def vectors(self, images):
            return super().vectors(images)[:, :2]

    pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 3), seed=5)
    encoders = [ModelEncoder.of("dim", Dim()), patches()]
    colour_run(tmp_path / "r", tested, pool, shots=2, draws=1, encoders=encoders)
    for spec in ("knn_aux", "knn_aux[other]", "msp[dim]"):
        with pytest.raises(UsageError, match="one of them is required") as error:
            calibrate(tmp_path / "r", spec, tmp_path / "q", coverage=0.5)
        one_line(error)
    policy = calibrate(tmp_path / "r", "knn_aux[patches]", tmp_path / "p", coverage=0.5)
    (stage,) = policy.stages
    assert (stage.name, stage.spec["auxiliary_encoder"]) == ("knn_aux[patches]", "patches")
    assert stage.estimator.aux == slice(2, 5)
    assert load_policy(tmp_path / "p").stages[0].estimator.aux == slice(2, 5)


def test_thresholds_go_by_the_named_class_but_not_by_the_right_one(run, other, tmp_path):
    policy = calibrate(run, "msp", tmp_path / "p", risk=0.5, per_group="predicted_class")
    assert [p.category for p in policy.evidence.promises] == sorted(COLOURS)
    found = apply_policy(other, policy)
    assert {d.category for d in found.decisions} == set(COLOURS)
    assert all(d.category == d.answer for d in found.decisions)
    assert sum(one.rows for one in found.by_category.values()) == 120
    with pytest.raises(UsageError, match=r"the right class itself.*predicted_class") as error:
        calibrate(run, "msp", tmp_path / "q", risk=0.4, per_group="label")
    one_line(error)


@pytest.mark.parametrize("name", ["trustvlm_aux_rescored", "vector_scaling", "dirichlet"])
def test_a_score_that_changes_labels_is_judged_by_its_own(name, run, other, tmp_path):
    said = []
    policy = calibrate(run, name, tmp_path / "p", coverage=0.6, hold_out=0.3, announce=said.append)
    (line,) = [line for line in said if "own labels" in line]
    seen = embedded(run)
    (drawn,), _, _ = score_embedded(seen, [], read_support(run, seen, None), [name])
    names = np.array(seen.texts.classes)[drawn.results[0].label]
    changed = sum(a != r.answer.text for a, r in zip(names, seen.records, strict=True))
    assert changed > 0
    assert line == (
        f"{name} is judged by its own labels: {changed} of 180 pictures get another than the "
        "classifier's."
    )
    decisions = decide_pictures(policy, seen, range(180))
    assert [d.answer for d in decisions] == names.tolist()
    assert apply_policy(run, tmp_path / "p", unseen=True).achieved == policy.evidence.tested
    new = embedded(other)
    found = apply_policy(other, load_policy(tmp_path / "p"))
    answers = [d.answer for d in found.decisions]
    assert answers != [r.answer.text for r in new.records]
    right = [a == r.example.references[0] for a, r in zip(answers, new.records, strict=True)]
    assert found.correct == tuple(map(float, right))
    assert found.achieved.accuracy.value == pytest.approx(np.mean(right))
    bare = policy.decide(list(new.records[:1]))
    assert (bare[0].answer, bare[0].accepted) == (new.records[0].answer.text, False)
    assert "no image_vector" in bare[0].reason


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"estimator": ["msp", "trustvlm"]}, "A cascade of msp -> trustvlm"),
        ({"estimator": "perplexity"}, "Score 'perplexity' does not exist"),
        ({"shots": 2}, "learns from no support pictures"),
        ({"estimator": "trustvlm", "shots": 9}, "1 to 4"),
        ({"sets": "lac", "sets_scores": "letters"}, "sets are over its classes"),
        ({"settings": Settings(condition="blank")}, "judged by their class"),
        ({"settings": Settings(grader="exact")}, "judged by their class"),
        ({"calibrator": "temperature", "estimator": "energy"}, "calibrates probabilities only"),
    ],
)
def test_what_means_nothing_for_a_classifier_is_refused_by_name(run, tmp_path, flags, message):
    asked = {"estimator": "msp", "coverage": 0.5, **flags}
    with pytest.raises(UsageError, match=message) as error:
        calibrate(run, output=tmp_path / "p", **asked)
    one_line(error)
    assert not (tmp_path / "p").exists()


def test_a_part_of_a_run_is_no_run_to_calibrate_on(run, tmp_path):
    with pytest.raises(UsageError, match=r"is no run of a zero-shot classifier; .* classify"):
        calibrate(run / SUPPORT, "msp", tmp_path / "p")


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A run of a model's answers, and a policy on it."""
    from tests.unit.workflow import test_evaluate

    folder = tmp_path_factory.mktemp("answers")
    path = test_evaluate.write_run(folder / "r", test_evaluate.known_records(60))
    calibrate(path, "sequence_probability", folder / "p", coverage=0.5)
    return path, folder / "p"


def test_policies_of_one_kind_are_not_used_for_the_other(answering, run, saved, tmp_path):
    path, policy = answering
    with pytest.raises(UsageError, match=r"is a run of a classifier's pictures and .* collect"):
        apply_policy(run, policy)
    with pytest.raises(UsageError, match=r"is a run of a model's answers .* 'sightline classify'"):
        apply_policy(path, saved)
    with pytest.raises(UsageError, match=r"'sightline ask' answers questions; .* apply") as error:
        ask(tmp_path / "no.png", "What?", model=object(), policy=saved)
    one_line(error)
    with pytest.raises(UsageError, match=r"'sightline serve' answers questions; .* apply") as error:
        saved_judge(saved)
    one_line(error)
    with pytest.raises(UsageError, match="is no run of a zero-shot classifier"):
        calibrate(path, "sequence_probability", tmp_path / "q", support=run)


def test_every_byte_of_the_score_counts(saved, tmp_path):
    content = (saved / "stage-0" / "score.safetensors").read_bytes()
    assert sorted(p.name for p in (saved / "stage-0").iterdir()) == ["score.safetensors"]
    folder = tmp_path / "damaged"
    shutil.copytree(saved, folder)
    file = folder / "stage-0" / "score.safetensors"
    for at in range(0, len(content), max(1, len(content) // 25)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(CorruptStoreError, match="does not match its checksum") as error:
            load_policy(folder)
        one_line(error)
    file.unlink()
    with pytest.raises(CorruptStoreError, match="is missing"):
        load_policy(folder)


def changed_score(**changes):
    return lambda d: d["stages"][0]["score"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["stages"][0].pop("score"),
        lambda d: d["stages"][0].update(fitted=None),
        lambda d: d["stages"][0].update(fitted="../p/stage-0"),
        lambda d: d["stages"][0]["spec"].update(name="msp"),
        lambda d: d["stages"][0].update(spec={"name": "msp"}),
        lambda d: d["stages"][0].update(spec={}),
        lambda d: d["sets"].update(scores="options", conformal={}),
        lambda d: d["sets"]["conformal"].update(score="all"),
        lambda d: d["evidence"]["origin"]["classifier"].update(classes="many"),
        changed_score(kind="MaxSoftmax"),
        changed_score(aux=None),
        changed_score(aux=[3, 1]),
        changed_score(aux=[0, 2]),
        changed_score(aux=["a", "b"]),
    ],
)
def test_sealed_nonsense_is_refused_in_one_line(saved, tmp_path, change):
    shutil.copytree(saved, tmp_path / "p")
    document = load_document(tmp_path / "p/policy.json")
    change(document)
    (tmp_path / "p/policy.json").write_bytes(dump_document(document))
    with pytest.raises(SightlineError) as error:
        load_policy(tmp_path / "p")
    one_line(error)


def test_a_policy_of_no_known_classifier_decides_nothing(saved, other):
    policy = load_policy(saved)
    nameless = replace(policy, evidence=replace(policy.evidence, origin=None))
    with pytest.raises(UsageError, match="an unnamed classifier"):
        apply_policy(other, nameless)
