"""What a recorded row means, and every way in which it cannot be used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.store.import_rows import PROBABILITY_FLOOR, interpret

FREE = {"id": "1", "question": "What is it?", "answer": "dog"}
CHOICE = {"id": "1", "question": "Which?", "choices": ["cat", "dog", "cow"], "answer": "B"}


def test_the_least_a_row_can_say() -> None:
    row = interpret({"question": "What is it?", "answer": "dog"})
    (record,) = row.records
    assert (record.condition, record.answer.text) == ("clean", "dog")
    assert record.answer.logprobs is None
    assert row.example.references == ()
    assert row.example.group == row.example.id
    assert (row.model, row.dataset, row.correct, row.images) == (None, None, None, ())


def test_a_missing_id_is_derived_from_question_and_image() -> None:
    one = interpret({"question": "a?", "answer": "x", "image": "1.png"}).example.id
    assert interpret({"question": "a?", "answer": "y", "image": "1.png"}).example.id == one
    assert interpret({"question": "a?", "answer": "x", "image": "2.png"}).example.id != one


def test_questions_on_one_image_share_a_group() -> None:
    rows = [interpret({**FREE, "id": str(i), "image": image}) for i, image in enumerate("xxy")]
    assert [row.example.group for row in rows] == ["x", "x", "y"]
    assert interpret({**FREE, "image": "x", "group": "g"}).example.group == "g"


def test_every_field_of_a_full_row() -> None:
    row = interpret(
        {
            "id": 7,
            "model": "m",
            "dataset": "d",
            "condition": "jpeg:3+rotate:30",
            "question": " Which? ",
            "context": "Look.",
            "choices": {"A": "cat", "B": "dog"},
            "answer": "B",
            "references": ["dog"],
            "correct": True,
            "group_id": "g",
            "category": "animals",
            "image": ["a.png", "b.png"],
            "tokens": ["B", "</s>"],
            "token_ids": [33, 2],
            "token_logprobs": [-0.5, 0.0],
            "finish_reason": "stop",
            "confidence": 0.75,
            "choice_logprobs": [-1.0, -0.5],
            "samples": ["B", {"text": "A", "token_logprobs": [-2.0]}],
            "difficulty": 3,
            "claims": [1],
            "answer_text": "B. dog",
        }
    )
    (record,) = row.records
    assert (row.model, row.dataset, row.correct) == ("m", "d", 1.0)
    assert row.example.question == "Look.\nWhich?"
    assert (row.example.choices, row.example.references) == (("cat", "dog"), ("B",))
    assert (row.example.id, row.example.group, row.example.question_type) == ("7", "g", "animals")
    assert row.images == ("a.png", "b.png")
    assert dict(row.example.meta) == {"difficulty": 3}
    assert set(row.unused) == {"claims", "answer_text"}
    assert record.condition == "jpeg:3+rotate:30"
    assert record.answer.tokens == ("B", "</s>")
    assert record.answer.logprobs is not None
    assert record.answer.logprobs.tolist() == [-0.5, 0.0]
    assert record.answer.finish_reason == "stop"
    assert record.array(Feature.RECORDED_CONFIDENCE) == 0.75
    assert record.array(Feature.LETTER_LOGPROBS).tolist() == [-1.0, -0.5]
    assert [sample.text for sample in record.samples] == ["B", "A"]


@pytest.mark.parametrize("name", ["answer", "prediction", "response", "output", "answer_text"])
def test_names_of_the_answer(name: str) -> None:
    assert interpret({"id": "1", "question": "?", name: "x"}).records[0].answer.text == "x"


def test_answer_beside_a_prediction_is_the_reference() -> None:
    row = interpret({"id": "1", "question": "?", "answer": "cat", "prediction": "dog"})
    assert (row.example.references, row.records[0].answer.text) == (("cat",), "dog")
    row = interpret({**FREE, "answer_text": "A dog."})
    assert (row.example.references, row.records[0].answer.text) == ((), "dog")
    row = interpret({**FREE, "prediction": "cow", "references": ["cat"]})
    assert (row.example.references, row.records[0].answer.text) == (("cat",), "dog")


def test_the_type_of_a_version_of_an_item_is_the_version() -> None:
    example = interpret({**FREE, "id": "chart_1:blur", "category": "chart/blur"}).example
    assert (example.question_type, example.meta["category"]) == ("blur", "chart/blur")
    example = interpret({**FREE, "category": "chart/blur"}).example
    assert (example.question_type, dict(example.meta)) == ("chart/blur", {})


def test_text_forms_of_tables_are_read() -> None:
    row = interpret(
        {
            **CHOICE,
            "choices": "['cat', 'dog', 'cow']",
            "choice_probs": "[0.1, 0.7, 0.2]",
            "confidence": "0.7",
            "correct": "False",
            "references": '["A"]',
        }
    )
    assert row.example.choices == ("cat", "dog", "cow")
    assert row.example.references == ("A",)
    assert row.correct == 0.0
    np.testing.assert_allclose(
        np.exp(row.records[0].array(Feature.LETTER_LOGPROBS)), [0.1, 0.7, 0.2]
    )
    row = interpret({"id": "1", "question": "?", "A": "cat", "B": "dog", "C": None, "answer": "A"})
    assert row.example.choices == ("cat", "dog")


def test_thinking_is_kept_apart() -> None:
    row = interpret({**FREE, "answer": "<think>It barks.</think>\ndog"})
    assert (row.records[0].answer.text, row.records[0].answer.reasoning) == ("dog", "It barks.")


def test_openai_logprobs() -> None:
    content = [{"token": "do", "logprob": -0.5}, {"token": "g", "logprob": -0.25}]
    answer = (
        interpret({**FREE, "logprobs": {"content": content, "refusal": None}}).records[0].answer
    )
    assert answer.tokens == ("do", "g")
    assert answer.logprobs is not None
    assert answer.logprobs.tolist() == [-0.5, -0.25]


def test_a_sentinel_is_not_observed() -> None:
    answer = interpret({**FREE, "token_logprobs": [-0.5, -9999.0]}).records[0].answer
    assert answer.logprobs is None
    assert answer.text == "dog"


class TestOptionScores:
    def test_logits_become_log_probabilities(self) -> None:
        row = interpret({**CHOICE, "choice_logits": [1.0, 3.0, 2.0]})
        scores = row.records[0].array(Feature.LETTER_LOGPROBS)
        expected = np.array([1.0, 3.0, 2.0]) - math.log(math.e + math.e**2 + math.e**3)
        np.testing.assert_allclose(scores, expected)

    def test_huge_logits_do_not_overflow(self) -> None:
        row = interpret({**CHOICE, "choice_logits": [1e4, -1e4, 0.0]})
        scores = row.records[0].array(Feature.LETTER_LOGPROBS)
        assert scores[0] == 0.0
        assert np.isfinite(scores).all()

    def test_a_zero_probability_has_a_floor(self) -> None:
        row = interpret({**CHOICE, "choice_probs": [0.0, 1.0, 0.0]})
        scores = row.records[0].array(Feature.LETTER_LOGPROBS)
        assert scores.tolist() == [math.log(PROBABILITY_FLOOR), 0.0, math.log(PROBABILITY_FLOOR)]

    def test_the_tools_probabilities_come_before_its_logits(self) -> None:
        row = interpret({**CHOICE, "choice_probs": [0.2, 0.5, 0.3], "choice_logits": [1, 2, 3]})
        scores = np.exp(row.records[0].array(Feature.LETTER_LOGPROBS))
        np.testing.assert_allclose(scores, [0.2, 0.5, 0.3])

    def test_a_letter_that_was_scored_but_not_offered_has_no_text(self) -> None:
        choices = {"A": "cat", "B": "dog", "D": "none"}
        row = interpret({**CHOICE, "choices": choices, "choice_logits": [1, 2, 3, 4]})
        assert row.example.choices == ("cat", "dog", "", "none")
        assert row.records[0].array(Feature.LETTER_LOGPROBS).shape == (4,)

    def test_without_choices_the_letters_are_the_choices(self) -> None:
        row = interpret({"id": "1", "question": "?", "choice_logits": [1, 2, 0]})
        assert row.example.choices == ("A", "B", "C")
        assert row.records[0].answer.text == "B"

    def test_likelihoods_of_the_options(self) -> None:
        row = interpret({**CHOICE, "answer": None, "option_logprobs": [-3, -2, -1]})
        assert row.records[0].answer.text == "C"
        assert row.records[0].array(Feature.OPTION_LOGPROBS).tolist() == [-3, -2, -1]


class TestConditions:
    def test_samples_by_cell_become_records_of_conditions(self) -> None:
        row = interpret(
            {
                **CHOICE,
                "samples": ["A", "B", "A", "A"],
                "sample_cells": ["contrast1|rephrased2", "blur2|rephrased2"],
                "samples_complement": ["C", "C", "C", "B"],
                "answer_negated": "C",
            }
        )
        found = {
            record.condition: [sample.text for sample in record.samples] for record in row.records
        }
        assert found == {
            "clean": [],
            "contrast:1+rephrased:2": ["A", "B"],
            "blur:2+rephrased:2": ["A", "A"],
            "negated": [],
            "negated+contrast:1+rephrased:2": ["C", "C"],
            "negated+blur:2+rephrased:2": ["C", "B"],
        }
        greedy = {r.condition: r.greedy.text for r in row.records if r.greedy is not None}
        assert greedy == {"clean": "B", "negated": "C"}

    def test_versions_named_in_the_layout(self) -> None:
        row = interpret(
            {
                **FREE,
                "samples": ["dog", "cat", "dog"],
                "samples_layout": "same question on [clean, blur, crop] versions of the image",
            }
        )
        found = {r.condition: r.greedy and r.greedy.text for r in row.records}
        assert found == {
            "clean": "dog",
            "view:clean": "dog",
            "view:blur": "cat",
            "view:crop": "dog",
        }
        assert all(record.samples == () for record in row.records)

    def test_a_layout_that_does_not_fit_leaves_plain_samples(self) -> None:
        row = interpret({**FREE, "samples": ["a", "b"], "samples_layout": "10 draws [T=1]"})
        assert len(row.records) == 1
        assert len(row.records[0].samples) == 2

    def test_a_negated_question_without_cells(self) -> None:
        row = interpret({**FREE, "samples_complement": ["cat", "cow"]})
        assert [r.condition for r in row.records] == ["clean", "negated"]
        assert len(row.records[1].samples) == 2

    def test_cells_of_a_row_under_a_condition_are_composed(self) -> None:
        row = interpret(
            {**FREE, "condition": "jpeg:1", "samples": ["a"], "sample_cells": ["blur1"]}
        )
        assert [record.condition for record in row.records] == ["jpeg:1", "jpeg:1+blur:1"]


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("no question", {"id": "1", "answer": "x"}),
    ("no question", {**FREE, "question": "  "}),
    ("the question is ", {**FREE, "question": ["a"]}),
    ("no answer and no samples", {"id": "1", "question": "?"}),
    ("no answer and no samples", {"id": "1", "question": "?", "answer": None, "samples": []}),
    ("the text of answer", {**FREE, "answer": ["dog"]}),
    ("the text of answer", {**FREE, "answer": math.nan}),
    ("the id is empty", {**FREE, "id": " "}),
    ("the id is", {**FREE, "id": {}}),
    ("the model is", {**FREE, "model": []}),
    ("the condition is", {**FREE, "condition": "very blurred"}),
    ("the condition is", {**FREE, "condition": 3}),
    ("correct is", {**FREE, "correct": 2}),
    ("correct is", {**FREE, "correct": "maybe"}),
    ("correct is", {**FREE, "correct": math.nan}),
    ("confidence is", {**FREE, "confidence": math.inf}),
    ("confidence is", {**FREE, "confidence": True}),
    ("confidence is", {**FREE, "confidence": "high"}),
    ("lengths", {**FREE, "tokens": ["a", "b"], "token_logprobs": [-1.0]}),
    ("token_logprobs[0] is nan", {**FREE, "token_logprobs": [math.nan]}),
    ("token_logprobs[1] is None", {**FREE, "token_logprobs": [-1.0, None]}),
    ("at most 0", {**FREE, "token_logprobs": [0.5]}),
    ("token_logprobs is", {**FREE, "token_logprobs": []}),
    ("token_logprobs is", {**FREE, "token_logprobs": -1.0}),
    ("tokens is", {**FREE, "tokens": [1, 2]}),
    ("token_ids with", {**FREE, "token_ids": [1.5]}),
    ("token_ids with", {**FREE, "token_ids": [2**31]}),
    ("samples is", {**FREE, "samples": "dog"}),
    ("samples[1]", {**FREE, "samples": ["dog", None]}),
    ("do not divide", {**FREE, "samples": ["a", "b", "c"], "sample_cells": ["x1", "x2"]}),
    ("0 samples do not divide", {**FREE, "sample_cells": ["x1", "x2"]}),
    ("different", {**FREE, "samples": ["a", "b"], "sample_cells": ["x1", "x1"]}),
    ("sample_cells is", {**FREE, "samples": ["a"], "sample_cells": [1]}),
    ("the choices are", {**CHOICE, "choices": ["one"]}),
    ("the choices are", {**CHOICE, "choices": 3}),
    ("choices keyed", {**CHOICE, "choices": {"first": "cat", "second": "dog"}}),
    ("a choice is", {**CHOICE, "choices": ["cat", None]}),
    ("not one of the 3", {**CHOICE, "references": ["D"]}),
    ("not one of the 3", {**CHOICE, "references": ["horse"]}),
    ("choice_logits has 2 values for 3", {**CHOICE, "choice_logits": [1, 2]}),
    ("choice_logits[0] is nan", {**CHOICE, "choice_logits": [math.nan, 1, 2]}),
    ("choice_logprobs with", {**CHOICE, "choice_logprobs": [0.1, -1, -2]}),
    ("choice_probs that sum", {**CHOICE, "choice_probs": [0.9, 0.9, 0.1]}),
    ("choice_probs that sum", {**CHOICE, "choice_probs": [0, 0, 0]}),
    ("choice_probs that sum", {**CHOICE, "choice_probs": [-0.1, 0.5, 0.5]}),
    ("choice_probs keyed", {**CHOICE, "choice_probs": {"A": 1.0, "B": 0.0}}),
    ("choice_probs keyed", {**CHOICE, "choice_probs": {"cat": 1.0, "dog": 0.0, "cow": 0.0}}),
    ("option_logprobs", {**CHOICE, "option_logprobs": [-1, -2]}),
    ("option_logprobs with", {**CHOICE, "option_logprobs": [1, -2, -3]}),
]


@pytest.mark.parametrize(("reason", "row"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_row_says_why_on_one_line(reason: str, row: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        interpret(row)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "letter"), [("B", "B"), ("dog", "B"), ("(b) dog", "B"), ("1", "B"), (2, "C")]
)
def test_references_become_letters(reference: str | int, letter: str) -> None:
    assert interpret({**CHOICE, "references": [reference]}).example.references == (letter,)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "id",
        "question",
        "answer",
        "choices",
        "references",
        "samples",
        "choice_probs",
        "tokens",
        "sample_cells",
        "token_logprobs",
        "correct",
        "image",
        "condition",
        "A",
        "B",
        "confidence",
        "group",
        "difficulty",
    ]
)


@given(st.dictionaries(names, values))
def test_any_row_is_read_or_refused(row: dict[str, Any]) -> None:
    try:
        found = interpret({"question": "?", "answer": "x"} | row)
    except DataError:
        return
    assert found.records[0].key.example_id == found.example.id
    assert len({record.key for record in found.records}) == len(found.records)


def test_scores_by_letter_may_come_without_choices() -> None:
    row = interpret({"question": "?", "choice_probs": {"B": 0.25, "A": 0.75}})
    assert row.example.choices == ("A", "B")
    scores = np.exp(row.records[0].array(Feature.LETTER_LOGPROBS))
    np.testing.assert_allclose(scores, [0.75, 0.25])
    with pytest.raises(DataError, match=r"choice_probs has 1 value\(s\), not one for each choice"):
        interpret({"question": "?", "choice_probs": [1.0]})


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (False, "no"), (3, "3"), (2.0, "2"), (2.5, "2.5")]
)
def test_answers_that_are_no_text_are_written_out(value: Any, text: str) -> None:
    assert interpret({"question": "?", "answer": value}).records[0].answer.text == text


def test_reasoning_of_its_own_is_kept_apart() -> None:
    answer = {"text": "dog", "reasoning": "It barks."}
    generation = interpret({"question": "?", "answer": answer}).records[0].answer
    assert (generation.text, generation.reasoning) == ("dog", "It barks.")


def test_lists_are_read_as_json_or_as_python_writes_them() -> None:
    for text in ('["a", "b"]', "['a', 'b']", " ['a','b'] "):
        row = interpret({"question": "?", "choices": text, "answer": "A"})
        assert row.example.choices == ("a", "b")
    for text in ("[not a list", "['a'", "[" + "x" * 200_000):
        with pytest.raises(DataError, match="the choices are"):
            interpret({"question": "?", "choices": text, "answer": "A"})


def test_cells_are_named_as_conditions() -> None:
    row = {"question": "?", "samples": ["a", "b"], "sample_cells": ["jpeg:3", "blur2|upside down"]}
    conditions = [record.condition for record in interpret(row).records]
    assert conditions == ["clean", "jpeg:3", "blur:2+view:upside_down"]
