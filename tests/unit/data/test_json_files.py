"""JSON files: VQA v2's two, their images, and the limit on what is held in memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.core.errors import DataError
from sightline.data import json_files
from sightline.data.examples import load_dataset
from sightline.data.json_files import annotations_beside, json_items, parse_json
from sightline.grading import GRADERS

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
VOTES = ["net", "net", "net", "netting", "net", "net", "mesh", "net", "net", "net"]


def questions(*image_ids: int, subtype: str = "val2014") -> dict[str, Any]:
    return {
        "info": {"version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "data_subtype": subtype,
        "questions": [
            {"image_id": i, "question": f"What is on {i}?", "question_id": 1000 * i}
            for i in image_ids
        ],
    }


def annotations(*image_ids: int, subtype: str = "val2014") -> dict[str, Any]:
    return {
        "info": {"version": "2.0"},
        "data_type": "mscoco",
        "data_subtype": subtype,
        "annotations": [
            {
                "question_type": "what is",
                "multiple_choice_answer": "net",
                "answers": [
                    {"answer": vote, "answer_confidence": "maybe", "answer_id": n}
                    for n, vote in enumerate(VOTES, start=1)
                ],
                "image_id": i,
                "answer_type": "other",
                "question_id": 1000 * i,
            }
            for i in image_ids
        ],
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def photos(folder: Path, *image_ids: int, name: str = "COCO_val2014") -> None:
    folder.mkdir(exist_ok=True)
    for i in image_ids:
        data = io.BytesIO()
        Image.new("RGB", (8, 8), (i, 0, 0)).save(data, "PNG")
        (folder / f"{name}_{i:012d}.png").write_bytes(data.getvalue())


def test_vqa_as_it_is_distributed(tmp_path: Path) -> None:
    """Questions, answers and pictures lie side by side; only the questions are named."""
    path = write(tmp_path / QUESTIONS, questions(42, 7))
    write(tmp_path / ANNOTATIONS, annotations(7, 42, 99))
    photos(tmp_path / "val2014", 7, 42)
    dataset = load_dataset(path)
    assert dataset.rejected == ()
    assert [example.id for example in dataset.examples] == ["42000", "7000"]
    first = dataset.examples[0]
    assert first.question == "What is on 42?"
    assert first.references == tuple(VOTES)
    assert first.question_type == "what is"
    assert first.meta["answer_type"] == "other"
    assert Path(first.images[0].path).name == "COCO_val2014_000000000042.png"
    from sightline.core.types import Generation

    assert GRADERS["auto"].grade(first, Generation("A net.")) == 1.0
    assert GRADERS["auto"].grade(first, Generation("mesh")) == pytest.approx(0.3)


@pytest.mark.parametrize("folder", ["val2014", "", "photos"])
def test_vqa_images_lie_in_the_folder_of_the_part_beside_or_where_one_says(
    tmp_path: Path, folder: str
) -> None:
    path = write(tmp_path / QUESTIONS, questions(7))
    photos(tmp_path / folder, 7)
    dataset = load_dataset(path, images=tmp_path / "photos" if folder == "photos" else None)
    assert len(dataset.examples[0].images) == 1
    assert dataset.examples[0].references == ()


def test_the_images_of_test_dev_are_those_of_test(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", questions(7, subtype="test-dev2015"))
    photos(tmp_path / "test2015", 7, name="COCO_test2015")
    assert len(load_dataset(path).examples[0].images) == 1


def test_a_vqa_question_is_never_asked_without_its_picture(tmp_path: Path) -> None:
    path = write(tmp_path / QUESTIONS, questions(7, 8))
    photos(tmp_path / "val2014", 7)
    dataset = load_dataset(path)
    assert [example.id for example in dataset.examples] == ["7000"]
    (rejected,) = dataset.rejected
    assert rejected.where == "row 2"
    assert "val2014 have the image_id 8" in rejected.reason
    assert "--images" in rejected.reason
    with pytest.raises(DataError, match=r"no usable row \(row 1: 0 files in [^\n]*--images"):
        load_dataset(write(tmp_path / "other.json", questions(9)))


@pytest.mark.parametrize("subtype", ["../up", "/etc", "", "a/b", "x" * 5000, "\x00"])
def test_a_part_cannot_name_a_folder_elsewhere(tmp_path: Path, subtype: str) -> None:
    data = tmp_path / "data"
    photos(tmp_path / "up", 7)
    photos(data, 7)
    photos(data / "a", 7)
    dataset = load_dataset(write(data / "q.json", questions(7, subtype=subtype)))
    assert Path(dataset.examples[0].images[0].path).parent == data.resolve()


def test_a_folder_of_a_part_may_not_lead_out(tmp_path: Path) -> None:
    photos(tmp_path / "elsewhere", 7)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "val2014").symlink_to(tmp_path / "elsewhere")
    path = write(tmp_path / "data" / QUESTIONS, questions(7))
    with pytest.raises(DataError, match="leads out of the image folder"):
        load_dataset(path)
    folder = tmp_path / "data" / "val2014"
    assert len(load_dataset(path, images=folder).examples[0].images) == 1


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        (QUESTIONS, ANNOTATIONS),
        ("MultipleChoice_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
        ("OpenEnded_x_questions.json", "OpenEnded_x_annotations.json"),
        ("questions.json", "annotations.json"),
    ],
)
def test_the_answers_are_found_by_name(tmp_path: Path, name: str, beside: str) -> None:
    assert annotations_beside(tmp_path / name) is None
    (tmp_path / beside).write_text("{}")
    assert annotations_beside(tmp_path / name) == tmp_path / beside


def test_a_name_without_questions_has_no_answers_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "OpenEnded_val.json", questions(7))
    write(tmp_path / "val.json", annotations(7))
    assert annotations_beside(path) is None


def test_questions_that_are_not_vqas_are_left_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "questions.json", {"questions": [{"question": "q"}, 5]})
    (tmp_path / "annotations.json").write_text("not JSON, and nobody's answers")
    assert list(json_items(path)) == [{"question": "q"}, 5]
    assert list(json_items(write(path, {"questions": []}))) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (annotations(8), "answers none of the questions of"),
        ({"annotations": {}}, "has no list under annotations"),
        ([], "has no list under annotations"),
    ],
)
def test_answers_of_another_kind_are_one_line(tmp_path: Path, content: Any, found: str) -> None:
    path = write(tmp_path / QUESTIONS, questions(7))
    write(tmp_path / ANNOTATIONS, content)
    with pytest.raises(DataError, match=rf"{ANNOTATIONS} {found}[^\n]*$"):
        list(json_items(path))


def test_damaged_answers_are_one_line_that_names_their_file(tmp_path: Path) -> None:
    path = write(tmp_path / QUESTIONS, questions(7))
    (tmp_path / ANNOTATIONS).write_text('{"annotations": [')
    with pytest.raises(DataError, match=f"{ANNOTATIONS} is not JSON"):
        list(json_items(path))


def test_odd_votes_are_kept_as_they_are() -> None:
    build = json_files._votes_as_texts
    vote = {"answer": "a", "answer_confidence": "yes", "answer_id": 1}
    assert parse_json(json.dumps([vote]), build) == ["a"]
    odd = [vote | {"answer": 3}, vote | {"more": 1}, {"answer": "a"}]
    assert parse_json(json.dumps(odd), build) == odd


def test_a_json_file_too_large_to_hold_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "q.json", questions(7))
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", path.stat().st_size)
    assert len(list(json_items(path))) == 1
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"bytes; a JSON file is read whole[^\n]*JSONL[^\n]*$"):
        list(json_items(path))
