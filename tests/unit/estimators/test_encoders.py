"""Sentence vectors: unit length, one per text, near for paraphrases and far for other meanings."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.data.scenes import generate
from sightline.estimators.encoders import ENCODERS, ContentWords, SentenceEncoder, content_words
from sightline.metrics.discrimination import auroc

FRAMES = ("Well, {x}.", "I'd go with {x}", "Definitely {x}", "The correct response is {x}")
BARE = ("{x}",) * len(FRAMES)
TYPES = ("color", "shape", "count", "position", "digit", "existence", "comparison", "description")


def cosine(left: str, right: str) -> float:
    vectors = ContentWords().embed([left, right])
    return float(vectors[0] @ vectors[1])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("two", "There are 2"),
        ("yes , there is", "Yes!"),
        ("no , there is not", "It must be no."),
        ("a big red circle", "the circle that is red and big"),
        ("two dogs", "2 dog"),
        ("top left", "in the left top"),
    ],
)
def test_the_same_meaning_has_the_same_vector(left: str, right: str) -> None:
    assert cosine(left, right) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("yes , there is", "no , there is not"),
        ("two", "three"),
        ("two", "there are three"),
        ("there is a red dog", "there is no red dog"),
        ("cat", "dog"),
    ],
)
def test_another_meaning_is_far(left: str, right: str) -> None:
    assert abs(cosine(left, right)) < 0.15


def test_shared_words_count_in_part() -> None:
    assert 0.55 < cosine("big red circle", "big red square") < 0.8


@given(st.lists(st.text(max_size=30), max_size=6))
def test_every_text_has_one_unit_vector_that_no_other_text_changes(texts: list[str]) -> None:
    vectors = ContentWords().embed(texts)
    assert vectors.shape == (len(texts), 512)
    assert np.allclose((vectors**2).sum(1), 1.0)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(ContentWords().embed([text])[0], vector)


def test_a_text_without_words_is_itself() -> None:
    assert content_words("") == ("",)
    assert content_words("!!!") == ("!!!",)
    assert content_words("the") == ("the",)


def test_a_negation_with_nothing_behind_it_is_no() -> None:
    assert content_words("I guess not") == ("no",)


def test_the_table_holds_encoders() -> None:
    assert all(isinstance(encoder, SentenceEncoder) for encoder in ENCODERS.values())


def test_paraphrases_in_unknown_frames_rank_above_other_answers() -> None:
    random = Random(0)
    items: dict[str, list] = {}
    for item in generate("test", 300, 9, 4, types=TYPES).items:
        items.setdefault(item.question_type, []).append(item)
    left: list[str] = []
    right: list[str] = []
    same = []
    for members in items.values():
        for item in members:
            other = random.choice(members)
            alike = bool({*other.references} & {*item.references})
            for partner, meaning in ((item, True), (other, alike)):
                left.append(random.choice(FRAMES + BARE).format(x=random.choice(item.references)))
                right.append(
                    random.choice(FRAMES + BARE).format(x=random.choice(partner.references))
                )
                same.append(meaning)
    vectors = ContentWords().embed([*left, *right])
    cosines = (vectors[: len(left)] * vectors[len(left) :]).sum(1)
    assert auroc(cosines, np.array(same, dtype=float)) >= 0.95
