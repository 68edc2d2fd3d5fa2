"""Reading probabilities, phrases and guesses from untrusted replies."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.features import FIXED_REPLIES, Feature
from sightline.estimators.replies import (
    Guess,
    answer_with_confidence,
    stated_guesses,
    stated_phrase,
    stated_probability,
)

SCALE = FIXED_REPLIES[Feature.CONFIDENCE_SCALE]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85", 0.85),
        (" 85%. ", 0.85),
        ("**85%**", 0.85),
        ("85/100", 0.85),
        ("85 out of 100", 0.85),
        ("0%", 0.0),
        ("0", 0.0),
        ("100", 1.0),
        ("1", 0.01),
        ("1.0", 1.0),
        ("0.85", 0.85),
        (".5", 0.5),
        ("0.5%", 0.005),
        ("99.5 percent", 0.995),
        ("ninety", 0.9),
        ("ninety-five percent", 0.95),
        ("I am 90% sure that it is a cat.", 0.9),
        ("Confidence: 85%", 0.85),
        ("confidence (0-100): 85", 0.85),
        ("Probability that it is right = 0.7", 0.7),
        ("I see 3 dogs and 2 cats.\nConfidence: 60%", 0.6),
        ("My first confidence is 20%, but on reflection my confidence is 70%.", 0.7),
        ("Between 0% and others.\nCertainty: about 40 %", 0.4),
        ("confidence\u202e: 30%", 0.3),
    ],
)
def test_a_stated_probability_is_read(text: str, value: float) -> None:
    assert stated_probability(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "high",
        "I cannot say.",
        "70-80%",
        "70%-80%",
        "between 70% and 80%",
        "120%",
        "-5%",
        "850",
        "There are 3 dogs.",
        "3 dogs, confidence high",
        "Confidence: 90-95%",
        "Confidence: -5%",
        "0-100%",
        "1e2%",
        "12345678901234567890%",
        "\u0669\u0660x",
        "one of them",
        "nan%",
        "two hundred percent",
    ],
)
def test_anything_else_is_unreadable(text: str) -> None:
    assert stated_probability(text) is None


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("Likely", "likely"),
        ("it is UNLIKELY.", "unlikely"),
        ("Almost\ncertain", "almost certain"),
        ("About even, I think.", "about even"),
        ("very likely", "likely"),
        ("likely, likely", "likely"),
        ("highly doubtful", "highly doubtful"),
        ("not likely", None),
        ("not very likely", None),
        ("it isn't likely", None),
        ("almost certainly not", None),
        ("likely or unlikely", None),
        ("doubtful", None),
        ("likelihood", None),
        ("", None),
    ],
)
def test_a_phrase_of_the_scale_is_read(text: str, phrase: str | None) -> None:
    found = stated_phrase(text, SCALE)
    assert (None if found is None else SCALE[found]) == phrase


@pytest.mark.parametrize(
    ("text", "guesses"),
    [
        ("red, blue, green", ["red", "blue", "green"]),
        ("1. red\n2. blue\n3. green", ["red", "blue", "green"]),
        ("- red\n- blue", ["red", "blue"]),
        ("G1: red\nG2: blue", ["red", "blue"]),
        ("Guess 1: red; Guess 2: blue", ["red", "blue"]),
        ("4, 3, 5", ["4", "3", "5"]),
        ("1,000, 20", ["1,000", "20"]),
        ("red", ["red"]),
        ("a, b,, c", ["a", "b", "c"]),
        ("G is it", ["G is it"]),
        ("", []),
        (" ,\n; ", []),
    ],
)
def test_listed_guesses_are_read(text: str, guesses: list[str]) -> None:
    assert [g.text for g in stated_guesses(text, with_probabilities=False)] == guesses


@pytest.mark.parametrize(
    ("text", "guesses"),
    [
        ("red: 60%\nblue: 30%", [("red", 0.6), ("blue", 0.3)]),
        ("1. **red** (60%)\n2) blue - 30 %", [("red", 0.6), ("blue", 0.3)]),
        ("red 60%, blue 30%, green 10%", [("red", 0.6), ("blue", 0.3), ("green", 0.1)]),
        ("G1: red\nP1: 60%\nG2: blue\nP2: 0.3", [("red", 0.6), ("blue", 0.3)]),
        ("red, probability: 0.6", [("red", 0.6)]),
        ("Paris, France: 60%", [("Paris, France", 0.6)]),
        ("3: 60%\n2: 40%", [("3", 0.6), ("2", 0.4)]),
        ("3\n2", [("3", None), ("2", None)]),
        ("red: 160%", [("red", None)]),
        ("60%", []),
        ("P1: 60%", []),
        ("", []),
    ],
)
def test_guesses_with_probabilities_are_read(
    text: str, guesses: list[tuple[str, float | None]]
) -> None:
    found = stated_guesses(text, with_probabilities=True)
    assert [g.text for g in found] == [text for text, _ in guesses]
    for guess, (_, probability) in zip(found, guesses, strict=True):
        assert guess.probability == (None if probability is None else pytest.approx(probability))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: a cat\nConfidence: 80%", Guess("a cat", 0.8)),
        ("It has 2 ears.\nFinal answer: **a cat**\nConfidence: 80", Guess("a cat", 0.8)),
        ("Answer: a dog\nNo.\nAnswer: a cat (80%)", Guess("a cat", 0.8)),
        ("Answer: 3\nConfidence: 80%", Guess("3", 0.8)),
        ("Answer and Confidence (0-100): a cat, 80%", Guess("a cat", 0.8)),
        ("a cat, 80%", Guess("a cat", 0.8)),
        ("Answer: a cat", Guess("a cat", None)),
        ("Answer: a cat\nConfidence: high", Guess("a cat", None)),
    ],
)
def test_an_answer_with_its_confidence_is_read(text: str, expected: Guess) -> None:
    (found,) = answer_with_confidence(text)
    assert found.text == expected.text
    assert found.probability == (
        None if expected.probability is None else pytest.approx(expected.probability)
    )


def test_no_answer_is_made_up() -> None:
    assert answer_with_confidence("") == []
    assert answer_with_confidence("I see a cat.\nIt may be a dog.") == []


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    value = stated_probability(text)
    assert value is None or 0.0 <= value <= 1.0
    assert stated_phrase(text, SCALE) in (None, *range(len(SCALE)))
    listed = [*stated_guesses(text, with_probabilities=True), *answer_with_confidence(text)]
    for guess in listed:
        assert guess.probability is None or 0.0 <= guess.probability <= 1.0


@pytest.mark.parametrize(
    "text",
    [
        ":" * 100_000,
        "1 " * 50_000,
        "confidence " * 10_000,
        "answer: " * 20_000,
        "x" + " " * 100_000 + "y%",
        "\n" * 100_000,
        "9," * 50_000,
        "not likely " * 10_000,
        "ninety and " * 10_000,
    ],
    ids=range(9),
)
def test_long_hostile_replies_take_no_time(text: str) -> None:
    started = time.process_time()
    stated_probability(text)
    stated_phrase(text, SCALE)
    stated_guesses(text, with_probabilities=True)
    stated_guesses(text, with_probabilities=False)
    answer_with_confidence(text)
    assert time.process_time() - started < 0.5
