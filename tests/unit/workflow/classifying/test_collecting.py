"""Embedding pictures, classes and support pictures into a run."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from sightline import api
from sightline.cli import cli
from sightline.core.errors import (
    DataError,
    LeakageError,
    StoreError,
    UsageError,
)
from sightline.core.features import Feature
from sightline.data.image_sets import load_image_set, with_classes
from sightline.store.layout import CLASSES, SUPPORT
from sightline.store.run import RunStore
from sightline.workflow.classifying.collecting import (
    SupportPlan,
    classify,
    encoder_name,
    same_rows,
)
from sightline.workflow.classifying.embedding import FileEncoder, ModelEncoder, parse_views
from sightline.workflow.classifying.reading import (
    read_embedded,
    read_support,
    read_texts,
    run_classes,
)

from .conftest import (
    COLOURS,
    ColourClassifier,
    Patches,
    colour_run,
    patches,
    unit,
    write_pictures,
)


def shard_bytes(run):
    return {
        f"{part.name}/{file.name}": file.read_bytes()
        for part in (run / "shards", run / CLASSES / "shards", run / SUPPORT / "shards")
        for file in sorted(part.iterdir())
    }


def test_the_run_holds_every_vector_and_the_likeliest_class(run, tested):
    store = RunStore.open(run)
    records = list(store.records())
    assert len(records) == 180
    texts = read_texts(RunStore.open(run / CLASSES))
    assert texts.classes == ("blue", "green", "red")
    assert texts.templates.shape == (2, 3, 3)
    first = records[0]
    image = load_image_set(tested).examples[0]
    assert first.example.id == image.id == "blue/000.png"
    vector = first.array(Feature.IMAGE_VECTOR)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert first.answer.text == texts.classes[int(np.argmax(texts.vectors @ vector))]
    assert first.array(Feature.VIEW_VECTORS).shape == (1, 3)
    assert first.array(Feature.AUX_VECTORS).shape == (3,)
    assert store.verify() == []


def test_classes_of_an_earlier_run(run, tested, tmp_path):
    names = run_classes(run)
    assert names == ("blue", "green", "red")
    again = load_image_set(tested, classes=names[::-1])
    assert again.classes == ("red", "green", "blue")  # the order of the run
    assert run_classes(tmp_path) is None  # a folder, such as one of classes by name
    with pytest.raises(UsageError, match="no run of a zero-shot classifier"):
        run_classes(run / SUPPORT)


def test_several_templates_are_joined_by_their_mean(run):
    texts = read_texts(RunStore.open(run / CLASSES))
    joined = unit(texts.templates.mean(axis=0))
    np.testing.assert_allclose(texts.vectors, joined, atol=1e-6)


def test_two_encoders_lie_one_after_another(tmp_path, tested):
    images = load_image_set(tested)
    table = np.random.default_rng(0).normal(size=(len(images.examples), 5)).astype(np.float32)
    np.savez(tmp_path / "far.npz", keys=[e.id for e in images.examples], vectors=table)
    far = FileEncoder.read(tmp_path / "far.npz")
    colour_run(tmp_path / "run", tested, encoders=[patches(), far])
    store = RunStore.open(tmp_path / "run")
    seen = read_embedded(store, read_texts(RunStore.open(tmp_path / "run" / CLASSES)))
    assert seen.encoders == ("patches", "far")
    assert [aux.shape[1] for aux in seen.vectors.aux] == [3, 5]
    np.testing.assert_array_equal(seen.vectors.aux[1], table)


class TestResuming:
    def test_a_stopped_run_ends_with_the_same_bytes(self, tmp_path, run, tested, pool):
        asked = iter([False, False, True])
        first = colour_run(tmp_path / "r", tested, pool, should_stop=lambda: next(asked, True))
        assert first.interrupted
        assert first.support is None
        for _ in range(20):
            stops = iter([False, True])
            again = colour_run(tmp_path / "r", tested, pool, should_stop=lambda s=stops: next(s))
            if not again.interrupted:
                break
        assert not again.interrupted
        assert shard_bytes(tmp_path / "r") == shard_bytes(run)

    def test_a_finished_run_embeds_nothing_again(self, tmp_path, tested):
        model = ColourClassifier()
        colour_run(tmp_path / "r", tested, model=model)
        before = model.seen
        colour_run(tmp_path / "r", tested, model=model)
        assert model.seen == before

    def test_another_template_is_another_run(self, tmp_path, tested):
        colour_run(tmp_path / "r", tested)
        with pytest.raises(StoreError, match="overwrite"):
            colour_run(tmp_path / "r", tested, templates=("{}",))
        colour_run(tmp_path / "r", tested, templates=("{}",), overwrite=True)
        assert RunStore.open(tmp_path / "r").manifest.model["templates"] == ["{}"]

    def test_overwriting_removes_the_support_too(self, tmp_path, tested, pool):
        colour_run(tmp_path / "r", tested, pool)
        colour_run(tmp_path / "r", tested, overwrite=True)
        assert not (tmp_path / "r" / SUPPORT / "manifest.json").exists()

    def test_damage_in_a_part_is_found(self, tmp_path, tested, pool):
        colour_run(tmp_path / "r", tested, pool)
        file = next((tmp_path / "r" / SUPPORT / "shards").glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        found = RunStore.open(tmp_path / "r").verify()
        assert [problem.file.split("/")[0] for problem in found] == [SUPPORT]


class TestDraws:
    def test_every_draw_has_its_shots_of_every_class(self, run):
        store = RunStore.open(run)
        seen = read_embedded(store, read_texts(RunStore.open(run / CLASSES)))
        draws = read_support(run, seen, None)
        assert len(draws.rows) == 3
        for rows in draws.rows:
            assert np.bincount(draws.pictures.labels[rows]).tolist() == [4, 4, 4]
            assert len(set(rows.tolist())) == 12
        assert len({tuple(sorted(rows)) for rows in draws.rows}) == 3

    def test_fewer_shots_are_the_first_of_more(self, run):
        seen = read_embedded(RunStore.open(run), read_texts(RunStore.open(run / CLASSES)))
        all_of, two = read_support(run, seen, None), read_support(run, seen, 2)
        for more, fewer in zip(all_of.rows, two.rows, strict=True):
            assert set(fewer) <= set(more)
            assert len(fewer) == 6

    def test_more_shots_than_were_drawn_are_refused(self, run):
        seen = read_embedded(RunStore.open(run), read_texts(RunStore.open(run / CLASSES)))
        with pytest.raises(UsageError, match="--shots 9; 1 to 4"):
            read_support(run, seen, 9)

    def test_a_class_with_fewer_pictures_gives_all_it_has(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", {"red": 2, "green": 9, "blue": 9}, seed=5)
        said = []
        colour_run(tmp_path / "r", tested, pool, announce=said.append)
        assert any("1 of 3 classes have fewer than 4 usable pictures" in line for line in said)
        seen = read_embedded(
            RunStore.open(tmp_path / "r"), read_texts(RunStore.open(tmp_path / "r" / CLASSES))
        )
        rows = read_support(tmp_path / "r", seen, None).rows[0]
        assert len(rows) == 4 + 4 + 2

    def test_no_shots_are_refused(self, tmp_path, tested, pool):
        with pytest.raises(UsageError, match="0 shots"):
            colour_run(tmp_path / "r", tested, pool, shots=0)

    def test_the_published_rule_has_one_draw_and_enough_pictures(self, tmp_path, tested, pool):
        images = load_image_set(pool)
        with pytest.raises(UsageError, match=r"3 draws by the rule compat.* Leave --draws out"):
            SupportPlan(images, 4, 3, rule="compat")
        plan = SupportPlan(images, 4, 1, rule="compat")
        assert plan.settings() == {"shots": 4, "draws": 1, "seed": 0, "rule": "compat"}
        assert "rule" not in SupportPlan(images, 4, 1).settings()
        with pytest.raises(DataError, match="Class 0 has 12 images for 13 shots"):
            classify(
                ColourClassifier(),
                load_image_set(tested),
                tmp_path / "r",
                templates=("{}",),
                support=SupportPlan(images, 13, 1, rule="compat"),
            )

    def test_a_class_without_pictures_is_named(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", {"red": 3, "green": 3}, seed=5)
        with pytest.raises(DataError, match=r"1 of 3 classes have no picture.*'blue'"):
            colour_run(tmp_path / "r", tested, pool)


class TestLeakage:
    def test_a_tested_picture_cannot_be_learned_from(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 3), seed=5)
        shutil.copy(tested / "red" / "007.png", pool / "red" / "renamed.png")
        with pytest.raises(LeakageError, match=r"1 support pictures.*'red/renamed.png'"):
            colour_run(tmp_path / "r", tested, pool)

    def test_nor_from_another_run(self, tmp_path, run, pool):
        other = tmp_path / "other"
        colour_run(other, pool)
        seen = read_embedded(RunStore.open(other), read_texts(RunStore.open(other / CLASSES)))
        with pytest.raises(LeakageError, match="support pictures"):
            read_support(run, seen, None)


class TestLengths:
    """Vectors whose direction single precision cannot tell are left out, with the reason."""

    @staticmethod
    def file(path, images, first):
        table = np.random.default_rng(0).normal(size=(len(images.examples), 5))
        table[0] *= first / np.linalg.norm(table[0])
        np.savez(path, keys=[e.id for e in images.examples], vectors=table)
        return FileEncoder.read(path)

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    @pytest.mark.parametrize(
        ("length", "said"),
        [
            (1e25, "length of its vector in v.npz is 1e+25, outside 1e-18 to 1e+18"),
            (1e-30, "length of its vector in v.npz is 1e-30, outside"),
            (0.0, "is zero"),
            (np.nan, "is not finite"),
        ],
    )
    def test_one_of_a_file(self, tmp_path, tested, length, said):
        encoder = self.file(tmp_path / "v.npz", load_image_set(tested), length)
        result = colour_run(tmp_path / "r", tested, encoders=[encoder])
        assert result.images.total == 179
        assert result.images.rejected == 1
        assert said in result.images.reasons[0][0]

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_lengths_within_the_bounds_are_kept(self, tmp_path, tested, pool):
        encoder = self.file(tmp_path / "v.npz", load_image_set(tested), 1e17)
        colour_run(tmp_path / "r", tested, encoders=[encoder])
        store = RunStore.open(tmp_path / "r")
        first = next(iter(store.records())).array(Feature.AUX_VECTORS).astype(np.float64)
        assert np.linalg.norm(first) == pytest.approx(1e17, rel=1e-6)

    def test_where_all_are_the_reason_is_the_files(self, tmp_path, tested):
        images = load_image_set(tested)
        table = np.full((len(images.examples), 5), 1e25)
        np.savez(tmp_path / "v.npz", keys=[e.id for e in images.examples], vectors=table)
        with pytest.raises(DataError, match=r"None of 180 .* since the length .* is 2e\+25"):
            colour_run(tmp_path / "r", tested, encoders=[FileEncoder.read(tmp_path / "v.npz")])

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_a_models_vector_out_of_range_is_quarantined(self, tmp_path, tested):
        class Huge(Patches):
            def vectors(self, images):
                return super().vectors(images) * np.float32(1e30)

        result = colour_run(tmp_path / "r", tested, encoders=[ModelEncoder("huge", Huge(), 3)])
        assert result.images.quarantined == 180
        assert "The vector of a picture by encoder huge is zero" in result.images.reasons[0][0]

    def test_an_encoder_of_maps_is_refused_before_anything_is_stored(self):
        class Maps(Patches):
            def vectors(self, images):
                return super().vectors(images)[:, :, None, None]

        with pytest.raises(UsageError, match=r"shape \(1, 3, 1, 1\) for one picture"):
            ModelEncoder.of("maps", Maps())


class TestKnownLabels:
    def test_none_known_is_refused_at_once_but_for_an_earlier_runs_classes(
        self, tmp_path, monkeypatch, run, pool
    ):
        monkeypatch.setattr("sightline.models.load_classifier", lambda *_, **__: ColourClassifier())
        other = write_pictures(tmp_path / "p", {"red": 2, "blue": 2})
        (other / "red").rename(other / "rose")
        (other / "blue").rename(other / "fern")
        with pytest.raises(DataError, match="'fern', 'rose'; at least one is required"):
            api.classify("any", other, tmp_path / "r", classes="red,green", views=())
        assert not (tmp_path / "r").exists()
        done = api.classify("any", other, tmp_path / "r", classes=str(run), views=())
        assert done.images.total == 4


class TestKeysThatFitSeveralPictures:
    """A bare file name is a key; where it comes twice, each picture would get the same vector."""

    @staticmethod
    def file(path, keys):
        rng = np.random.default_rng(0)
        np.savez(path, keys=keys, vectors=rng.normal(size=(len(keys), 5)))
        return FileEncoder.read(path)

    def test_of_two_classes(self, tmp_path, tested):
        names = [f"{i:03d}.png" for i in range(60)]
        with pytest.raises(DataError, match=r"'000\.png' .* fits several pictures") as error:
            colour_run(tmp_path / "r", tested, encoders=[self.file(tmp_path / "v.npz", names)])
        assert f"{tested}/blue/000.png and {tested}/green/000.png" in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "r").exists()

    def test_of_the_tested_and_the_support_pictures(self, tmp_path, tested, pool):
        ids = [e.id for e in load_image_set(tested).examples]
        with pytest.raises(DataError, match="fits several pictures") as error:
            colour_run(tmp_path / "r", tested, pool, encoders=[self.file(tmp_path / "v.npz", ids)])
        assert f"{tested}/blue/000.png and {pool}/blue/000.png" in str(error.value)

    def test_ends_of_paths_tell_them_apart(self, tmp_path, tested, pool):
        both = [
            f"{folder.name}/{e.id}"
            for folder in (tested, pool)
            for e in load_image_set(folder).examples
        ]
        encoder = self.file(tmp_path / "v.npz", both)
        colour_run(tmp_path / "r", tested, pool, encoders=[encoder])
        store = RunStore.open(tmp_path / "r" / SUPPORT)
        for record in store.records():
            row = both.index(f"{pool.name}/{record.example.id}")
            wanted = encoder.table[row].astype(np.float32)
            np.testing.assert_array_equal(record.array(Feature.AUX_VECTORS), wanted)

    def test_copies_of_one_picture_share_theirs(self, tmp_path):
        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 1))
        (folder / "red" / "x").mkdir()
        shutil.copy(folder / "red" / "000.png", folder / "red" / "x" / "000.png")
        ids = ["red/000.png", "000.png"]
        for colour in ("blue", "green"):
            (folder / colour / "000.png").rename(folder / colour / f"{colour}.png")
            ids.append(f"{colour}.png")
        encoder = self.file(tmp_path / "v.npz", ids)
        result = colour_run(tmp_path / "r", folder, encoders=[encoder])
        assert (result.images.total, result.images.rejected) == (4, 0)


class TestSupportPicturesLeftOut:
    @pytest.fixture
    def left_out(self, tmp_path, tested):
        """Of 12 support pictures one has a zero vector, one a NaN and one none; one is a text."""
        pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 4), seed=5)
        (pool / "red" / "notes.txt").write_text("x")
        examples = [*load_image_set(tested).examples, *load_image_set(pool).examples]
        table = np.random.default_rng(0).normal(size=(len(examples), 4))
        table[-1], table[-2] = 0, np.nan
        kept = [at for at in range(len(examples)) if at != len(examples) - 3]
        keys = [examples[at].images[0].sha256 for at in kept]
        np.savez(tmp_path / "v.npz", keys=keys, vectors=table[kept])
        said = []
        result = colour_run(
            tmp_path / "r",
            tested,
            pool,
            encoders=[FileEncoder.read(tmp_path / "v.npz")],
            announce=said.append,
        )
        return result, said

    def test_they_are_counted_with_their_reasons(self, left_out):
        result, said = left_out
        assert result.support.rejected == 4
        assert dict(result.support.reasons) == {
            "v.npz has no vector under its id, path or SHA-256": 1,
            "its vector in v.npz is not finite": 1,
            "its vector in v.npz is zero": 1,
            "the suffix '.txt' is none of a picture": 1,
        }
        assert len(RunStore.open(result.path / SUPPORT).rejected()) == 4
        seen = read_embedded(
            RunStore.open(result.path), read_texts(RunStore.open(result.path / CLASSES))
        )
        assert read_support(result.path, seen, None).lacking == 4
        assert any("1 of 3 classes have fewer than 4 usable pictures" in line for line in said)

    def test_those_of_other_classes_are_said(self, tmp_path, tested, pool):
        said = []
        plan = SupportPlan(with_classes(load_image_set(pool), ("red", "green")), 2, 1)
        images = load_image_set(tested, classes="red,green")
        classify(
            ColourClassifier(),
            images,
            tmp_path / "r",
            templates=("{}",),
            support=plan,
            announce=said.append,
        )
        assert any("12 of 36 support pictures have a label that is none" in line for line in said)


class TestBadPictures:
    def test_an_unreadable_picture_is_quarantined(self, tmp_path):
        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 3))
        (folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        result = colour_run(tmp_path / "r", folder)
        assert result.images.quarantined == 1
        assert "readable image" in result.images.reasons[0][0]
        assert len(list(RunStore.open(tmp_path / "r").records())) == 9

    def test_an_unreadable_support_picture_shortens_its_draws(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 4), seed=5)
        (pool / "red" / "003.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        colour_run(tmp_path / "r", tested, pool)
        seen = read_embedded(
            RunStore.open(tmp_path / "r"), read_texts(RunStore.open(tmp_path / "r" / CLASSES))
        )
        draws = read_support(tmp_path / "r", seen, None)
        assert draws.lacking == 1
        assert [len(rows) for rows in draws.rows] == [11, 11, 11]

    def test_a_picture_of_an_unknown_class_is_kept_without_reference(self, tmp_path):
        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 3))
        said = []
        images = load_image_set(folder, classes="red,green")
        classify(
            ColourClassifier(), images, tmp_path / "r", templates=("{}",), announce=said.append
        )
        assert any("3 of 9 pictures have a label that is none" in line for line in said)

    def test_a_vector_without_direction_is_quarantined(self, tmp_path):
        class Blind(ColourClassifier):
            def image_vectors(self, images):
                vectors = super().image_vectors(images)
                vectors[[np.asarray(i).max() == 0 for i in images]] = 0
                return vectors

        from PIL import Image

        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 3))
        Image.new("RGB", (8, 8)).save(folder / "red" / "black.png")
        result = colour_run(tmp_path / "r", folder, model=Blind())
        assert result.images.quarantined == 1
        assert "is zero, not finite" in result.images.reasons[0][0]


class TestVectorFiles:
    def test_pictures_without_a_vector_are_left_out(self, tmp_path):
        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 3))
        images = load_image_set(folder)
        keys = [e.images[0].sha256 for e in images.examples][:-2]
        table = np.ones((len(keys), 4), dtype=np.float32)
        table[0] = 0
        np.savez(tmp_path / "v.npz", keys=keys, vectors=table)
        result = colour_run(
            tmp_path / "r", folder, encoders=[FileEncoder.read(tmp_path / "v.npz")], views=()
        )
        reasons = dict(result.images.reasons)
        assert reasons == {
            "v.npz has no vector under its id, path or SHA-256": 2,
            "its vector in v.npz is zero": 1,
        }

    def test_keys_of_other_pictures_are_one_line(self, tmp_path, tested):
        np.savez(tmp_path / "v.npz", keys=["x"], vectors=np.ones((1, 2)))
        with pytest.raises(DataError, match="None of 180 pictures"):
            colour_run(tmp_path / "r", tested, encoders=[FileEncoder.read(tmp_path / "v.npz")])

    def test_a_key_twice_is_refused(self, tmp_path):
        np.savez(tmp_path / "v.npz", keys=["x", "x"], vectors=np.ones((2, 2)))
        with pytest.raises(DataError, match="'x' twice"):
            FileEncoder.read(tmp_path / "v.npz")


class TestClassesThatCannotBeToldApart:
    def test_they_are_named_in_the_result_and_in_every_report(self, tmp_path):
        folder = write_pictures(tmp_path / "p", dict.fromkeys(COLOURS, 3))
        said = []
        images = load_image_set(folder, classes="red,dark red,green,blue,violet,black")
        result = classify(
            ColourClassifier(), images, tmp_path / "r", templates=("{}",), announce=said.append
        )
        assert result.alike == (("red", "dark red"), ("violet", "black"))
        wanted = "4 of 6 classes share the vector of their text with another, such as red, dark red"
        assert any(line.startswith(wanted) for line in said)
        assert any(n.startswith(wanted) for n in RunStore.open(tmp_path / "r").manifest.notes)

    def test_other_classes_are_not(self, tmp_path, tested):
        said = []
        assert colour_run(tmp_path / "r", tested, announce=said.append).alike == ()
        assert not any("share the vector" in line for line in said)

    def test_rows_are_one_but_for_rounding(self):
        rng = np.random.default_rng(0)
        rows = unit(rng.normal(size=(3000, 8)))
        rows[2500] = rows[7]
        rows[2999] = rows[7] + np.float32(1e-7)
        rows[1] = unit(rows[:1] + 1e-3)[0]
        assert same_rows(rows) == [[7, 2500, 2999]]
        assert same_rows(np.repeat(rows[:1], 1500, axis=0)) == [list(range(1500))]


class TestCopies:
    def test_of_support_pictures_and_those_of_two_classes_are_remarked(self, tmp_path, tested):
        pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 4), seed=5)
        shutil.copy(pool / "red" / "000.png", pool / "red" / "copy.png")
        shutil.copy(pool / "red" / "001.png", pool / "blue" / "other.png")
        said = []
        colour_run(tmp_path / "r", tested, pool, shots=5, announce=said.append)
        notes = RunStore.open(tmp_path / "r").manifest.notes
        for wanted in (
            "1 of 12 different pictures of pool come under several classes",
            "1 of 14 support pictures of pool are copies of another of their class",
        ):
            assert any(line.startswith(wanted) for line in said)
            assert any(line.startswith(wanted) for line in notes)


def test_other_draws_are_refused_by_the_name_of_the_setting(tmp_path, tested, pool):
    colour_run(tmp_path / "r", tested, pool)
    with pytest.raises(StoreError, match="drawn with shots = 4 and are now asked for with 8"):
        colour_run(tmp_path / "r", tested, pool, shots=8)
    with pytest.raises(StoreError, match="drawn with seed = 0 and are now asked for with 3"):
        colour_run(tmp_path / "r", tested, pool, seed=3)
    colour_run(tmp_path / "r", tested, pool, shots=8, overwrite=True)


@pytest.mark.parametrize("flag", ["--shots=4", "--draws=2", "--support-rule=compat"])
def test_flags_of_support_need_support(tmp_path, tested, flag):
    asked = ["-m", "embedded:clip", "-d", str(tested), "-o", str(tmp_path / "r"), flag]
    with pytest.raises(UsageError, match=rf"{flag.partition('=')[0]} without --support"):
        CliRunner().invoke(cli, ["classify", *asked], standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "r").exists()


def test_two_encoders_of_one_name_are_refused(tmp_path, tested):
    with pytest.raises(UsageError, match="2 encoders are called 'patches'"):
        colour_run(tmp_path / "r", tested, encoders=[patches(), patches()])


def test_encoders_are_called_by_the_end_of_their_spec():
    assert encoder_name("embedded:encoder") == "encoder"
    assert encoder_name("facebook/dinov2-base") == "dinov2-base"
    assert encoder_name("/models/my encoder") == "my-encoder"


def test_views_by_name():
    assert parse_views("gray,mirror,gray") == ("gray", "mirror")
    assert parse_views("none") == ()
    with pytest.raises(UsageError, match="'upside-down'"):
        parse_views("upside-down")


def test_the_width_of_an_encoder_is_found_on_a_blank_picture():
    assert patches().width == 3
    assert Patches().fingerprint() == {"name": "patches"}


def test_support_plans_are_settings_of_the_support_run(run):
    settings = RunStore.open(run / SUPPORT).manifest.settings
    assert {k: settings[k] for k in ("shots", "draws", "seed")} == {
        "shots": 4,
        "draws": 3,
        "seed": 0,
    }
