"""Loading datasets: every source, ids, groups, images in every form, limits and the hash."""

import base64
import csv
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.core.errors import DataError, MissingExtraError, UsageError
from sightline.data.examples import Dataset, load_dataset
from sightline.data.images import decode, load_image
from sightline.store.images import image_writer

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


def png(shade: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(out, format="PNG")
    return out.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def jsonl(folder: Path, *rows: dict, name: str = "q.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reasons(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row.where, row.reason) for row in dataset.rejected]


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def test_a_jsonl_with_images_beside_it(photos):
    path = jsonl(
        photos,
        {"id": "a", "image": "0.png", "question": "q?", "choices": ["x", "y"], "answer": "y"},
        {"id": "b", "image": "none.png", "question": "q?"},
        {"id": "a", "image": "1.png", "question": "q?"},
        {"id": "c", "image": ["1.png", "2.png"], "question": "r?", "n": 3, "list": [1]},
    )
    dataset = load_dataset(path)
    first, second = dataset.examples
    assert dataset.name == "q.jsonl"
    assert dataset.partial is None
    assert (first.id, first.choices, first.references) == ("a", ("x", "y"), ("B",))
    assert [ref.sha256 for ref in second.images] == [sha(png(1)), sha(png(2))]
    assert Path(first.images[0].path) == photos.resolve() / "0.png"
    assert dict(second.meta) == {"n": 3}
    assert dict(dataset.ignored) == {"list": 1}
    assert [where for where, _ in reasons(dataset)] == ["line 2", "line 3"]
    assert "does not exist" in dataset.rejected[0].reason
    assert dataset.rejected[1].reason == "the id 'a' is that of line 1"
    assert np.asarray(load_image(first.images[0], photos))[0, 0].tolist() == [0, 0, 0]


def test_the_images_folder_can_be_another(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = jsonl(elsewhere, {"id": 1, "image": "1.png", "question": "q"})
    assert load_dataset(path, images=photos).examples[0].images[0].sha256 == sha(png(1))
    with pytest.raises(UsageError, match="not a folder"):
        load_dataset(path, images=photos / "0.png")


def test_rows_without_an_id_get_one_from_what_they_ask(photos):
    rows = [
        {"image": "0.png", "question": "q"},
        {"image": "1.png", "question": "q"},
        {"image": "0.png", "question": "r"},
        {"image": "0.png", "question": "q", "choices": ["a", "b"]},
        {"image": "0.png", "question": "q"},
    ]
    dataset = load_dataset(jsonl(photos, *rows))
    ids = [example.id for example in dataset.examples]
    assert len(set(ids)) == 4
    assert all(len(i) == 16 for i in ids)
    assert [where for where, _ in reasons(dataset)] == ["line 5"]
    again = load_dataset(jsonl(photos, *reversed(rows), name="r.jsonl"))
    assert {example.id for example in again.examples} == set(ids)


def test_rows_that_share_an_image_share_a_group(photos):
    (photos / "copy.png").write_bytes(png(0))
    dataset = load_dataset(
        jsonl(
            photos,
            {"id": 1, "image": "0.png", "question": "q"},
            {"id": 2, "image": "copy.png", "question": "q"},
            {"id": 3, "images": ["copy.png", "1.png"], "question": "q"},
            {"id": 4, "image": "1.png", "question": "q"},
            {"id": 5, "image": "2.png", "question": "q"},
            {"id": 6, "image": "2.png", "question": "q", "group": "mine"},
            {"id": 7, "question": "no image"},
        )
    )
    groups = {example.id: example.group for example in dataset.examples}
    assert groups["1"] == groups["2"] == groups["3"] == groups["4"]
    assert groups["5"] not in (groups["1"], "mine")
    assert groups["6"] == "mine"
    assert groups["7"] == "7"


def test_embedded_images_are_written_and_referenced(tmp_path):
    encoded = base64.b64encode(png(5)).decode()
    path = jsonl(
        tmp_path,
        {"id": 1, "image": f"data:image/png;base64,{encoded}", "question": "q"},
        {"id": 2, "image": encoded, "question": "q"},
        {"id": 3, "image": {"url": f"data:image/png;base64,{encoded}"}, "question": "q"},
    )
    dataset = load_dataset(path, store_image=image_writer(tmp_path / "run"))
    (ref,) = {image for example in dataset.examples for image in example.images}
    assert len(dataset.examples) == 3
    assert ref.path == f"images/{sha(png(5))}.png"
    assert (tmp_path / "run" / ref.path).read_bytes() == png(5)
    with pytest.raises(DataError, match="no folder was given"):
        load_dataset(path)


def test_a_benchmark_tsv_with_base64_images_and_references_to_other_rows(tmp_path):
    path = tmp_path / "bench.tsv"
    encoded = base64.b64encode(png(1)).decode()
    other = base64.b64encode(png(2)).decode()
    rows = [
        ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category"],
        ["2", "1", "before its image", "", "x", "y", "", "", "A", "c1"],
        ["1", encoded, "two\nlines", "a hint", "x", "y", "z", "", "B", "c1"],
        ["3", f"['{encoded}', '{other}']", "several", "", "x", "y", "z", "w", "D", "c2"],
        ["4", "1", "answer is no option", "", "x", "y", "", "", "C", "c2"],
        ["5", "99", "row 99 is not there", "", "x", "y", "", "", "A", "c2"],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    dataset = load_dataset(path, store_image=image_writer(tmp_path / "run"))
    first, second, third = dataset.examples
    assert [example.id for example in dataset.examples] == ["2", "1", "3"]
    assert first.images == second.images
    assert second.question == "a hint\ntwo\nlines"
    assert (second.choices, second.references) == (("x", "y", "z"), ("B",))
    assert third.question_type == "c2"
    assert [ref.sha256 for ref in third.images] == [sha(png(1)), sha(png(2))]
    assert first.group == third.group
    assert reasons(dataset) == [
        ("line 6", "the answer 'C' is none of the 2 choices"),
        ("line 7", "the image '99' is neither a file nor the id of a row with one"),
    ]


def test_a_file_named_like_a_number_is_a_file(tmp_path):
    (tmp_path / "7").write_bytes(png(7))
    path = jsonl(tmp_path, {"id": "x", "image": "7", "question": "q"})
    assert load_dataset(path).examples[0].images[0].sha256 == sha(png(7))


def test_parquet_with_images_as_the_hub_writes_them(photos):
    table = pa.table(
        {
            "question": ["q", "r", "s"],
            "image": [
                {"bytes": png(9), "path": "original.png"},
                {"bytes": None, "path": "0.png"},
                {"bytes": None, "path": None},
            ],
            "options": [["x", "y"], ["x", "y"], ["x", "y"]],
            "answer": [0, 1, 0],
        }
    )
    pq.write_table(table, photos / "q.parquet")
    dataset = load_dataset(photos / "q.parquet", store_image=image_writer(photos / "run"))
    assert [e.images[0].sha256 for e in dataset.examples] == [sha(png(9)), sha(png(0))]
    assert [e.references for e in dataset.examples] == [("A",), ("B",)]
    assert reasons(dataset)[0][0] == "row 3"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_image_folder_with_metadata(photos, form):
    rows = [{"file_name": f"{i}.png", "question": f"q{i}", "answer": "x"} for i in range(3)]
    if form == "jsonl":
        jsonl(photos, *rows, name="metadata.jsonl")
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), photos / "metadata.parquet")
    else:
        with (photos / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    dataset = load_dataset(photos)
    assert dataset.name == photos.name
    assert [e.images[0].sha256 for e in dataset.examples] == [sha(png(i)) for i in range(3)]


def test_every_format_gives_the_same_dataset(photos):
    rows = [
        {"id": f"r{i}", "image": f"{i}.png", "question": f"q{i}", "answer": "yes", "group": "g"}
        for i in range(3)
    ]
    jsonl(photos, *rows)
    (photos / "q.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), photos / "q.parquet")
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (photos / f"q{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    loaded = [
        load_dataset(photos / f"q{suffix}")
        for suffix in (".jsonl", ".json", ".parquet", ".csv", ".tsv")
    ]
    assert len({repr(dataset.examples) for dataset in loaded}) == 1
    assert len({dataset.sha256 for dataset in loaded}) == 1


def test_a_pope_question_file(photos):
    path = jsonl(photos, {"question_id": 1, "image": "0.png", "text": "Is it?", "label": "yes"})
    (example,) = load_dataset(path).examples
    assert (example.id, example.question, example.references) == ("1", "Is it?", ("yes",))


def test_vqa_images_are_found_by_number(tmp_path):
    folder = tmp_path / "val2014"
    folder.mkdir()
    (folder / "COCO_val2014_000000000042.png").write_bytes(png(4))
    (folder / "a_7.png").write_bytes(png(5))
    (folder / "b_0007.png").write_bytes(png(6))
    content = {
        "questions": [
            {"image_id": 42, "question_id": 420, "question": "What?"},
            {"image_id": 43, "question_id": 430, "question": "What?"},
            {"image_id": 7, "question_id": 70, "question": "What?"},
        ],
        "annotations": [
            {
                "question_id": 420,
                "question_type": "what",
                "answers": [{"answer": a, "answer_id": i} for i, a in enumerate("aab")],
            }
        ],
    }
    (tmp_path / "vqa.json").write_text(json.dumps(content))
    dataset = load_dataset(tmp_path / "vqa.json", images=folder)
    (example,) = dataset.examples
    assert example.images[0].sha256 == sha(png(4))
    assert (example.id, example.references) == ("420", ("a", "a", "b"))
    assert example.question_type == "what"
    assert [reason[:7] for _, reason in reasons(dataset)] == ["0 files", "2 files"]


def test_an_openai_batch_file(tmp_path):
    encoded = base64.b64encode(png(3)).decode()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
    ]
    row = {"custom_id": "r", "body": {"messages": [{"role": "user", "content": content}]}}
    path = jsonl(tmp_path, {**row, "method": "POST", "url": "/v1/chat/completions"})
    (example,) = load_dataset(path, store_image=image_writer(tmp_path)).examples
    assert (example.id, example.question) == ("r", "What is it?")
    assert example.images[0].sha256 == sha(png(3))
    assert decode((tmp_path / example.images[0].path).read_bytes()).size == (16, 16)


def test_limits_take_the_first_and_say_so(photos):
    path = jsonl(photos, *({"id": i, "image": "0.png", "question": "q"} for i in range(10)))
    for limit, count in ((3, 3), (0.25, 3), (1, 1), (0.01, 1), (2.0, 2)):
        dataset = load_dataset(path, limit=limit)
        assert [e.id for e in dataset.examples] == [str(i) for i in range(count)]
        assert dataset.partial == f"--limit {limit:g}: the first {count}"
    for limit in (10, 11, 1.0, None):
        assert len(load_dataset(path, limit=limit).examples) == 10
        assert load_dataset(path, limit=limit).partial is None
    for limit in (0, -1, 1.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--limit"):
            load_dataset(path, limit=limit)


def test_a_limit_stops_reading_early_and_gives_the_same_examples(photos):
    rows = [{"id": i, "image": f"{i % 3}.png", "question": f"q{i}"} for i in range(20)]
    rows.append({"id": "bad", "image": "none.png", "question": "q"})
    path = jsonl(photos, *rows)
    whole, part = load_dataset(path), load_dataset(path, limit=4)
    assert part.examples == whole.examples[:4]
    assert len(whole.rejected) == 1
    assert not part.rejected


def test_a_limit_waits_for_images_that_later_rows_hold(tmp_path):
    encoded = base64.b64encode(png(1)).decode()
    path = jsonl(
        tmp_path,
        {"id": 1, "image": 9, "question": "q"},
        *({"id": i, "image": encoded, "question": "q"} for i in range(2, 12)),
    )
    dataset = load_dataset(path, limit=1, store_image=image_writer(tmp_path))
    assert dataset.examples[0].images[0].sha256 == sha(png(1))


def test_sample_ids_choose_examples(photos):
    path = jsonl(photos, *({"id": i, "image": "0.png", "question": "q"} for i in range(5)))
    dataset = load_dataset(path, sample_ids=["3", "1"])
    assert [e.id for e in dataset.examples] == ["1", "3"]
    assert dataset.partial == "--sample-id: 2 of 5"
    assert load_dataset(path, sample_ids=["3", "1"], limit=1).examples[0].id == "1"
    with pytest.raises(UsageError, match="no usable example '9'"):
        load_dataset(path, sample_ids=["1", "9"])


def test_the_hash_covers_what_examples_say_and_not_where_files_lie(photos, tmp_path_factory):
    row = {"id": 1, "image": "0.png", "question": "q", "answer": "x", "note": "n"}
    whole = load_dataset(jsonl(photos, row)).sha256
    moved = tmp_path_factory.mktemp("moved")
    (moved / "sub").mkdir()
    (moved / "sub" / "renamed.png").write_bytes(png(0))
    assert load_dataset(jsonl(moved, {**row, "image": "sub/renamed.png"})).sha256 == whole
    for change in (
        {"id": 2},
        {"image": "1.png"},
        {"question": "r"},
        {"answer": "y"},
        {"note": "m"},
        {"group": "g"},
        {"category": "t"},
        {"choices": ["x", "y"]},
    ):
        assert load_dataset(jsonl(photos, {**row, **change})).sha256 != whole, change


def test_scenes_are_generated_into_the_store(tmp_path):
    write = image_writer(tmp_path)
    dataset = load_dataset("scenes:test?n=7&seed=3", store_image=write)
    assert len(dataset.examples) == 7
    assert dataset.name == "scenes:test?n=7&seed=3"
    assert dataset.partial is None
    assert load_image(dataset.examples[0].images[0], tmp_path).mode == "RGB"
    again = load_dataset("scenes:test?n=7&seed=3", store_image=write)
    assert again.sha256 == dataset.sha256
    assert load_dataset("scenes:test?n=7&seed=4", store_image=write).sha256 != dataset.sha256
    typed = load_dataset("scenes:test?n=7&types=color,count*3", store_image=write)
    assert {example.question_type for example in typed.examples} == {"color", "count"}
    with pytest.raises(UsageError, match="'colour'"):
        load_dataset("scenes:test?n=7&types=colour", store_image=write)


def test_a_limit_cuts_the_scenes_and_says_so(tmp_path):
    write = image_writer(tmp_path)
    dataset = load_dataset("scenes:test", limit=5, store_image=write)
    assert (len(dataset.examples), dataset.partial) == (5, "--limit 5: the first 5")
    whole = load_dataset("scenes:test?n=5", limit=5, store_image=write)
    assert (whole.partial, whole.examples) == (None, dataset.examples)
    dataset = load_dataset("scenes:test?n=6", limit=5, store_image=write)
    assert (len(dataset.examples), dataset.partial) == (5, "--limit 5: the first 5")


@pytest.mark.parametrize(
    "source", ["scenes:none", "scenes:test?m=1", "scenes:test?n=-1", "scenes:"]
)
def test_scenes_that_do_not_exist_are_refused(tmp_path, source):
    with pytest.raises(UsageError):
        load_dataset(source, store_image=image_writer(tmp_path))
    with pytest.raises(UsageError, match="store_image"):
        load_dataset("scenes:test?n=1")


def test_a_hub_name_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sightline\[datasets\]'"):
        load_dataset("hf://org/name?split=test")
    with pytest.raises(UsageError, match="'splt'"):
        load_dataset("hf://org/name?splt=test")


def test_a_hub_dataset_from_a_local_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the datasets extra is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    table = pa.table(
        {"image": [{"bytes": png(1), "path": None}], "question": ["q"]},
        schema=features.arrow_schema,
    )
    (tmp_path / "d").mkdir()
    pq.write_table(table, tmp_path / "d" / "test-00000-of-00001.parquet")
    source = f"hf://{tmp_path / 'd'}?split=test"
    (example,) = load_dataset(source, store_image=image_writer(tmp_path)).examples
    assert example.images[0].sha256 == sha(png(1))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside the repository")
def test_real_recorded_files_load_as_datasets():
    mmbench = load_dataset(SHARED / "ensec_mmbench.jsonl")
    assert len(mmbench.examples) == 2223  # one model's rows; the other models repeat the ids
    assert {row.reason.split("'")[0] for row in mmbench.rejected} == {"the id "}
    assert len({e.group for e in mmbench.examples}) == 600
    docvlm = load_dataset(SHARED / "docvlm_images.jsonl", columns={"image": "image_ref"})
    assert len(docvlm.examples) == 295
    assert load_image(docvlm.examples[0].images[0], SHARED).mode == "RGB"
