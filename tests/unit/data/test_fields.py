"""What a row means: questions, choices, answers by letter, text and index, and the rest."""

import math
import re
from pathlib import Path

import pytest

from sightline.core.errors import DataError, UsageError
from sightline.data.fields import ALIASES, check_columns, flatten_chat, interpret, shown


def read(row: dict, **columns: str):
    return interpret({"question": "q?", **row}, columns)


def test_a_plain_row():
    fields = read({"id": 5, "image": "a.png", "answer": "cat", "group": "g", "category": "animals"})
    assert fields.id == "5"
    assert fields.question == "q?"
    assert fields.images == ("a.png",)
    assert fields.choices is None
    assert fields.references == ("cat",)
    assert (fields.group, fields.question_type) == ("g", "animals")
    assert not fields.meta
    assert not fields.ignored


def test_the_first_recognised_name_wins_and_the_others_stay_in_meta():
    # Recorded outputs hold the model's answer beside the references.
    fields = read({"id": "x", "index": 3, "answer": "model's", "references": ["gold"]})
    assert fields.references == ("gold",)
    assert dict(fields.meta) == {"index": 3, "answer": "model's"}


def test_columns_can_be_renamed():
    fields = interpret(
        {"q": "why?", "gold": "so", "question": "unused"}, {"question": "q", "answer": "gold"}
    )
    assert (fields.question, fields.references) == ("why?", ("so",))
    assert dict(fields.meta) == {"question": "unused"}
    with pytest.raises(UsageError, match="unknown field 'answr'"):
        check_columns({"answr": "gold"})
    check_columns({"answer": "gold"})


def test_the_documentation_names_every_recognised_column():
    page = (Path(__file__).resolve().parents[3] / "docs" / "datasets.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    for field, names in ALIASES.items():
        assert table[field].startswith(", ".join(f"`{name}`" for name in names)), field


def test_context_goes_before_the_question_on_its_own_line():
    assert read({"hint": " look at the map "}).question == "look at the map\nq?"
    assert read({"hint": math.nan}).question == "q?"


@pytest.mark.parametrize("question", ["", "  \n", None, math.nan])
def test_a_row_without_a_question_is_refused(question):
    with pytest.raises(DataError, match="no question"):
        read({"question": question})


@pytest.mark.parametrize("question", [5, ["a"], {"a": 1}, b"x", True])
def test_a_question_that_is_no_text_is_refused(question):
    with pytest.raises(DataError, match="not text"):
        read({"question": question})


def test_long_questions_are_read_and_endless_ones_refused():
    assert len(read({"question": "x" * 100_000}).question) == 100_000
    with pytest.raises(DataError, match="over 1000000"):
        read({"question": "x" * 1_000_001})


CHOICES = ("red", "green", "blue")


@pytest.mark.parametrize(
    "columns",
    [
        {"choices": ["red", "green", "blue"]},
        {"options": ("red", " green ", "blue")},
        {"choices": {"A": "red", "B": "green", "C": "blue"}},
        {"choices": {"a": "red", "b": "green", "c": "blue", "d": None, "e": math.nan}},
        {"choices": '["red", "green", "blue"]'},
        {"choices": "['red', 'green', 'blue']"},
        {"A": "red", "B": "green", "C": "blue", "D": None, "E": ""},
        {"C": "blue", "A": "red", "B": "green"},
        {"choice_a": "red", "choice_b": "green", "choice_c": "blue"},
        {"option_A": "red", "option_B": "green", "option_C": "blue"},
    ],
)
@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B.", "b)", "green", " GREEN ", 1, 1.0, "1", ["B"], ["green"]]
)
def test_choices_and_answers_in_every_form(columns, answer):
    fields = read({**columns, "answer": answer})
    assert fields.choices == CHOICES
    assert fields.references == ("B",)
    assert not fields.meta


def test_labels_with_a_gap_become_letters_in_a_row():
    # MMBench leaves options out; the answer still names the row's own label.
    fields = read({"choices": {"A": "x", "C": "y", "E": "z"}, "answer": "E"})
    assert fields.choices == ("x", "y", "z")
    assert fields.references == ("C",)
    fields = read({"A": "x", "B": None, "C": "y", "answer": "C"})
    assert (fields.choices, fields.references) == (("x", "y"), ("B",))
    assert read({"A": "", "B": None, "C": math.nan, "answer": "x"}).choices is None
    with pytest.raises(DataError, match="at least 2"):
        read({"A": "x", "B": None, "C": None})
    assert read({"choices": {"1": "x", "2": "y"}, "answer": "2"}).references == ("B",)


def test_an_index_counts_the_blank_choices_that_are_left_out():
    row = {"choices": ["", "x", None, "y"]}
    assert read({**row, "answer": 1}).references == ("A",)
    assert read({**row, "answer": "3"}).references == ("B",)
    assert read({**row, "answer": "D"}).references == ("B",)
    for answer in (0, 2, "A"):
        with pytest.raises(DataError, match="none of the 2 choices"):
            read({**row, "answer": answer})


def test_a_label_of_the_row_wins_over_a_choice_that_reads_like_one():
    assert read({"choices": {"A": "B", "B": "A"}, "answer": "A"}).references == ("A",)
    with pytest.raises(DataError, match="both a letter and another choice"):
        read({"choices": ["B", "A"], "answer": "A"})
    assert read({"choices": ["A", "B"], "answer": "A"}).references == ("A",)


def test_the_text_of_several_choices_is_ambiguous_and_their_letter_is_not():
    row = {"choices": ["three", "two", "three"]}
    with pytest.raises(DataError, match="several choices"):
        read({**row, "answer": "three"})
    assert read({**row, "answer": "C"}).references == ("C",)


