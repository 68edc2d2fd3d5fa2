"""sightline perturbations: the bank as text and JSON, and a sheet of pictures."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from sightline.cli import cli
from sightline.core.errors import ImageError, UsageError
from sightline.data.contact_sheet import contact_sheet
from sightline.data.perturbations import BANKS, CONTROLS, PERTURBATIONS, parse_conditions, prepared


def run(*args):
    result = CliRunner().invoke(cli, ["perturbations", *map(str, args)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.effect_noise((90, 60), 60).convert("RGB").save(path)
    return path


def test_the_whole_bank_is_listed_with_strengths_and_kept_answers():
    said = run()
    for condition in parse_conditions(list(PERTURBATIONS)):
        assert f"\n{condition.name} " in said
    for bank in BANKS:
        assert f"\n{bank} " in "\n" + said
    assert "rotate                 color, count" in said
    assert "unrelated:1 " in said
    assert said.count("(a control)") == len(CONTROLS["unrelated"].levels)
    assert not any(line.endswith(" ") for line in said.splitlines())


def test_json_is_one_document():
    document = json.loads(
        run("--json", "--conditions", "jpeg:3+rotate:30,answer_text:1", "--size", "100X50")
    )
    first, second = document["conditions"]
    assert first["name"] == "jpeg:3+rotate:30"
    assert list(first["steps"]) == ["jpeg:3", "rotate:30"]
    assert first["steps"]["jpeg:3"] == {
        "value": 15,
        "unit": "quality",
        "pixels": None,
        "share": None,
    }
    assert second["needs_answer"]
    assert document["size"] == [100, 50]
    assert document["answers_kept"]["blank"] == []


def test_a_picture_by_itself(photo, tmp_path):
    out = tmp_path / "sheets" / "a.png"
    said = run("--conditions", "rotate,answer_text:1", "--preview", out, "--image", photo)
    assert said.splitlines()[0] == str(out)
    with Image.open(photo) as image:
        want = contact_sheet(prepared(image.convert("RGB")), parse_conditions("rotate"))
    with Image.open(out) as sheet:
        assert sheet.size == want.size
        assert sheet.tobytes() == want.tobytes()
    document = json.loads(
        run(*("--conditions", "rotate,wording:1,answer_text:1", "--preview", tmp_path / "b.png"),
            "--image", photo, "--json")
    )  # fmt: skip
    assert document["left_out"] == {
        "wording:1": "it changes the question, not the picture",
        "answer_text:1": "it depends on the model's answer: give --data and --answer",
    }
    assert document["truths"] == {}


def test_a_picture_without_room_for_a_text_shows_everything_else(tmp_path):
    photo, out = tmp_path / "dot.png", tmp_path / "a.png"
    Image.new("RGB", (1, 1), "red").save(photo)
    document = json.loads(run("--preview", out, "--image", photo, "--json"))
    left = {name: why for name, why in document["left_out"].items() if name.startswith("text:")}
    assert left.keys() == {"text:1", "text:2", "text:3"}
    assert all("the picture has 1 x 1" in why for why in left.values())
    named = "jpeg:1,text:1,translate:4,blur:5"
    run("--conditions", named, "--preview", out, "--image", photo, "--overwrite")
    with Image.open(out) as sheet:
        assert sheet.width == 4 * 152 + 8  # the clean picture and the three that exist


def test_an_example_shows_what_is_decided_of_its_answer(tmp_path):
    out = tmp_path / "a.png"
    args = ("--conditions", "jpeg:1,crop:16,wording:5", "--preview", out, "-d", "scenes:test?n=3")
    document = json.loads(run(*args, "--json"))
    assert document["truths"]["jpeg:1"] == "same"
    assert set(document["truths"]) == {"jpeg:1", "crop:16"}
    assert "other wordings" in document["left_out"]["wording:5"]
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 152 + 8, 144 + 32 + 16)
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        run(*args)
    run(*args, "--overwrite")


def test_an_option_is_named_by_its_letter_or_its_text(tmp_path, photo):
    data = tmp_path / "data.csv"
    data.write_text(
        'id,image,question,answers,choices\nq,photo.jpg,Which?,A,"[""cat"", ""dog""]"\n'
    )
    sheets = []
    for i, answer in enumerate(("A", "cat", "B")):
        out = tmp_path / f"{i}.png"
        args = ("--conditions", "answer_text:1", "--preview", out, "-d", data, "--answer", answer)
        assert json.loads(run(*args, "--json"))["left_out"] == {}
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]
    with pytest.raises(UsageError, match=r"--answer 'bird' names none of the options"):
        run(*args[:-1], "bird", "--overwrite")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--conditions", "jpg"], "jpeg"),
        (["--conditions", ""], "empty"),
        (["--size", "336"], "--size"),
        (["--size", "0x5"], "--size"),
        (["--size", "x" * 90], "--size"),
        (["--image", "x.jpg"], "--preview"),
        (["--sample-id", "x"], "--sample-id without --preview"),
        (["--preview", "a.png"], "Neither"),
        (["--preview", "a.png", "--image", "x", "--data", "y"], "Both"),
        (["--preview", "a.jpg", "--image", "x", "--conditions", "jpeg"], "no .png"),
        (["--preview", "a.png", "--image", "absent.jpg", "--conditions", "jpeg"], "absent.jpg"),
    ],
)
def test_bad_usage_is_one_line(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        run(*args)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"x\.jpg"):
        run("--preview", tmp_path / "a.png", "--image", tmp_path / "x.jpg")
