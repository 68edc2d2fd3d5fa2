"""What the study says of letting a model choose: counts by hand, paired figures, what was asked."""

import numpy as np
import pytest

from sightline.core.errors import ModelError
from sightline.workflow.studies.classifier_reranking import (
    CLASSIFIER,
    CLASSIFIERS,
    OWN,
    UNTRAINED,
    Reranked,
    Unaided,
    accuracies,
    confidences,
    observed,
    unaided,
    unaided_table,
)


def reranked(n=400, seed=0):
    """The model mends a third of the errors and breaks a few; it knows better when it is right."""
    rng = np.random.default_rng(seed)
    before = (rng.random(n) < 0.6).astype(float)
    mended = (before == 0) & (rng.random(n) < 0.33)
    broken = (before == 1) & (rng.random(n) < 0.05)
    after = np.where(mended, 1.0, np.where(broken, 0.0, before))
    classifier = np.clip(0.5 - 0.2 * before + 0.2 * rng.standard_normal(n), 0, 1)
    own = np.clip(0.6 - 0.4 * after + 0.1 * rng.standard_normal(n), 0, 1)
    return Reranked(before, after, classifier, own, mended | broken, np.zeros(n, dtype=bool))


def test_what_changed_is_counted_by_hand():
    test = Reranked(
        before=np.array([1.0, 0.0, 0.0, 1.0, 0.0]),
        after=np.array([1.0, 1.0, 0.0, 0.0, 0.0]),
        classifier=np.full(5, 0.5),
        own=np.full(5, 0.5),
        changed=np.array([False, True, False, True, True]),
        unnamed=np.array([True, False, False, False, False]),
    )
    row = accuracies({"clip on digits": (test, test)}, 5).rows[0]
    assert row[0] == "clip on digits"
    assert (row[1].value, row[2].value, row[3].value) == pytest.approx((0.4, 0.4, 0.0))
    assert row[3].low < 0 < row[3].high
    assert row[4:] == ("3 (1 to right, 1 to wrong)", 1)


def test_pictures_that_the_model_was_not_trained_on_are_not_applicable():
    rows = accuracies({}, 5).rows
    assert [row[0] for row in rows] == [
        "clip on scenes", "clip on shifted", "siglip on scenes", "siglip on shifted",
    ]  # fmt: skip
    assert all(row[1].value is None and row[1].reason == UNTRAINED for row in rows)


def test_each_confidence_is_judged_by_the_label_it_stands_for():
    test = reranked()
    table = confidences({"clip on digits": (reranked(seed=1), test)}, 400, 100)
    rows = {
        row[0].partition(": ")[2]: dict(zip(table.columns, row, strict=True)) for row in table.rows
    }
    assert set(rows) == {CLASSIFIER, OWN, CLASSIFIERS}
    assert rows[CLASSIFIER]["Accuracy"].value == pytest.approx(test.before.mean())
    assert rows[OWN]["Accuracy"].value == pytest.approx(test.after.mean())
    assert rows[CLASSIFIERS]["Accuracy"].value == pytest.approx(test.after.mean())
    assert rows[CLASSIFIER]["AURC lower by"] is None
    gain = rows[OWN]["AUROC higher by"]
    assert gain.value == pytest.approx(rows[OWN]["AUROC"].value - rows[CLASSIFIER]["AUROC"].value)
    assert gain.low > 0
    lower = rows[OWN]["AURC lower by"]
    assert lower.value == pytest.approx(
        1 - rows[OWN]["AURC ×1000"].value / rows[CLASSIFIER]["AURC ×1000"].value
    )
    change = rows[OWN]["ECE higher by"]
    assert change.value == pytest.approx(rows[OWN]["ECE"].value - rows[CLASSIFIER]["ECE"].value)
    assert change.low <= change.value <= change.high


def test_the_model_alone_is_judged_by_its_own_replies():
    test = reranked().judged(OWN)
    table = unaided_table(Unaided(reranked(seed=1).judged(OWN), 0), {"digits": Unaided(test, 7)}, 9)
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert row["Accuracy"].value == pytest.approx(test.correct.mean())
    assert row["AUROC"].value > 0.8
    assert (row["Setting"], row["Named no digit"]) == ("the model alone on digits", 7)


@pytest.fixture(scope="module")
def models():
    pytest.importorskip("torch", reason="the models extra is not installed")
    pytest.importorskip("transformers", reason="the models extra is not installed")
    from sightline.models import load_classifier, load_model

    return load_classifier("embedded:clip"), load_model("embedded:vlm")


def test_the_embedded_pair_in_the_form_it_was_trained_on(models, tmp_path, monkeypatch):
    from sightline.store.run import RunStore

    found = observed(*models, "test", 6, tmp_path)
    assert len(found.before) == len(found.after) == 6
    same = ~found.changed
    assert (found.after[same] == found.before[same]).all()
    assert not (found.changed & found.unnamed).any()
    assert ((found.classifier >= 0) & (found.classifier <= 1)).all()
    example = RunStore.open(tmp_path / "test-choice").examples()[0]
    assert example.question.startswith("What digit is shown?\nA classifier suggests: ")
    offered = example.question.partition("suggests: ")[2].rstrip(".").split(", ")
    assert [len(entry.split()[0]) for entry in offered] == [1, 1, 1]  # bare digits

    alone = unaided(models[1], "test", 6, tmp_path / "alone")
    asked = RunStore.open(tmp_path / "alone").examples()
    assert {e.question for e in asked} == {"What digit is shown?"}
    same_pictures = RunStore.open(tmp_path / "test").examples()
    assert [e.images[0].sha256 for e in asked] == [e.images[0].sha256 for e in same_pictures]
    replies = [r.answer.text for r in RunStore.open(tmp_path / "alone").records()]
    right = [reply == e.references[0] for reply, e in zip(replies, asked, strict=True)]
    assert alone.judged.correct.tolist() == right
    assert alone.unnamed == sum(reply not in "0123456789" for reply in replies)

    def none(*_):
        return []

    monkeypatch.setattr("sightline.workflow.studies.classifier_reranking.choices", none)
    with pytest.raises(ModelError, match="holds 0 of 6 choices"):
        observed(*models, "test", 6, tmp_path)
