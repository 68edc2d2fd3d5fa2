"""Published benchmarks in their own layout: what is asked, what is left out, what is refused."""

import base64
import contextlib
import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import DataError, UsageError
from sightline.core.records import link
from sightline.core.types import Generation, Record
from sightline.data.benchmarks import BENCHMARKS, is_benchmark
from sightline.data.examples import Dataset, load_dataset
from sightline.data.fields import interpret
from sightline.data.images import load_image
from sightline.data.readers import Row
from sightline.grading.graders import Auto
from sightline.store.images import image_writer

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "benchmarks"
COCO = FIXTURES / "aokvqa" / "coco"


@pytest.fixture
def load(tmp_path):
    writer = image_writer(tmp_path / "run")

    def run(source: str, **settings: object) -> Dataset:
        return load_dataset(source, store_image=writer, **settings)

    return run


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def rewritten(path: Path, change) -> Path:
    """The JSON lines of a file with each row changed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        change(i, row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reasons(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row.where, row.reason) for row in dataset.rejected]


def test_pope_is_one_file_of_lines_with_cocos_images(load):
    dataset = load(f"pope:{FIXTURES}/pope/coco_pope_random.json")
    assert dataset.name == "pope:coco_pope_random.json"
    assert (len(dataset.examples), dataset.rejected, dict(dataset.left_out)) == (16, (), {})
    assert dataset.notes == ()
    first = dataset.examples[0]
    assert first.id == "random-1"
    assert first.question == "Is there a triangle in the image?"
    assert (first.references, first.choices, first.question_type) == (("yes",), None, "existence")
    assert dict(first.meta) == {"negatives": "random"}
    assert Path(first.images[0].path).parent == FIXTURES / "pope" / "val2014"
    assert [e.references[0] for e in dataset.examples].count("yes") == 8
    groups = {e.group for e in dataset.examples}
    assert len(groups) == 4
    assert all([e.group for e in dataset.examples].count(group) == 4 for group in groups)
    assert load_image(first.images[0], FIXTURES).size == (48, 48)


def test_a_folder_of_pope_has_every_setting_and_one_group_per_image(load):
    dataset = load(f"pope:{FIXTURES}/pope")
    ids = [example.id for example in dataset.examples]
    assert len(set(ids)) == 32
    assert {i.partition("-")[0] for i in ids} == {"random", "adversarial"}
    assert len({example.group for example in dataset.examples}) == 4
    assert reasons(dataset) == []


def test_popes_images_may_lie_elsewhere(load, tmp_path):
    path = tmp_path / "coco_pope_popular.json"
    shutil.copy(FIXTURES / "pope" / "coco_pope_random.json", path)
    for images in (FIXTURES / "pope", FIXTURES / "pope" / "val2014"):
        dataset = load(f"pope:{path}", images=images)
        assert [example.id for example in dataset.examples][:1] == ["popular-1"]
        assert len(dataset.examples) == 16
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (tmp_path / "mine.json").write_text(json.dumps(rows))  # a list, with no setting in its name
    own = load(f"pope:{tmp_path}/mine.json", images=FIXTURES / "pope").examples[0]
    assert (own.id, dict(own.meta)) == ("1", {})


def test_seedbench_asks_its_image_dimensions(load):
    dataset = load(f"seedbench:{FIXTURES}/seedbench/SEED-Bench.json")
    assert len(dataset.examples) == 8
    assert dict(dataset.left_out) == {"of the data_type 'video', not 'image'": 3}
    assert dataset.notes == (
        "Left out of seedbench:SEED-Bench.json by its own rules: 3 × of the data_type 'video', "
        "not 'image'.",
    )
    colour, count = dataset.examples[:2]
    assert colour.question_type == "Instance Attributes"
    assert (colour.choices, colour.references) == (("white", "green", "red", "blue"), ("D",))
    assert count.question_type == "Instances Counting"
    assert count.references == ("C",)
    assert colour.group == count.group
    assert Path(colour.images[0].path).name == "100_25911110"


def test_mmbench_drops_circular_copies_unless_asked(load):
    source = f"mmbench:{FIXTURES}/mmbench/mmbench_dev.tsv"
    dataset = load(source)
    assert [example.id for example in dataset.examples] == ["200", "201", "202", "203"]
    rule = "a circular copy of another question (circular=keep asks it)"
    assert dict(dataset.left_out) == {rule: 4}
    first = dataset.examples[0]
    assert first.question == "Look at the whole image.\nWhich shape is in the image?"
    assert first.choices == ("triangle", "circle", "square")
    assert first.question_type == "object_localization"
    assert dict(first.meta) == {"l2-category": "finegrained_perception"}
    kept = load(f"{source}?circular=keep")
    assert kept.name.endswith("mmbench_dev.tsv?circular=keep")
    assert len(kept.examples) == 8
    assert len({example.group for example in kept.examples}) == 4
    assert kept.notes == ()


def test_circular_copies_are_rotations_of_one_question(load):
    dataset = load(f"mmbench:{FIXTURES}/mmbench/mmbench_dev.tsv?circular=keep")
    records = [Record(example, greedy=Generation("A")) for example in dataset.examples]
    for record in link(records, condition="clean"):
        (other,) = record.related.rotations
        assert int(other.example.id) % 1_000_000 == int(record.example.id) % 1_000_000
        right = [dict(zip(r.example.letters, r.example.choices, strict=True))
                 [r.example.references[0]] for r in (record, other)]  # fmt: skip
        assert right[0] == right[1]


def test_mmmu_asks_multiple_choice_of_one_split(load):
    dataset = load(f"mmmu:{FIXTURES}/mmmu")
    assert [example.id for example in dataset.examples] == [
        "validation_Art_Theory_1",
        "validation_Math_1",
        "validation_Math_3",
    ]
    assert dict(dataset.left_out) == {"not a multiple-choice question": 1}
    first, _, both = dataset.examples
    assert first.choices == ("a circle", "a square", "a triangle", "a cross")
    assert (first.references, first.question_type) == (("D",), "Art Theory")
    assert first.question == "Which shape does <image 1> show?"
    assert len(both.images) == 2
    assert both.choices == ("<image 1>", "<image 2>")
    single = load(f"mmmu:{FIXTURES}/mmmu?images=one")
    assert len(single.examples) == 2
    assert single.left_out["with several images (images=any asks them)"] == 1
    hidden = load(f"mmmu:{FIXTURES}/mmmu?split=test")
    assert [example.references for example in hidden.examples] == [()]
    assert [e.id for e in load(f"mmmu:{FIXTURES}/mmmu/Math?split=dev").examples] == ["dev_Math_1"]


def test_mmmu_reads_arrow_as_well_as_parquet(load, tmp_path):
    table = pq.read_table(FIXTURES / "mmmu/Math/validation-00000-of-00001.parquet")
    stream = tmp_path / "saved" / "validation" / "data-00000-of-00001.arrow"
    stream.parent.mkdir(parents=True)
    with pa.ipc.new_stream(str(stream), table.schema) as sink:
        sink.write_table(table)
    framed = tmp_path / "mmmu-validation.arrow"
    with pa.ipc.new_file(str(framed), table.schema) as sink:
        sink.write_table(table)
    by_parquet = load(f"mmmu:{FIXTURES}/mmmu/Math")
    for source in (f"mmmu:{tmp_path}/saved", f"mmmu:{framed}"):
        again = load(source)
        assert again.examples == by_parquet.examples
        assert again.left_out == by_parquet.left_out


def test_aokvqa_as_multiple_choice(load):
    dataset = load(f"aokvqa:{FIXTURES}/aokvqa/aokvqa_v1p0_val.json", images=COCO)
    assert len(dataset.examples) == 4
    assert dataset.left_out == {}
    first = dataset.examples[0]
    assert first.choices == ("red", "blue", "green", "white")
    assert (first.references, first.question_type) == (("B",), None)
    assert Path(first.images[0].path) == COCO / "val2017" / "000000000001.jpg"
    assert Auto().grade(first, Generation("B")) == 1
    hidden = load(f"aokvqa:{FIXTURES}/aokvqa/aokvqa_v1p0_test.json", images=COCO).examples[0]
    assert hidden.references == ()
    assert Path(hidden.images[0].path).parent.name == "test2017"


def test_aokvqa_with_direct_answers_is_graded_as_vqa(load):
    source = f"aokvqa:{FIXTURES}/aokvqa/aokvqa_v1p0_val.json?form=direct"
    dataset = load(source, images=COCO)
    assert len(dataset.examples) == 3
    assert dict(dataset.left_out) == {"marked as difficult to answer directly": 1}
    first = dataset.examples[0]
    assert first.choices is None
    assert first.references == ("blue",) * 8 + ("dark",) * 2
    assert Auto().grade(first, Generation("blue")) == 1
    assert Auto().grade(first, Generation("dark")) == pytest.approx(0.6)
    assert Auto().grade(first, Generation("red")) == 0


def test_vizwiz_keeps_ten_answers_of_equal_weight(load):
    dataset = load(f"vizwiz:{FIXTURES}/vizwiz/val.json")
    assert dataset.examples[0].id == "VizWiz_val_00000000"
    last = dataset.examples[-1]
    assert (last.question_type, dict(last.meta)) == ("unanswerable", {"answerable": 0})
    assert len(last.references) == 10
    assert Auto().grade(last, Generation("Unanswerable")) == 1
    assert Auto().grade(last, Generation(last.references[-1])) == pytest.approx(0.9)
    fewer = load(f"vizwiz:{FIXTURES}/vizwiz/val.json?unanswerable=drop")
    assert len(fewer.examples) == 3
    assert dict(fewer.left_out) == {"not answerable (unanswerable=keep asks it)": 1}
    hidden = load(f"vizwiz:{FIXTURES}/vizwiz/test.json")
    assert [example.references for example in hidden.examples] == [(), ()]
    assert Path(hidden.examples[0].images[0].path).parent.name == "test"


def test_a_row_that_breaks_costs_that_row(load, tmp_path):
    folder = copied("pope", tmp_path)
    (folder / "val2014" / "broken.jpg").write_bytes(b"not an image")

    def change(i: int, row: dict) -> None:
        values = {
            0: {"image": "gone.jpg"},
            1: {"image": "../../secret.jpg"},
            2: {"image": "/etc/hostname"},
            3: {"label": "maybe"},
            4: {"question_id": 6},
            6: {"image": ""},
            7: {"image": "http://example.org/a.jpg"},
            8: {"text": ""},
        }
        row.update(values.get(i, {}))
        if i == 9:
            del row["label"]

    path = rewritten(folder / "coco_pope_random.json", change)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    dataset = load(f"pope:{path}")
    found = dict(reasons(dataset))
    assert len(dataset.examples) == 7
    assert "gone.jpg' does not exist" in found["line 1"]
    assert "leads out of the image folder" in found["line 2"]
    assert "leads out of the image folder" in found["line 3"]
    assert found["line 4"] == "the label is 'maybe', neither 'yes' nor 'no'"
    assert found["line 6"] == "the id 'random-6' is that of line 5"
    assert (
        found["line 7"] == "the image is empty; leave the column out for questions without images"
    )
    assert "images are never downloaded" in found["line 8"]
    assert found["line 9"] == "no question"
    assert found["line 10"] == ("no column 'label' of POPE, only 'question_id', 'image', 'text'")


def test_base64_that_is_none_costs_that_row(load, tmp_path):
    path = tmp_path / "mmbench.tsv"
    with (FIXTURES / "mmbench/mmbench_dev.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[::2]
    rows[0]["image"] = "@@@@ no base64 @@@@"
    rows[1]["image"] = base64.b64encode(b"not an image at all" * 9).decode()
    rows[2]["image"] = ""
    extra = [
        rows[3] | {"index": "300", "A": "", "B": "", "C": "", "D": ""},
        rows[3] | {"index": "301", "image": "999"},
        rows[3] | {"index": "302", "image": str([rows[3]["image"]] * 2)},
        rows[3] | {"index": "x1"},
        rows[3] | {"index": "303", "answer": "E"},
    ]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter="\t")
        table.writeheader()
        table.writerows(rows + extra)
    dataset = load(f"mmbench:{path}")
    found = dict(reasons(dataset))
    assert [example.id for example in dataset.examples] == ["203", "302"]
    assert len(dataset.examples[1].images) == 2
    assert found["line 2"] == "the image is not valid base64"
    assert found["line 3"] == "the embedded image is none of JPEG, PNG, WEBP, GIF"
    assert found["line 4"] == "the image is empty"
    assert found["line 6"] == "0 options that are not empty, not 2"
    assert found["line 7"] == "the image '999' is neither a file nor the id of a row with one"
    assert found["line 9"] == "the index is 'x1', not a whole number"
    assert "none of the 4 choices" in found["line 10"]


def test_values_of_the_wrong_kind_cost_that_row(load, tmp_path):
    seed = json.loads((FIXTURES / "seedbench/SEED-Bench.json").read_text())
    seed["questions"][0]["question_type_id"] = [5]
    seed["questions"][1]["question_type_id"] = 17
    seed["questions"][2]["data_type"] = None
    seed["questions"][3] = "a question"
    path = copied("seedbench", tmp_path) / "SEED-Bench.json"
    path.write_text(json.dumps(seed))
    dataset = load(f"seedbench:{path}")
    assert [reason for _, reason in reasons(dataset)] == [
        "the question_type_id [5] is none of 1 to 9",
        "the question_type_id 17 is none of 1 to 9",
        "a JSON str instead of an object",
    ]
    assert dataset.left_out["of the data_type None, not 'image'"] == 1

    rows = json.loads((FIXTURES / "aokvqa/aokvqa_v1p0_val.json").read_text())
    rows[0]["image_id"] = None
    rows[1]["correct_choice_idx"] = 4
    rows[2]["choices"] = "none"
    rows[3]["image_id"] = 99
    (tmp_path / "val.json").write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        load(f"aokvqa:{tmp_path}/val.json", images=COCO)
    assert "line 1" not in str(caught.value)
    assert "the image_id is None, no number; 4 rejected in all" in str(caught.value)

    rows = json.loads((FIXTURES / "aokvqa/aokvqa_v1p0_val.json").read_text())
    rows[0]["direct_answers"] = rows[0]["direct_answers"][:3]
    rows[1]["direct_answers"] = "blue"
    (tmp_path / "val.json").write_text(json.dumps(rows))
    dataset = load(f"aokvqa:{tmp_path}/val.json?form=direct", images=COCO)
    assert [reason for _, reason in reasons(dataset)] == [
        "3 direct answers, not 10",
        "0 direct answers, not 10",
    ]

    answers = json.loads((FIXTURES / "vizwiz/val.json").read_text())
    answers[0]["answers"] = answers[0]["answers"][:9]
    answers[1]["answers"] = "many"
    path = copied("vizwiz", tmp_path) / "val.json"
    path.write_text(json.dumps(answers))
    dataset = load(f"vizwiz:{path}")
    assert [reason for _, reason in reasons(dataset)] == [
        "9 answers, not 10",
        "0 answers, not 10",
    ]


def test_mmmu_refuses_images_that_are_not_there(load, tmp_path):
    table = pq.read_table(FIXTURES / "mmmu/Math/validation-00000-of-00001.parquet")
    rows = table.to_pylist()
    rows[0] |= {"question": "What does <image 2> show?"}
    rows[1] |= {"question_type": "multiple-choice", "options": "['a']"}
    rows[2] |= {"id": "no split"}
    rows.append(rows[2] | {"id": "validation_Math_9", "image_1": None, "image_2": None})
    path = tmp_path / "validation.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(DataError) as caught:
        load(f"mmmu:{path}")
    assert "row 1: the text names <image 2>, and the images are [1]" in str(caught.value)
    rows[0] |= {"question": "What?"}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    dataset = load(f"mmmu:{path}")
    assert dict(dataset.left_out) == {"fewer than 2 options": 1, "without an image": 1}
    assert reasons(dataset) == [("row 3", "the id 'no split' names no split and subject")]
    rows[1] |= {"options": "['a', 'b"}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    assert reasons(load(f"mmmu:{path}"))[0] == (
        "row 2",
        "the options are \"['a', 'b\", not a list",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pope:q.json", "", "has no rows"),
        ("pope:q.json", "\n\n", "has no rows"),
        ("pope:q.json", "{broken", "no usable row (line 1: not JSON"),
        ("pope:q.json", "[{broken", "is not JSON"),
        ("pope:q.json", '{"a": 1}', "no column 'question_id' of POPE, only 'a'"),
        ("seedbench:q.json", "{}", "a list of objects, or one list under"),
        ("seedbench:q.json", "", "is not JSON"),
        ("seedbench:q.json", '{"questions": []}', "has no rows"),
        ("mmbench:q.tsv", "", "has no rows"),
        ("mmbench:q.tsv", "index\tquestion\tA\n1\tq\ta\n", "no column 'B' of MMBench"),
        ("mmmu:q.parquet", "PAR1", "is not a readable Parquet file"),
        ("mmmu:q.arrow", "ARROW1", "is not a readable Arrow file"),
        ("mmmu:q.arrow", "", "is not a readable Arrow file"),
        ("aokvqa:q.json", '{"rows": [{"question_id": 1}]}', "no column 'question' of A-OKVQA"),
        ("vizwiz:q.json", '[{"image": "a.jpg"}]', "no column 'question' of VizWiz"),
        ("vizwiz:q.txt", "x", "unknown suffix '.txt'"),
    ],
)
def test_a_file_that_is_none_ends_in_one_line(load, tmp_path, name, content, message):
    kind, _, file = name.partition(":")
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError) as caught:
        load(f"{kind}:{tmp_path}/{file}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("pope:{tmp}/none.json", DataError, "does not exist"),
        ("pope:", UsageError, "names no file"),
        ("pope:{tmp}", DataError, "no file named …pope_random.json"),
        ("mmmu:{tmp}", DataError, "none of them of the split validation"),
        ("vizwiz:{tmp}", DataError, "is a folder"),
        ("pope:{tmp}/q.json?split=val", UsageError, "POPE knows no settings"),
        ("mmmu:{tmp}?split=train", UsageError, "MMMU knows split=validation|dev|test, images="),
        ("aokvqa:{tmp}/q.json?form=", UsageError, "form=choices|direct"),
    ],
)
def test_a_source_that_cannot_be_opened(load, tmp_path, source, error, message):
    with pytest.raises(error) as caught:
        load(source.format(tmp=tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_that_keep_no_row_are_said(load):
    path = FIXTURES / "mmmu/Math/dev-00000-of-00001.parquet"
    with pytest.raises(DataError) as caught:
        load(f"mmmu:{path}")
    assert "no row that its rules keep (1 × of the split dev, not validation)" in str(caught.value)


def test_columns_of_a_benchmark_are_not_renamed(load):
    with pytest.raises(UsageError, match="the columns of a benchmark are known"):
        load(f"pope:{FIXTURES}/pope", columns={"question": "text"})


def test_a_limit_takes_the_first_questions(load):
    dataset = load(f"seedbench:{FIXTURES}/seedbench/SEED-Bench.json", limit=3)
    assert len(dataset.examples) == 3
    assert dataset.partial == "--limit 3: the first 3"
    assert dataset.left_out == {}  # its videos come later, and were not read


def test_what_is_read_does_not_depend_on_where_it_lies(load, tmp_path):
    folder = copied("pope", tmp_path)
    assert load(f"pope:{folder}").sha256 == load(f"pope:{FIXTURES}/pope").sha256


def test_only_the_names_of_benchmarks_are_theirs():
    assert set(BENCHMARKS) == {"seedbench", "mmbench", "mmmu", "pope", "aokvqa", "vizwiz"}
    assert is_benchmark("pope:a.json")
    assert not any(
        map(is_benchmark, ("pope", "scenes:test", "hf://pope", "./pope.json", "popes:a"))
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["image", "validation_Math_1", "multiple-choice", "['a', 'b']", "yes", "5"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["answer", "bytes", "path", "x"]), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("name", list(BENCHMARKS))
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_value_in_any_column_is_a_row_or_a_reason(name, data):
    benchmark = BENCHMARKS[name]
    columns = [column for either in benchmark.columns for column in either.split("|")]
    columns += ["answers", "answerable", "choices", "correct_choice_idx", "direct_answers", "hint"]
    columns += ["difficult_direct_answer", "category", "image_2", "C", "split"]
    fields = data.draw(st.fixed_dictionaries(dict.fromkeys(columns, JSON)))
    chosen = {key: data.draw(st.sampled_from(v)) for key, v in benchmark.settings.items()}
    row = benchmark.read(Row("line 1", fields), chosen)
    assert row.where == "line 1"
    if row.error is None and row.left_out is None:
        with contextlib.suppress(DataError):  # the row's reason; anything else fails the test
            found = interpret(row.fields, {})
            assert found.images or isinstance(row.fields["image_id"], int)
            assert found.choices is None or len(found.choices) >= 2
    else:
        assert len(row.error or row.left_out) < 300