def test_integers_are_indices_unless_the_choices_are_numbers():
    assert read({"choices": ["1", "2", "3"], "answer": 1}).references == ("B",)
    assert read({"choices": [1, 2, 3], "answer": 1}).references == ("A",)
    assert read({"choices": ["1", "2", "3"], "answer": "1"}).references == ("A",)
    assert read({"choices": ["x", "y"], "answer": "0"}).references == ("A",)


@pytest.mark.parametrize("answer", ["D", "purple", 3, -1, 2.5, True, "99999999999999999999"])
def test_an_answer_that_is_no_choice_is_refused(answer):
    with pytest.raises(DataError, match="none of the 3 choices"):
        read({"choices": list(CHOICES), "answer": answer})


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (["only"], "at least 2"),
        ({"A": "x", "a": "y"}, "all different"),
        (["x", ["y"]], "not all of them text"),
        ("red, green", "not a list"),
        (7, "not a list"),
        (["x"] * 703, "at most 702"),
    ],
)
def test_choices_of_another_form_are_refused(choices, reason):
    with pytest.raises(DataError, match=reason):
        read({"choices": choices})


def test_no_choices_means_a_free_answer():
    for choices in (None, [], {}, ["", None], "[]"):
        assert read({"choices": choices, "answer": "x"}).choices is None


@pytest.mark.parametrize(
    ("answer", "references"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        (3, ("3",)),
        (2.0, ("2",)),
        (0.5, ("0.5",)),
        (True, ("yes",)),
        (["a", "a", "b"], ("a", "a", "b")),
        (["a", None, ""], ("a",)),
        ([{"answer": "a", "answer_id": 1}, {"answer": "b"}], ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ("['a', \"it's\"]", ("a", "it's")),
        ("[not a list", ("[not a list",)),
        ("[1, 2", ("[1, 2",)),
    ],
)
def test_references_of_free_answers(answer, references):
    assert read({"answer": answer}).references == references


def test_an_answer_of_another_type_is_refused():
    with pytest.raises(DataError, match="neither text nor a number"):
        read({"answer": [["a"]]})
    with pytest.raises(DataError, match="neither text nor a number"):
        read({"answer": b"x"})


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 1.5, True, b"x"])
def test_ids_and_groups_are_text_or_whole_numbers(value):
    with pytest.raises(DataError, match="the id is"):
        read({"id": value})
    with pytest.raises(DataError, match="the group is"):
        read({"group": value})


def test_whole_float_ids_are_written_as_integers():
    assert read({"id": 12.0}).id == "12"
    assert read({"id": " x "}).id == "x"


@pytest.mark.parametrize(
    ("row", "images"),
    [
        ({}, ()),
        ({"image": "a.png"}, ("a.png",)),
        ({"images": ["a", "b"]}, ("a", "b")),
        ({"image": '["a", "b"]'}, ("a", "b")),
        ({"image": "['a', 'b']"}, ("a", "b")),
        ({"image": {"bytes": b"x"}}, ({"bytes": b"x"},)),
        ({"image_2": "b", "image_10": "c", "image_1": "a", "image_3": None}, ("a", "b", "c")),
        ({"file_name": "a.png"}, ("a.png",)),
    ],
)
def test_images_in_every_form(row, images):
    assert read(row).images == images


@pytest.mark.parametrize("row", [{"image": None}, {"image": ""}, {"images": []}, {"image_1": None}])
def test_an_image_column_without_an_image_is_refused(row):
    with pytest.raises(DataError, match="the image is empty"):
        read(row)


def test_meta_keeps_scalars_and_names_what_it_cannot_keep():
    row = {"a": 1, "b": 0.5, "c": True, "d": "x", "e": None, "f": math.inf}
    fields = read({**row, "g": [1], "h": {"x": 1}, "i": 2**63, "j": "y" * 10_001, "k": b"z"})
    assert dict(fields.meta) == {"a": 1, "b": 0.5, "c": True, "d": "x"}
    assert fields.ignored == ("g", "h", "i", "j", "k")


def test_a_list_of_categories_is_ignored_not_fatal():
    fields = read({"category": ["a", "b"]})
    assert fields.question_type is None
    assert fields.ignored == ("category",)


BATCH = {
    "custom_id": "r1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
        ],
    },
    "answer": "cat",
}


def test_a_batch_row_becomes_a_question():
    fields = interpret(BATCH, {})
    assert fields.id == "r1"
    assert fields.question == "Be brief.\nWhat is it?"
    assert fields.images == ("data:image/png;base64,AA==",)
    assert fields.references == ("cat",)
    assert not fields.meta
    assert not fields.ignored


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "earlier"},
        {"role": "user", "content": [{"type": "video_url", "video_url": "x"}]},
        {"role": "user", "content": ["text"]},
        {"role": "user", "content": 5},
        {"role": "user", "content": {"type": "text"}},
        {"content": "no role"},
        "text",
        None,
    ],
)
def test_messages_of_another_form_are_refused(message):
    with pytest.raises(DataError, match="a message"):
        flatten_chat({"messages": [message]})


def test_a_row_with_a_question_is_no_batch_row():
    row = {"question": "q", "messages": ["what the annotators wrote"]}
    assert flatten_chat(row) == row


def test_shown_is_short_and_printable():
    text = shown("\x1b[2J\u202e" + "x" * 10_000)
    assert len(text) <= 60
    assert text.isprintable()
    assert len(shown({"k": "v" * 10_000})) <= 60
