"""Reading short answers, by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.printing import printable
from sightline.core.text import (
    answer_form,
    canonical_answer,
    normalise_answer,
    parse_choice,
    parse_number,
    parse_yes_no,
)
from sightline.core.types import Example

PETS = ("a cat", "a dog", "a hot dog", "a horse")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  The cat. ", "cat"),
        ("a man and the dog", "man and dog"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("-5", "-5"),
        ("t-shirt", "t shirt"),
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("1,000 red/white", "1000 redwhite"),
        ("dont", "don't"),
        ("Don’t", "don't"),
        ("shed", "shed"),
        ("A", "a"),
        ("the", "the"),
        ("?", "?"),
        ("line\none\ttab", "line 1 tab"),
        ("$5.00", "$5.00"),
        ("-5 degrees", "-5 degrees"),
        ("U.S.", "us"),
    ],
)
def test_normalise_answer(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@given(st.text(max_size=60))
def test_normalising_leaves_no_space_or_capital_behind(text: str) -> None:
    out = normalise_answer(text)
    assert out == " ".join(out.split())
    assert out == out.lower()
    assert bool(out) == bool(text.strip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("\\boxed{B}", "B"),
        ("<s> (B) a dog</s>", "B"),
        ("Option B", "B"),
        ("B. a dog", "B"),
        ("(b", "B"),
        ("B: a dog", "B"),
        ("The answer is B", "B"),
        ("the correct answer is: (B) because A is a cat", "B"),
        ("Answer: b", "B"),
        ("I would choose B here", "B"),
        ("It shows B, as one sees", "B"),
        ("a dog", "B"),
        ("Dog.", "B"),
        ("It looks like a dog to me", "B"),
        ("It looks like a hot dog to me", "C"),
        ("A dog is on the left", "B"),
        ("The answer is not A but B", "B"),
        ("A is wrong, it is B", "B"),
        ("A or B", None),
        ("Both A and B", None),
        ("A. a cat\nB. a dog", None),
        ("a cat or a dog", None),
        ("E", None),
        ("The answer is E", None),
        ("", None),
        ("   ", None),
        ("I cannot tell", None),
        ("The picture is too dark", None),
        ("It is not A", None),
        ("Ball", None),
    ],
)
def test_parse_choice(text: str, expected: str | None) -> None:
    assert parse_choice(text, PETS) == expected


def test_an_option_text_that_is_shared_is_never_matched() -> None:
    numbers = ("Zero", "One", "Three", "Three")
    assert parse_choice("three", numbers) is None
    assert parse_choice("There are three of them", numbers) is None
    assert parse_choice("C", numbers) == "C"
    assert parse_choice("one", numbers) == "B"


def test_a_letter_inside_an_option_text_is_not_a_letter() -> None:
    vitamins = ("Vitamin A", "Vitamin B", "Vitamin D", "Vitamin C")
    assert parse_choice("Vitamin C", vitamins) == "D"
    assert parse_choice("It is vitamin C.", vitamins) == "D"
    assert parse_choice("C", vitamins) == "C"


def test_letters_beyond_z() -> None:
    many = tuple(f"option {i}" for i in range(30))
    assert parse_choice("AB", many) == "AB"
    assert parse_choice("The answer is AD", many) == "AD"
    assert parse_choice("AE", many) is None


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize("form", ["{}", "{}.", "({})", "The answer is {}.", "{}) this one"])
def test_every_letter_in_every_form(letter: str, form: str) -> None:
    assert parse_choice(form.format(letter), ("",) * 4) == letter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("yes, it is", "yes"),
        ("True", "yes"),
        ("No.", "no"),
        ("false", "no"),
        ("There is no dog", "no"),
        ("The man is not happy", "no"),
        ("It isn't", "no"),
        ("I would say yes", "yes"),
        ("yes and no", "yes"),
        ("It is yes or no", None),
        ("I cannot tell, not visible", None),
        ("", None),
        ("dog", None),
        ("know", None),
    ],
)
def test_parse_yes_no(text: str, expected: str | None) -> None:
    assert parse_yes_no(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", (3.0, "")),
        ("-2.5", (-2.5, "")),
        ("1,234,567.5", (1234567.5, "")),
        ("three", (3.0, "")),
        ("Twenty-one dogs", (21.0, "")),
        ("one hundred and five", (105.0, "")),
        ("two thousand three hundred", (2300.0, "")),
        ("3.5 million", (3500000.0, "")),
        ("45 %", (45.0, "%")),
        ("45 percent", (45.0, "%")),
        ("$12", (12.0, "")),
        ("5cm", (5.0, "cm")),
        ("5 metres", (5.0, "m")),
        ("none", (0.0, "")),
        ("There are 3, yes, 3.", (3.0, "")),
        ("1e3", (1000.0, "")),
        (".5", (0.5, "")),
        ("3 or 4", None),
        ("", None),
        ("many", None),
        ("someone", None),
        ("9" * 500, None),
    ],
)
def test_parse_number(text: str, expected: tuple[float, str] | None) -> None:
    assert parse_number(text) == expected


@given(st.integers(-(10**9), 10**9))
def test_an_integer_is_read_with_and_without_group_commas(value: int) -> None:
    assert parse_number(str(value)) == (value, "")
    assert parse_number(f"{value:,}") == (value, "")


@pytest.mark.parametrize(
    ("example", "form"),
    [
        (Example(id="1", question="?", choices=("x", "y")), "choice"),
        (Example(id="1", question="?", references=("A",)), "choice"),
        (Example(id="1", question="?", references=("a",)), "text"),
        (Example(id="1", question="?", references=("yes", "No")), "yes_no"),
        (Example(id="1", question="?", references=("3", "four")), "number"),
        (Example(id="1", question="?", references=("$3.50", "4 cm")), "number"),
        (Example(id="1", question="?", references=("3 dogs",)), "text"),
        (Example(id="1", question="Is it red?"), "yes_no"),
        (Example(id="1", question="Is it red or blue?"), "text"),
        (Example(id="1", question="True or False: it is."), "yes_no"),
        (Example(id="1", question="How many cars are there?"), "number"),
        (Example(id="1", question="What is this?"), "text"),
        (Example(id="1", question="Is it red?", references=("reddish",)), "text"),
    ],
)
def test_answer_form(example: Example, form: str) -> None:
    assert answer_form(example) == form


def test_canonical_answers_agree_across_wordings() -> None:
    choice = Example(id="1", question="?", choices=PETS)
    assert {canonical_answer(choice, t) for t in ("B", "(B) a dog", "a dog")} == {"B"}
    assert canonical_answer(choice, "The Sky!") == "sky"
    yes = Example(id="1", question="Is there a dog?")
    assert {canonical_answer(yes, t) for t in ("Yes.", "yes, there is", "True")} == {"yes"}
    count = Example(id="1", question="How many?", references=("2",))
    assert {canonical_answer(count, t) for t in ("2", "two", "There are 2 dogs")} == {"2"}
    letters = Example(id="1", question="BLINK", references=("A",))
    assert canonical_answer(letters, "B) the third") == "B"
    assert canonical_answer(letters, "A") == "A"
    free = Example(id="1", question="What is it?")
    assert canonical_answer(free, "The dog.") == canonical_answer(free, "dog") == "dog"


def test_printable_makes_terminal_controls_visible() -> None:
    hostile = "a\x1b[2Jb\x1b]52;c;aGk=\x07\n\u202ec\x9b1m\u2066\ufeff\x00\r\n[/foo]\ud800"
    out = printable(hostile)
    assert out == (
        "a\\x1b[2Jb\\x1b]52;c;aGk=\\x07 \\u202ec\\x9b1m\\u2066\\ufeff\\x00  [/foo]\\ud800"
    )
    assert out.isprintable()
    assert printable("naïve 猫 👩‍🚀") == "naïve 猫 👩‍🚀"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "!" * 1_000_000,
        "answer" + " " * 1_000_000,
        "A B " * 60_000,
        "9" * 1_000_000,
        "\\boxed{" * 140_000,
        "one hundred " * 80_000,
        "- " * 500_000,
        "((((" * 250_000,
    ],
    ids=lambda text: text[:8],
)
def test_a_megabyte_is_read_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    normalise_answer(text)
    parse_choice(text, PETS)
    parse_yes_no(text)
    parse_number(text)
    printable(text)
    assert time.perf_counter() - started < 10
