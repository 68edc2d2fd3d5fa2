"""RunStore: what is written is what is read, and what may not be done is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from run_plans import (
    LAYERS,
    N,
    assert_same_record,
    compared_bytes,
    make_examples,
    make_manifest,
    make_record,
    shard_rows,
    write_run,
)
from safetensors.numpy import load_file

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import (
    CorruptStoreError,
    DataError,
    MissingFeatureError,
    StoreError,
)
from sightline.core.features import ARRAY_AXES, LAYERED, Feature
from sightline.core.types import Example, Generation, Key, Quarantined, Record
from sightline.data.collected import Rejected
from sightline.store.run import RunStore


@pytest.fixture
def run(tmp_path: Path, written_run: Path) -> RunStore:
    shutil.copytree(written_run, tmp_path / "run")
    return RunStore.open(tmp_path / "run")


def test_reads_back_every_record_in_plan_order(run: RunStore) -> None:
    expected = shard_rows(make_examples())[0]
    stored = list(RunStore.open(run.path).records())
    assert [r.key for r in stored] == [r.key for r in expected]
    for one, two in zip(stored, expected, strict=True):
        assert_same_record(one, two)


def test_reads_back_examples_quarantined_rejected_and_manifest(tmp_path: Path) -> None:
    rejected = [Rejected("line 3", "no image\udc80"), Rejected("id q9", "twice")]
    store = RunStore.create(tmp_path / "r", make_manifest(), make_examples(), rejected=rejected)
    with store.writer() as writer:
        writer.commit(1, *shard_rows(store.shard_examples(1)))
    again = RunStore.open(tmp_path / "r")
    assert again.examples() == make_examples()
    assert again.examples()[3].meta["level"] == 3
    assert isinstance(again.examples()[3].meta["difficulty"], float)
    assert again.quarantined() == [Quarantined(Key("e4", "clean"), "the image is no image")]
    assert again.rejected() == [Rejected("line 3", "no image\\udc80"), Rejected("id q9", "twice")]
    assert again.manifest == store.manifest
    assert again.manifest.n_shards == 4
    assert (again.manifest.dataset["n"], again.manifest.dataset["rejected"]) == (N, 2)
    assert again.committed() == {1}


def test_one_condition_reads_only_its_records(run: RunStore) -> None:
    assert {r.condition for r in run.records(condition="blank")} == {"blank"}
    assert len(list(run.records(condition="blank"))) == N - 1
    assert list(run.records(condition="rotate:30")) == []


def test_only_wanted_array_features_are_read(run: RunStore) -> None:
    wanted = [Feature.TOKEN_ENTROPY, Feature.ANSWER, Feature.LETTER_LOGPROBS]
    record = next(run.records(features=wanted))
    assert set(record.features) == {Feature.TOKEN_ENTROPY, Feature.LETTER_LOGPROBS}
    assert record.has(Feature.ANSWER)
    assert next(run.records(features=())).features == {}


def test_arrays_of_a_shard_can_be_read_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = {f: rng.normal(size=(N, w)) for f, w in _WIDTHS.items()}
    store = RunStore.create(tmp_path / "run", make_manifest(), make_examples())
    with store.writer() as writer:
        for index in range(4):
            mine = store.shard_examples(index)
            rows = range(len(mine)) if index != 1 else range(1, len(mine))
            at = index * store.manifest.shard_size
            records = [
                Record(mine[row], features={f: t[at + row] for f, t in tables.items()})
                for row in rows
            ]
            lost = [Quarantined(Key(mine[0].id, "clean"), "unreadable")] if index == 1 else []
            writer.commit(index, records, lost)
    shards = list(store.stacked(list(_WIDTHS)))
    for feature in _WIDTHS:
        read = np.concatenate([shard[feature] for shard in shards])
        one_by_one = [record.array(feature) for record in store.records()]
        np.testing.assert_array_equal(read, np.stack(one_by_one))
        assert len(read) == N - 1
    assert all(set(shard) == {Feature.IMAGE_VECTOR} for shard in store.stacked(list(_WIDTHS)[:1]))


@pytest.mark.parametrize("widths", [(3, 4, 3), (3, None, 3)])
def test_arrays_that_do_not_stack_are_refused(tmp_path: Path, widths: tuple[int | None]) -> None:
    store = RunStore.create(tmp_path / "run", make_manifest(), make_examples())
    with store.writer() as writer:
        writer.commit(
            0,
            [
                Record(e, features={} if w is None else {Feature.IMAGE_VECTOR: np.ones(w)})
                for e, w in zip(store.shard_examples(0), widths, strict=False)
            ],
        )
    found = r"image_vector for 3 of 3 records, of shapes such as \[\(3,\), \(4,\)\]"
    if None in widths:
        found = r"image_vector for 2 of 3 records, of shapes such as \[\(3,\)\]"
    with pytest.raises(DataError, match=rf"000000\.parquet has {found}.*resume the run"):
        list(store.stacked([Feature.IMAGE_VECTOR]))


def test_arrays_of_several_dtypes_and_conditions_are_widened_in_order(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", make_manifest(), make_examples())
    rng = np.random.default_rng(0)
    dtypes = ("float16", "float32", "float16")
    with store.writer() as writer:
        records = [
            Record(e, condition, features={Feature.IMAGE_VECTOR: rng.normal(size=4).astype(dtype)})
            for e, dtype in zip(store.shard_examples(0), dtypes, strict=True)
            for condition in ("clean", "blank")
        ]
        writer.commit(0, records)
    (shard,) = store.stacked([Feature.IMAGE_VECTOR])
    one_by_one = np.stack([r.array(Feature.IMAGE_VECTOR) for r in store.records()])
    assert shard[Feature.IMAGE_VECTOR].dtype == one_by_one.dtype == np.float32
    np.testing.assert_array_equal(shard[Feature.IMAGE_VECTOR], one_by_one)


def test_only_the_shards_asked_for_are_stacked_in_that_order(run: RunStore) -> None:
    vectors = [Feature.IMAGE_VECTOR]
    shards = list(run.stacked(vectors, shards=[2, 0]))
    assert len(shards) == 2
    for index, shard in zip([2, 0], shards, strict=True):
        own = [r.array(Feature.IMAGE_VECTOR) for r in run.records(features=vectors, shard=index)]
        np.testing.assert_array_equal(shard[Feature.IMAGE_VECTOR], np.stack(own))


_WIDTHS = {Feature.IMAGE_VECTOR: 5, Feature.AUX_VECTORS: 3}


def test_only_wanted_layers_are_read(run: RunStore) -> None:
    for record in run.records(layers=[5], features=[Feature.HIDDEN, Feature.TOP_LOGPROBS]):
        whole = make_record(record.example, record.condition)
        assert record.layers == (5,)
        hidden = record.features[Feature.HIDDEN]
        assert hidden.tobytes() == whole.features[Feature.HIDDEN][1:].tobytes()
    with pytest.raises(MissingFeatureError, match=r"layers \[7\].*\[2, 5\] were stored"):
        next(run.records(layers=[5, 7]))


def test_unwanted_arrays_are_not_even_opened(run: RunStore) -> None:
    for file in run.path.glob("shards/*.safetensors"):
        file.unlink()
    assert len(list(run.records(features=()))) == 2 * (N - 1)
    with pytest.raises(CorruptStoreError, match="no file"):
        next(run.records())


def test_one_condition_does_not_read_the_arrays_of_another(run: RunStore) -> None:
    path = next(iter(sorted(run.path.glob("shards/000000.*.safetensors"))))
    data = bytearray(path.read_bytes())
    blank = make_record(make_examples()[0], "blank").features[Feature.PROMPT_HIDDEN][0].tobytes()
    data[data.index(blank)] ^= 1
    path.write_bytes(data)
    assert next(run.records(condition="clean")).condition == "clean"
    with pytest.raises(CorruptStoreError, match=r"tensor prompt_hidden\.2\.p1"):
        next(run.records(condition="blank"))


def test_available_features_and_layers(run: RunStore) -> None:
    assert run.available() == frozenset(ARRAY_AXES)
    assert run.layers() == LAYERS


def test_same_records_give_same_bytes(tmp_path: Path) -> None:
    one = compared_bytes(write_run(tmp_path / "one").path)
    two = compared_bytes(write_run(tmp_path / "two").path)
    assert one == two
    assert len(one) == 3 + 2 * 4


def test_dtype_and_width_may_differ_within_a_shard(tmp_path: Path) -> None:
    examples = make_examples(4)
    arrays = [
        np.arange(6, dtype=np.float64).reshape(2, 3),
        np.arange(4, dtype=np.float32).reshape(2, 2),
        np.zeros((2, 0), dtype=np.float16),
        np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
    ]
    answer = Generation("x", logprobs=np.array([-1.0, -2.0]))
    records = [
        Record(e, greedy=answer, features={Feature.TOP_LOGPROBS: a})
        for e, a in zip(examples, arrays, strict=True)
    ]
    store = RunStore.create(tmp_path / "r", make_manifest(shard_size=4), examples)
    with store.writer() as writer:
        writer.commit(0, records)
    for record, array in zip(store.records(), arrays, strict=True):
        stored = record.features[Feature.TOP_LOGPROBS]
        assert stored.dtype == array.dtype.newbyteorder("<")
        assert np.array_equal(stored, array)
        assert stored.shape == array.shape


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones((1, 2), dtype=np.longdouble), "dtype"),
        (np.ones((1, 2), dtype=bool), "dtype"),
    ],
)
def test_a_dtype_that_cannot_be_stored_is_named(
    tmp_path: Path, array: np.ndarray, found: str
) -> None:
    examples = make_examples(1)
    record = Record(
        examples[0],
        greedy=Generation("x", logprobs=np.array([-1.0])),
        features={Feature.TOP_LOGPROBS: array},
    )
    store = RunStore.create(tmp_path / "r", make_manifest(), examples)
    with store.writer() as writer, pytest.raises(DataError, match=found):
        writer.commit(0, [record])
    assert store.committed() == frozenset()


@pytest.mark.parametrize("layers", [(3, 3), (-1, 2)])
def test_layers_must_be_distinct_indices(tmp_path: Path, layers: tuple[int, ...]) -> None:
    examples = make_examples(1)
    record = Record(examples[0], features={Feature.PROMPT_HIDDEN: np.ones((2, 3))}, layers=layers)
    store = RunStore.create(tmp_path / "r", make_manifest(), examples)
    with store.writer() as writer, pytest.raises(DataError, match="layer indices must be distinct"):
        writer.commit(0, [record])


def test_a_layered_feature_without_layers_round_trips(tmp_path: Path) -> None:
    examples = make_examples(1)
    array = np.zeros((0, 7), dtype=np.float16)
    store = RunStore.create(tmp_path / "r", make_manifest(), examples)
    with store.writer() as writer:
        writer.commit(0, [Record(examples[0], features={Feature.IMAGE_HIDDEN: array})])
    stored = next(store.records()).features[Feature.IMAGE_HIDDEN]
    assert (stored.shape, stored.dtype) == (array.shape, array.dtype)


def test_text_that_is_not_unicode_is_escaped_not_lost(tmp_path: Path) -> None:
    examples = [Example(id="a", question="q\udc80", meta={"k\ud800": "v\ud800"})]
    store = RunStore.create(tmp_path / "r", make_manifest(), examples)
    record = Record(examples[0], greedy=Generation("a\ud800", tokens=("\ud800",)))
    with store.writer() as writer:
        writer.commit(0, [record])
    stored = next(store.records())
    assert stored.answer.text == "a\\ud800"
    assert stored.answer.tokens == ("\\ud800",)
    assert stored.example.question == "q\\udc80"
    assert dict(stored.example.meta) == {"k\\ud800": "v\\ud800"}


def test_an_id_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not valid Unicode"):
        RunStore.create(tmp_path / "r", make_manifest(), [Example(id="\ud800", question="q")])
    assert not (tmp_path / "r" / "manifest.json").exists()


def test_ids_must_be_unique(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'e0' comes twice"):
        RunStore.create(tmp_path / "r", make_manifest(), make_examples(2) + make_examples(1))


def test_nan_in_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JSON values are required"):
        RunStore.create(
            tmp_path / "r", make_manifest(settings={"t": float("nan")}), make_examples()
        )


class TestCreateAndResume:
    def test_create_refuses_a_run(self, run: RunStore) -> None:
        with pytest.raises(StoreError, match="already holds a run"):
            RunStore.create(run.path, make_manifest(), make_examples())

    def test_create_refuses_a_folder_of_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(StoreError, match=r"thesis\.tex"):
            RunStore.create(tmp_path, make_manifest(), make_examples())

    def test_create_refuses_folders_of_the_same_names_with_files(self, tmp_path: Path) -> None:
        for name in ("columns", "shards"):
            (tmp_path / name / name).mkdir(parents=True)
            (tmp_path / name / name / "photo.png").write_bytes(b"mine")
            with pytest.raises(StoreError, match=f"holds {name}"):
                RunStore.create(tmp_path / name, make_manifest(), make_examples(), overwrite=True)
            assert (tmp_path / name / name / "photo.png").read_bytes() == b"mine"

    def test_create_refuses_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "r").write_text("mine")
        with pytest.raises(StoreError, match="is a file"):
            RunStore.create(tmp_path / "r", make_manifest(), make_examples())

    def test_overwrite_removes_the_old_run_and_nothing_else(self, run: RunStore) -> None:
        (run.path / "evaluation").mkdir()
        (run.path / "evaluation" / "results.json").write_text("of the old run")
        (run.path / "notes.txt").write_text("kept")
        run.write_column(Column("c", ColumnKind.CORRECT, (Key("e0", "clean"),), np.ones(1)))
        store = RunStore.create(
            run.path, make_manifest(settings={"new": 1}), make_examples(2), overwrite=True
        )
        assert store.committed() == frozenset()
        assert store.columns() == []
        assert len(RunStore.open(run.path).examples()) == 2
        assert not (run.path / "evaluation").exists()
        assert (run.path / "notes.txt").read_text() == "kept"

    def test_overwrite_of_a_running_run_is_refused(self, run: RunStore) -> None:
        with run.writer(), pytest.raises(StoreError, match=f"process {os.getpid()}"):
            RunStore.create(run.path, make_manifest(), make_examples(), overwrite=True)
        assert run.committed() == {0, 1, 2, 3}

    def test_resume_opens_the_same_run(self, run: RunStore) -> None:
        manifest = make_manifest(created="later", versions={}, image_root="/b", notes=("n",))
        manifest = replace(manifest, dataset={"name": "elsewhere/plan"})
        assert RunStore.resume(run.path, manifest, make_examples()).committed() == {0, 1, 2, 3}

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"settings": {"request": {"temperature": 0.7, "layers": [2, 5]}, "seed": 0}},
             r"settings\.request\.temperature = 1\.0 .* 0\.7"),
            ({"settings": {"request": {"temperature": 1.0, "layers": [2, 5]}}},
             r"settings\.seed = 0 .* nothing"),
            ({"model": {"name": "tiny", "revision": "2"}}, r'model\.revision = "1" .* "2"'),
            ({"model": {"name": "tiny", "revision": "1", "dtype": "f"}}, r"model\.dtype = nothing"),
            ({"shard_size": 4}, "shard_size = 3 .* 4"),
            ({"conditions": ("clean",)}, "conditions"),
            ({"kind": "imported"}, "kind"),
            ({"dataset": {"name": "plan", "split": "test"}}, r"dataset\.split"),
        ],
    )  # fmt: skip
    def test_resume_names_the_differing_field(
        self, run: RunStore, changes: dict[str, object], found: str
    ) -> None:
        with pytest.raises(StoreError, match=found) as caught:
            RunStore.resume(run.path, make_manifest(**changes), make_examples())
        assert "--overwrite" in str(caught.value)
        assert caught.value.exit_code == 2

    def test_resume_compares_the_examples(self, run: RunStore) -> None:
        examples = make_examples()
        examples[7] = replace(examples[7], question="another")
        with pytest.raises(StoreError, match="examples_sha256"):
            RunStore.resume(run.path, make_manifest(), examples)

    @pytest.mark.parametrize(
        ("changes", "kept", "said"),
        [
            ({"dataset": {"name": "other"}}, 4, r'dataset\.name = "plan" .* with "other"; a run'),
            ({}, 4, r"dataset\.n = \d+ and is now asked for with 4; a run"),
            ({"model": {"name": "b", "a": 1}}, None, r'model\.name = ".*" and .* with "b"; a run'),
        ],
    )
    def test_resume_names_another_model_or_data_before_any_hash(
        self, run: RunStore, changes: dict[str, object], kept: int | None, said: str
    ) -> None:
        with pytest.raises(StoreError, match=said):
            RunStore.resume(run.path, make_manifest(**changes), make_examples()[:kept])

    def test_open_needs_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="not a run") as caught:
            RunStore.open(tmp_path)
        assert caught.value.exit_code == 2

    def test_an_empty_run_is_whole(self, tmp_path: Path) -> None:
        store = RunStore.create(tmp_path / "r", make_manifest(), [])
        assert (store.manifest.n_shards, store.examples(), list(store.records())) == (0, [], [])
        assert store.verify() == []

    def test_a_shard_size_below_one_is_refused(self) -> None:
        with pytest.raises(DataError, match="shard_size is 0"):
            make_manifest(shard_size=0)


class TestCommit:
    def test_a_shard_is_committed_once(self, run: RunStore) -> None:
        with run.writer() as writer, pytest.raises(StoreError, match="already committed"):
            writer.commit(0, [])

    @pytest.mark.parametrize("index", [-1, 4])
    def test_only_shards_of_the_plan(self, run: RunStore, index: int) -> None:
        with run.writer() as writer, pytest.raises(StoreError, match="not in the plan"):
            writer.commit(index, [])

    @pytest.mark.parametrize(
        ("keys", "found"),
        [
            ([("e3", "clean")], "no example of shard 0"),
            ([("nobody", "clean")], "no example of shard 0"),
            ([("e0", "jpeg:3")], "none of the run's conditions"),
            ([("e0", "clean"), ("e0", "clean")], "there twice"),
        ],
    )
    def test_keys_must_belong_to_the_shard(
        self, tmp_path: Path, keys: list[tuple[str, str]], found: str
    ) -> None:
        store = RunStore.create(tmp_path / "r", make_manifest(), make_examples())
        records = [Record(Example(id=i, question="q"), c) for i, c in keys]
        with store.writer() as writer, pytest.raises(DataError, match=found):
            writer.commit(0, records)
        quarantined = [Quarantined(Key(*key), "bad") for key in keys]
        with store.writer() as writer, pytest.raises(DataError, match=found):
            writer.commit(0, [], quarantined)

    def test_any_condition_where_the_manifest_names_none(self, tmp_path: Path) -> None:
        store = RunStore.create(tmp_path / "r", make_manifest(conditions=()), make_examples(1))
        record = Record(make_examples(1)[0], "jpeg:3+rotate:30")
        with store.writer() as writer:
            with pytest.raises(DataError, match="not valid Unicode"):
                writer.commit(0, [replace(record, condition="\ud800")])
            writer.commit(0, [record])
        assert next(store.records()).condition == "jpeg:3+rotate:30"

    def test_a_shard_may_be_empty_or_all_quarantined(self, tmp_path: Path) -> None:
        store = RunStore.create(tmp_path / "r", make_manifest(), make_examples())
        with store.writer() as writer:
            writer.commit(0, [])
            writer.commit(1, [], [Quarantined(Key("e3", "clean"), "r\ud800\n")])
        assert list(store.records()) == []
        assert store.quarantined()[0].reason == "r\\ud800\n"
        assert store.available() == frozenset()
        assert store.verify() == []

    def test_the_log_is_outside_the_compared_bytes(self, run: RunStore) -> None:
        assert run.log() == [{"shard": i, "seconds": 0.5} for i in range(4)]
        with (run.path / "log.jsonl").open("a") as log:
            log.write('[1]\n{"torn": ')
        with run.writer():
            pass
        assert len(run.log()) == 4
        (run.path / "log.jsonl").unlink()
        assert run.log() == []
        assert run.verify() == []

    def test_a_torn_log_line_does_not_swallow_the_next(self, tmp_path: Path) -> None:
        store = RunStore.create(tmp_path / "r", make_manifest(), make_examples())
        (store.path / "log.jsonl").write_bytes(b'{"shard": 0, "sec')
        with store.writer() as writer:
            writer.commit(2, [], [], {"seconds": 2.0})
        assert store.log() == [{"shard": 2, "seconds": 2.0}]


class TestColumns:
    column = Column(
        "prob@T=1",
        ColumnKind.UNCERTAINTY,
        (Key("e1", "clean"), Key("é", "jpeg:3")),
        np.array([0.1 + 0.2, -1e300]),
        {"estimator": "x", "m": 10},
    )

    def test_round_trip(self, run: RunStore) -> None:
        run.write_column(self.column)
        stored = RunStore.open(run.path).column(ColumnKind.UNCERTAINTY, "prob@T=1")
        assert stored.keys == self.column.keys
        assert stored.values.tobytes() == self.column.values.tobytes()
        assert dict(stored.spec) == {"estimator": "x", "m": 10}
        assert run.columns() == [(ColumnKind.UNCERTAINTY, "prob@T=1")]

    def test_replaced_only_on_request(self, run: RunStore) -> None:
        run.write_column(self.column)
        changed = replace(self.column, values=np.array([1.0, 2.0]))
        with pytest.raises(StoreError, match="already stored"):
            run.write_column(changed)
        run.write_column(changed, replace=True)
        assert run.column(ColumnKind.UNCERTAINTY, "prob@T=1").values.tolist() == [1.0, 2.0]

    def test_an_empty_column_and_an_absent_one(self, run: RunStore) -> None:
        run.write_column(Column("none", ColumnKind.DRIFT, (), np.zeros(0)))
        assert len(run.column(ColumnKind.DRIFT, "none")) == 0
        with pytest.raises(StoreError, match="stored columns: drift none"):
            run.column(ColumnKind.CORRECT, "none")

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\x00", "x" * 161, "é"])
    def test_names_cannot_leave_the_folder(self, run: RunStore, name: str) -> None:
        with pytest.raises(DataError, match="Column name"):
            run.write_column(replace(self.column, name=name))
        with pytest.raises(DataError, match="Column name"):
            run.column(ColumnKind.CORRECT, name)

    def test_a_file_under_another_name_is_corrupt(self, run: RunStore) -> None:
        run.write_column(self.column)
        file = run.path / "columns" / "uncertainty.prob@T=1.parquet"
        file.rename(run.path / "columns" / "confidence.prob@T=1.parquet")
        with pytest.raises(CorruptStoreError, match="another column"):
            run.column(ColumnKind.CONFIDENCE, "prob@T=1")


class TestOtherTools:
    def test_duckdb_reads_nested_rows_and_joins_examples(self, run: RunStore) -> None:
        query = f"""
            SELECT r.example_id, r.greedy.text AS answer, len(r.samples) AS m,
                   list_sum(r.greedy.logprobs) AS total, e.question, r.arrays[1].feature AS first
            FROM '{run.path}/shards/*.parquet' r JOIN '{run.path}/examples.parquet' e
              ON r.example_id = e.id
            WHERE r.status = 'ok' AND r.condition = 'clean' ORDER BY r.example_id
        """
        rows = duckdb.sql(query).fetchall()
        expected = list(run.records(condition="clean"))
        assert [row[0] for row in rows] == [r.example.id for r in expected]
        for row, record in zip(rows, expected, strict=True):
            assert row[1:3] == (record.answer.text, len(record.samples))
            assert row[3] == pytest.approx(record.answer.logprobs.sum())
            assert row[4] == record.example.question
            assert row[5] == "token_entropy"
        errors = duckdb.sql(
            f"SELECT example_id, reason FROM '{run.path}/shards/*.parquet' WHERE status = 'error'"
        ).fetchall()
        assert errors == [("e4", "the image is no image")]

    def test_plain_pyarrow_reads_rows(self, run: RunStore) -> None:
        table = pq.read_table(
            run.path / "shards" / "000000.parquet", page_checksum_verification=True
        )
        assert table["example_id"].to_pylist() == ["e0", "e0", "e1", "e1", "e2", "e2"]
        samples = table["samples"].to_pylist()[0]
        assert samples[0]["finish_reason"] == "stop"

    def test_the_safetensors_library_reads_arrays(self, run: RunStore) -> None:
        table = pq.read_table(run.path / "shards" / "000000.parquet").to_pylist()
        file = next(run.path.glob("shards/000000.*.safetensors"))
        tensors = load_file(file)
        for row, record in zip(table, run.records(), strict=False):
            for place in row["arrays"]:
                feature = Feature(place["feature"])
                suffix = f".p{place['part']}" if place["part"] else ""
                whole = record.features[feature]
                if feature is Feature.HIDDEN:
                    part = tensors[f"hidden.{LAYERS[1]}{suffix}"]
                    stop = place["start"] + place["shape"][1]
                    assert part[place["start"] : stop].tobytes() == whole[1].tobytes()
                elif ARRAY_AXES[feature] in (("a", "a"), ("w", "w")):
                    part = tensors[f"{feature.value}{suffix}"]
                    stop = place["start"] + place["shape"][0] ** 2
                    square = part[place["start"] : stop].reshape(place["shape"])
                    assert square.tobytes() == whole.tobytes()
                elif feature not in LAYERED and whole.ndim and whole.size:
                    part = tensors[f"{feature.value}{suffix}"]
                    own_length = ARRAY_AXES[feature][0] in "tcmarsw"
                    stop = place["start"] + (place["shape"][0] if own_length else 1)
                    assert part[place["start"] : stop].tobytes() == whole.tobytes()
