"""Other words for the same question: the generator's own, or a frame around it."""

import re
from dataclasses import replace

import pytest

from sightline.core.errors import DataError
from sightline.core.types import Example
from sightline.data.perturb_truth import scene_of
from sightline.data.perturbations import parse_condition
from sightline.data.question_writers import WORDINGS
from sightline.data.questions import QUESTION_TYPES
from sightline.data.scene_answers import answer_to
from sightline.data.scenes import demo_examples
from sightline.data.wordings import FRAMES, Rewording, is_generated, taken_apart


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return demo_examples("test", 400, 1, folder, questions_per_image=6, types=QUESTION_TYPES)


def test_every_generated_question_is_taken_apart_and_put_together_again(examples):
    kinds = set()
    for example in examples:
        worded = taken_apart(example.question, str(example.meta["about"]))
        assert worded is not None
        assert worded.asked(worded.wording) == example.question
        kinds.add(worded.kind)
    assert kinds == WORDINGS.keys()


def test_no_wording_can_be_read_as_another_one_of_its_kind():
    words = {"x": "the red circle", "a": "the red circle", "b": "the cross", "r": "smaller"}
    for kind, wordings in WORDINGS.items():
        for number, wording in enumerate(wordings):
            text = wording.format(**words)
            worded = taken_apart(text[0].upper() + text[1:], kind)
            assert (worded.kind, worded.wording) == (kind, number)
            for name, value in worded.words:
                assert value == words[name]


def test_a_reworded_question_differs_and_has_the_same_answer_in_its_scene(examples):
    for example in examples:
        about = str(example.meta["about"])
        count = len(WORDINGS[taken_apart(example.question, about).kind]) - 1
        asked = {example.question}
        for level in range(1, count + 1):
            condition = parse_condition(f"wording:{level}")
            assert condition.refusal(example) is None
            reworded = condition.reword(example)
            asked.add(reworded.question)
            assert reworded == replace(example, question=reworded.question)
            picture = scene_of(example).picture
            answers = {
                answer_to(taken_apart(e.question, about), picture, e.choices)
                for e in (example, reworded)
            }
            assert len(answers) == 1
            assert scene_of(reworded) == scene_of(example)
        assert len(asked) == count + 1


def test_one_other_wording_is_one(examples):
    said = {parse_condition(f"wording:{level}").refusal(e) for level in (1, 2, 3) for e in examples}
    assert "the question has 1 other wording" in said


def test_a_generated_question_without_further_wordings_says_so(examples):
    yes_no = next(
        e for e in examples if e.question_type == "comparison" and e.references[0] in {"yes", "no"}
    )
    condition = parse_condition("wording:1")
    assert condition.refusal(yes_no) == "the question has 0 other wordings"
    with pytest.raises(DataError, match="0 other wordings"):
        condition.reword(yes_no)
    assert parse_condition("wording:3").refusal(examples[0]) is not None
    assert parse_condition("jpeg:3").refusal(yes_no) is None


@pytest.mark.parametrize("question", ["What is it?", "Name the animal", "Is it so?  ", "日本語は?"])
def test_frames_leave_the_words_of_any_other_question_as_they_are(question):
    example = Example("1", question, choices=("a", "b"), references=("A",))
    asked = set()
    for level in range(1, len(FRAMES) + 1):
        reworded = parse_condition(f"wording:{level}").reword(example)
        assert question.strip() in reworded.question
        assert replace(reworded, question=question) == example
        asked.add(reworded.question)
    assert len(asked) == len(FRAMES)
    assert Rewording(2).reword(Example("1", "Name it")).question.startswith("Name it\n")


def test_braces_and_markers_in_a_question_are_kept():
    question = "What is {question} in <image 1>?"
    for level in range(1, len(FRAMES) + 1):
        framed = Rewording(level).reword(Example("1", question)).question
        assert framed.count("{question}") == 1
        assert "<image 1>" in framed


def test_frames_say_nothing_that_could_answer():
    for frame in FRAMES:
        assert frame.count("{question}") == 1
        assert not re.search(r"\b(yes|no|not|only if|left|right|\d+)\b", frame.lower())


def test_rewording_leaves_pictures_and_other_conditions_leave_questions(examples):
    assert not parse_condition("wording:1").changes_image
    assert parse_condition("wording:1+jpeg:1").changes_image
    assert parse_condition("jpeg:1").reword(examples[0]) is examples[0]
    both = parse_condition("wording:1+pad:4")
    assert both.size((10, 10)) == (18, 18)
    assert both.magnitudes((10, 10))["wording:1"].pixels is None


def test_only_examples_that_say_so_are_generated(examples):
    assert is_generated(examples[0])
    assert not is_generated(Example("1", "What color is the circle?"))
