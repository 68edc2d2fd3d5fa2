"""Free answers by meaning, and the conditions that tell most, on columns made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit.resampled import Clusters
from sightline.core.types import Example, Generation, ImageRef, Record
from sightline.workflow.auditing.budgeting import budgets_of
from sightline.workflow.auditing.columns import columns_of
from sightline.workflow.auditing.meaning import changed_meanings, meanings_of
from sightline.workflow.auditing.pairs import AuditRows, Item, Pair

IMAGE = (ImageRef("a.png", "0" * 64),)


def item(number: int, answer: str, right: bool | None = True) -> Item:
    example = Example(f"e{number}", "What is there?", IMAGE, references=("a dog",))
    record = Record(example, "clean", Generation(answer))
    return Item(record, number, 0, "text", None, None, None, answer, -1, right, None)


def pair(number: int, owner: Item, answer: str, condition: str = "jpeg:3") -> Pair:
    record = Record(owner.record.example, condition, Generation(answer), truth="same")
    right = answer == "a dog"
    return Pair(number, record, "corruption", None, answer, right, None, None, None, None, {}, {})


def clusters(rows: AuditRows) -> Clusters:
    images = np.array([own.image for own in rows.items])
    return Clusters.of(images, rng=np.random.default_rng(0), n_resamples=100)


class Synonyms:
    """Holds two words to mean the same, and nothing else."""

    def fingerprint(self):
        return {"name": "synonyms"}

    def probabilities(self, pairs):
        same = [{p[0].split()[-1], p[1].split()[-1]} == {"dog", "puppy"} for p in pairs]
        return np.array([[0.9, 0.1, 0.0] if one else [0.1, 0.2, 0.7] for one in same])


def test_answers_that_say_the_same_in_other_words():
    answers = [("a dog", "a dog"), ("a dog", "the dog"), ("a dog", "a puppy"), ("a dog", "a cat")]
    items = [item(i, clean) for i, (clean, _) in enumerate(answers)]
    rows = AuditRows(items, [pair(i, items[i], text) for i, (_, text) in enumerate(answers)], ())
    words = changed_meanings(rows, None)
    assert list(words["content words"].values()) == [False, False, True, True]
    both = changed_meanings(rows, Synonyms())
    assert list(both) == ["content words", "entailment by synonyms"]
    assert list(both["entailment by synonyms"].values()) == [False, True, False, True]
    first, second = meanings_of(rows, columns_of(rows), both, clusters(rows))
    assert first.flipped.value == 0.75
    assert first.changed.value == 0.5
    assert first.reworded.value == pytest.approx(1 / 3)
    assert first.overlooked.value == 0
    assert second.reworded.value == pytest.approx(1 / 3)


def test_questions_with_options_have_no_meaning_of_their_own():
    own = item(0, "a dog")
    own.form, own.scores = "choice", np.array([-1.0, -2.0])
    rows = AuditRows([own], [pair(0, own, "a dog")], ())
    assert changed_meanings(rows, None) == {}
    assert meanings_of(rows, columns_of(rows), {}, clusters(rows)) == ()


def test_the_condition_that_gives_wrong_answers_away_is_chosen():
    rng = np.random.default_rng(1)
    items, pairs = [], []
    for i in range(120):
        right = bool(rng.random() < 0.6)
        items.append(item(i, "a dog" if right else "a cow", right))
        tells = right if rng.random() < 0.9 else not right
        items_answer = items[-1].label
        pairs.append(pair(i, items[-1], items_answer if tells else "a cat", "blur:2"))
        for other in ("jpeg:3", "noise:1"):
            said = items_answer if rng.random() < 0.7 else "a cat"
            pairs.append(pair(i, items[-1], said, other))
    rows = AuditRows(items, pairs, ())
    nothing = np.full(len(pairs), np.nan)
    wrong, unstable = budgets_of(rows, columns_of(rows), nothing, clusters(rows), k=2, seed=0)
    assert wrong.questions == 120
    assert wrong.conditions == 3
    assert wrong.steps[0].condition == "blur:2"
    assert wrong.steps[0].folds == 5
    assert wrong.steps[0].held_out.low > 0.1
    assert wrong.steps[0].gain > wrong.steps[1].gain
    assert wrong.everything.value > 0.1
    assert 0 < unstable.share <= 0.5


def test_too_few_questions_for_a_budget_say_so():
    items = [item(i, "a dog") for i in range(3)]
    rows = AuditRows(items, [pair(i, own, "a dog") for i, own in enumerate(items)], ())
    nothing = np.full(3, np.nan)
    for budget in budgets_of(rows, columns_of(rows), nothing, clusters(rows), k=1, seed=0):
        assert budget.steps == ()
        assert budget.everything.value is None
        assert "required" in budget.reason
