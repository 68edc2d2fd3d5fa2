"""Pictures of other questions, drawn for the control: by the question and the plan alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sightline.core.errors import UsageError
from sightline.core.types import Example, ImageRef
from sightline.data.label_preservation import decide
from sightline.data.perturbations import (
    BANKS,
    CONTROLS,
    PERTURBATIONS,
    parse_condition,
    parse_conditions,
)
from sightline.data.unrelated import unrelated_pictures


def refs(*names: str) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(f"{name}.png", f"{name:0<64}") for name in names)


def asked(name: str, *pictures: str, group: str | None = None) -> Example:
    return Example(id=name, question="What is it?", images=refs(*pictures), group=group or name)


PLAN = [
    *(asked(f"q{i}", f"p{i // 2}", group=f"g{i // 4}") for i in range(40)),
    *(asked(f"two{i}", f"a{i}", f"b{i}") for i in range(5)),
    Example(id="text", question="What is it?"),
]


def test_a_drawn_picture_is_of_another_group_and_content_and_of_as_many_files():
    found = unrelated_pictures(PLAN, 3)
    by_hash = {example.images: example for example in PLAN}
    for example in PLAN[:-1]:
        drawn = found[example.id]
        assert len(drawn) == len(set(drawn)) == 3
        for pictures in drawn:
            assert len(pictures) == len(example.images)
            assert not {p.sha256 for p in pictures} & {p.sha256 for p in example.images}
            assert by_hash[pictures].group != example.group
    assert "text" not in found


def test_the_draw_depends_on_neither_order_nor_how_many_are_asked_for():
    whole = unrelated_pictures(PLAN, 3)
    mixed = PLAN.copy()
    random.Random(0).shuffle(mixed)
    assert unrelated_pictures(mixed, 3) == whole
    first = unrelated_pictures(PLAN, 1)
    assert {name: own[:1] for name, own in whole.items()} == first


def test_the_draw_spreads_over_the_pictures():
    plan = [asked(f"q{i}", f"p{i}") for i in range(400)]
    counts = Counter(own[0] for own in unrelated_pictures(plan, 1).values())
    assert len(counts) > 200  # 1 - 1/e of 400 by chance: 253
    assert max(counts.values()) < 10


def test_one_content_in_several_files_is_one_picture():
    plan = [
        Example(id="a", question="?", images=(ImageRef("x.png", "1" * 64),), group="a"),
        Example(id="b", question="?", images=(ImageRef("y.png", "1" * 64),), group="b"),
    ]
    assert unrelated_pictures(plan, 1) == {}
    plan.append(Example(id="c", question="?", images=(ImageRef("z.png", "2" * 64),), group="c"))
    assert unrelated_pictures(plan, 2)["c"] == ((ImageRef("x.png", "1" * 64),),)
    assert unrelated_pictures(plan[::-1], 2)["c"] == ((ImageRef("x.png", "1" * 64),),)


def test_fewer_where_there_are_fewer_and_none_in_one_group():
    plan = [asked(f"q{i}", f"p{i}") for i in range(3)]
    assert {len(own) for own in unrelated_pictures(plan, 9).values()} == {2}
    together = [asked(f"q{i}", f"p{i}", group="all") for i in range(3)]
    assert unrelated_pictures(together, 1) == {}
    assert unrelated_pictures(plan, 0) == {}
    half = [asked("a", "shared", "own"), asked("b", "shared", "other")]
    assert unrelated_pictures(half, 1) == {"a": (), "b": ()}  # they share a file


def test_the_control_is_in_the_bank_and_no_perturbation():
    condition = parse_condition("unrelated:2")
    assert condition.is_control
    assert condition.name == "unrelated:2"
    assert condition.kind not in {entry.kind for entry in PERTURBATIONS.values()}
    assert [c.name for c in parse_conditions("unrelated")] == [f"unrelated:{i}" for i in (1, 2, 3)]
    assert parse_condition("unrelated:7").is_control
    assert CONTROLS.keys().isdisjoint(PERTURBATIONS)
    own = [c.name for c in parse_conditions("default") if c.is_control]
    assert own == ["unrelated:1"]
    for name in BANKS.keys() - {"default"}:
        assert not any(c.is_control for c in parse_conditions(name))
    assert decide(condition, asked("a", "p"), preserving=("unrelated:2",)).truth == "unknown"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unrelated", "family:level is required"),
        ("unrelated:0", "1 or more is required"),
        ("unrelated:one", "unrelated"),
        ("unrelated:1+jpeg:3", "stands alone"),
        ("wording:1+unrelated:1", "stands alone"),
        ("unrelated:1+unrelated:2", "stands alone"),
    ],
)
def test_names_that_cannot_be_are_refused_in_one_line(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_condition(name)
    assert "\n" not in str(caught.value)


def test_the_control_is_not_made_of_the_questions_own_picture():
    from PIL import Image

    with pytest.raises(UsageError, match="another question's picture"):
        parse_condition("unrelated:1").apply(Image.new("RGB", (8, 8)))
