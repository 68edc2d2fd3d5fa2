"""Lists of conditions from the command line and from YAML."""

from __future__ import annotations

import pytest

from sightline.core.errors import UsageError
from sightline.data.condition_lists import read_conditions
from sightline.data.perturbations import BANKS, Condition, parse_conditions


def names(source) -> list[str]:
    return [condition.name for condition in read_conditions(source)]


def test_names_are_read_from_text_lists_and_banks():
    assert names("jpeg:3, rotate:30 ,wording:1") == ["jpeg:3", "rotate:30", "wording:1"]
    assert names(["jpeg:3", "jpeg:03"]) == ["jpeg:3"]
    for bank in BANKS:
        assert names(bank) == [c.name for c in parse_conditions(bank)]


def test_a_file_lists_names_families_with_levels_and_compositions(tmp_path):
    path = tmp_path / "conditions.yaml"
    path.write_text(
        "# what the camera does\n- overlays\n- rotate: [-30, 30]\n- wording: 1\n"
        "- scale_pad: black\n- jpeg:3+rotate:30\n- scale: 0.9\n- blank\n"
    )
    for source in (path, str(path), f" {path} "):
        assert names(source) == [
            *(f"{family}:{i}" for family in ("text", "text_random", "text_box") for i in (1, 2, 3)),
            *("rotate:-30", "rotate:30", "wording:1", "scale_pad:black", "jpeg:3+rotate:30"),
            *("scale:0.9", "blank"),
        ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "NoneType"),
        ("jpeg:3", "str"),
        ("conditions: [jpeg:3]", "dict"),
        ("- [jpeg:3]", "entry 1"),
        ("- jpeg: 3\n- {rotate: 30, jpeg: 2}", "entry 2"),
        ("- jpeg: {level: 3}", "entry 1"),
        ("- jpeg: []", "entry 1"),
        ("- jpeg: true", "entry 1"),
        ("- jpeg:", "entry 1"),
        ("- 3: jpeg", "entry 1"),
        ("- null", "entry 1"),
        ("- 17", "entry 1"),
        ("[]", "empty"),
        ("- ''", "empty"),
        ("- jpg:3", "jpeg"),
        ("- jpeg: 9", "9"),
        ("- jpeg: [3", "YAML"),
        ("- !!python/object/apply:os.system ['true']", "YAML"),
        ("- &a [*a]", "entry 1"),
        ("- \x00", "YAML"),
        ("- " + "[" * 3000, "YAML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, words):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_conditions(path)
    said = str(error.value)
    assert str(path) in said
    assert words in said
    assert len(said.splitlines()) == 1
    assert len(said) < 600


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path / "folder.yaml", tmp_path / "bytes.yaml"):
        if path.stem == "folder":
            path.mkdir()
        if path.stem == "bytes":
            path.write_bytes(b"- \xff\xfe")
        with pytest.raises(UsageError, match=path.name) as error:
            read_conditions(path)
        assert len(str(error.value).splitlines()) == 1
    (tmp_path / "large.yaml").write_bytes(b"- jpeg:1\n" * 200_000)
    with pytest.raises(UsageError, match="1000000 bytes"):
        read_conditions(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    "text",
    [
        *("jpeg", "jpeg:3+rotate", "+", "jpeg:3+", ":", "jpeg:", "jpeg:nan", "rotate:inf"),
        *("jpeg:3:4", "jpeg:level=3", "blank:1", "JPEG:3", "jpeg 3", "clean+jpeg:3", "none"),
        *("\x1b[2Jjpeg:3", "jpeg:3;rm -rf", "../../etc", "jpeg:" + "9" * 5000, "wording:0"),
        *("crop:-4", "pad:1e9", "translate:1.5", "🙂", "jpeg:３"),
    ],
)
def test_hostile_names_are_one_line_or_a_condition_of_the_bank(text):
    found, said = outcome(text)
    assert len(said.splitlines()) == (0 if found else 1)
    for condition in found:
        assert read_conditions(condition.name) == (condition,)


def outcome(text: str) -> tuple[tuple[Condition, ...], str]:
    try:
        return read_conditions(text), ""
    except UsageError as error:
        return (), str(error)
