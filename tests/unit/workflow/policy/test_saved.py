"""Policies on disk: what is read back decides alike, and damage is refused."""

import json
import shutil
from dataclasses import replace

import pytest
from policy_records import answers, choices, labelled, right_at

from sightline.core.errors import CorruptStoreError, DataError, SightlineError
from sightline.store.sealed import dump_document, load_document
from sightline.workflow.policy import TrustPolicy, load_policy, save_policy
from sightline.workflow.policy.evidence import Origin, Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import SetsTarget

ORIGIN = Origin(
    run="run",
    run_hash="0",
    model={"name": "m", "prompt_style": {"asks": None}},
    request={"max_new_tokens": 8, "layers": [0.5]},
    decode_policy="1",
    dataset="d",
    grader={"name": "exact"},
    correct_from=0.5,
    condition="clean",
    split={"seed": 0, "fractions": [0.4, 0.2, 0.4]},
    content=("a", "b"),
    sightline_version="0",
)


def plain():
    records = answers(900)
    policy = fit_policy(
        ["sequence_probability"], labelled(records, right_at(records)), Target(risk=0.25)
    )
    return replace(policy, evidence=replace(policy.evidence, origin=ORIGIN)), records


def fusion():
    records = answers(900)
    spec = "fusion:members=sequence_probability+perplexity:interactions=true"
    data = labelled(records, right_at(records), (0.3, 0.3, 0.4))
    return fit_policy([spec], data, Target(None, 0.8)), records


def with_sets():
    records, correct = choices(600, counts=(3, 5))
    data = labelled(records, correct)
    sets = SetsTarget(kind="raps", level=0.85)
    return fit_policy(["option_margin"], data, Target(risk=0.4), calibrator="isotonic",
                      sets=sets), records  # fmt: skip


def hopeless():
    records = answers(60)
    return fit_policy(["perplexity"], labelled(records, [0.0, 1.0] * 30), Target()), records


@pytest.mark.parametrize("made", [plain, fusion, with_sets, hopeless])
def test_what_is_read_back_decides_and_knows_the_same(made, tmp_path):
    policy, records = made()
    save_policy(tmp_path / "p", policy)
    back = load_policy(tmp_path / "p")
    assert back.evidence == policy.evidence
    assert back.sets == policy.sets
    assert back.decide(records[:200]) == policy.decide(records[:200])
    assert [s.spec for s in back.stages] == [s.spec for s in policy.stages]
    save_policy(tmp_path / "again", back)
    assert (tmp_path / "again/policy.json").read_bytes() == (
        tmp_path / "p/policy.json"
    ).read_bytes()


@pytest.fixture
def saved(tmp_path):
    policy, _ = fusion()
    save_policy(tmp_path / "p", policy)
    return tmp_path / "p"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_byte_of_every_file_counts(saved, tmp_path):
    files = [path for path in sorted(saved.rglob("*")) if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        content = path.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 15)):
            folder = tmp_path / "damaged"
            shutil.copytree(saved, folder)
            damaged = bytearray(content)
            damaged[at] ^= 1
            (folder / path.relative_to(saved)).write_bytes(damaged)
            with pytest.raises(CorruptStoreError) as error:
                load_policy(folder)
            one_line(error)
            assert error.value.exit_code == 5
            shutil.rmtree(folder)


def test_a_missing_or_cut_file_is_refused(saved):
    part = saved / "stage-0" / "arrays.safetensors"
    content = part.read_bytes()
    part.unlink()
    with pytest.raises(CorruptStoreError, match="safetensors is missing") as error:
        load_policy(saved)
    one_line(error)
    part.write_bytes(content[:-1])
    with pytest.raises(CorruptStoreError, match="checksum"):
        load_policy(saved)
    part.write_bytes(content)
    policy = saved / "policy.json"
    policy.write_bytes(policy.read_bytes()[:-5])
    with pytest.raises(CorruptStoreError):
        load_policy(saved)
    policy.unlink()
    with pytest.raises(DataError, match="has no policy"):
        load_policy(saved)


def resealed(folder, change):
    document = load_document(folder / "policy.json")
    change(document)
    (folder / "policy.json").write_bytes(dump_document(document))


def test_another_format_version_is_refused(saved):
    resealed(saved, lambda d: d.update(format_version=2))
    with pytest.raises(DataError, match="format version 2; 1 is required") as error:
        load_policy(saved)
    one_line(error)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("files"),
        lambda d: d["stages"][0].pop("calibration"),
        lambda d: d["stages"][0]["calibration"].update(slope="steep"),
        lambda d: d["stages"][0].update(fitted=None),
        lambda d: d["stages"][0].update(fitted="stage-7"),
        lambda d: d["evidence"].update(promises=3),
        lambda d: d["evidence"]["target"].update(risk=2.0),
        lambda d: d["evidence"].update(extra=1),
        lambda d: d.update(stages=[]),
    ],
)
def test_sealed_but_wrong_documents_are_refused_in_one_line(saved, change):
    resealed(saved, change)
    with pytest.raises(SightlineError) as error:
        load_policy(saved)
    one_line(error)


def promised(**changes):
    return lambda d: d["evidence"]["promises"][0]["guarantee"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(files={}),
        lambda d: d["stages"][0].update(fitted="../p/stage-0"),
        lambda d: d["stages"][0].update(spec={"name": "perplexity"}),
        lambda d: d["stages"][0].update(undecided=[0.1]),
        lambda d: d["evidence"].update(promises=[]),
        lambda d: d["evidence"]["promises"].append(d["evidence"]["promises"][0]),
        lambda d: d["evidence"]["target"].update(per_group="question_type"),
        promised(threshold=-5.0),
        promised(threshold=1e308),
        promised(risk=-1.0),
        promised(delta=9.0),
    ],
)
def test_sealed_nonsense_is_refused_before_it_decides(saved, change):
    resealed(saved, change)
    with pytest.raises(CorruptStoreError, match="its parts do not fit together") as error:
        load_policy(saved)
    one_line(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"score": "all"},
        {"level": 7.0},
        {"quantile": "high"},
        {"n": -4},
        {"penalty": -1.0},
        {"free": "x"},
        {"more": 1},
    ],
)
def test_sealed_nonsense_about_sets_is_refused(changes, tmp_path):
    save_policy(tmp_path / "p", with_sets()[0])
    resealed(tmp_path / "p", lambda d: d["sets"]["conformal"].update(changes))
    with pytest.raises(SightlineError) as error:
        load_policy(tmp_path / "p")
    one_line(error)


def test_a_request_that_no_model_could_be_asked_with_is_refused(tmp_path):
    save_policy(tmp_path / "p", plain()[0])
    resealed(
        tmp_path / "p",
        lambda d: d["evidence"]["origin"]["request"].update(max_new_tokens="lots"),
    )
    with pytest.raises(CorruptStoreError):
        load_policy(tmp_path / "p")


def test_a_stage_swapped_for_another_policys_is_refused(saved, tmp_path):
    """Whole and sealed anew, but not the estimator that the policy was certified with."""
    records, other = answers(900), "fusion:members=perplexity+min_token_probability"
    data = labelled(records, right_at(records), (0.3, 0.3, 0.4))
    save_policy(tmp_path / "other", fit_policy([other], data, Target(None, 0.8)))
    shutil.rmtree(saved / "stage-0")
    shutil.copytree(tmp_path / "other" / "stage-0", saved / "stage-0")
    digests = load_document(tmp_path / "other" / "policy.json")["files"]
    resealed(saved, lambda d: d.update(files=digests))
    with pytest.raises(CorruptStoreError, match="do not fit together"):
        load_policy(saved)


def test_no_directory_that_holds_something_is_written_into(saved, tmp_path):
    policy = load_policy(saved)
    with pytest.raises(DataError, match="holds a policy"):
        save_policy(saved, policy)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        save_policy(tmp_path / "other", policy)
    for wrong in (tmp_path / "other" / "file", tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no policy\.json"):
            load_policy(wrong)


def test_what_a_killed_writer_left_is_replaced(saved):
    policy = load_policy(saved)
    (saved / "policy.json").rename(saved / "policy.json.tmp.7.ab")
    (saved / "stage-0" / "arrays.safetensors.tmp.7.cd").write_bytes(b"half")
    (saved / "stage-3").mkdir()
    save_policy(saved, policy)
    assert load_policy(saved).decide(answers(20)) == policy.decide(answers(20))
    names = {path.name for path in saved.rglob("*")}
    assert names == {"policy.json", "stage-0", "fitted.json", "arrays.safetensors"}


@pytest.mark.parametrize("name", ["stage-0/mine", "stage-0/fitted.json.bak", "stages"])
def test_what_a_killed_writer_did_not_leave_is_kept(saved, name):
    policy = load_policy(saved)
    (saved / "policy.json").unlink()
    (saved / name).write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        save_policy(saved, policy)
    assert (saved / name).read_text() == "mine"


def test_a_pickle_in_its_place_is_never_read(tmp_path):
    (tmp_path / "policy.json").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00")
    with pytest.raises(CorruptStoreError):
        load_policy(tmp_path)


def test_the_document_is_readable_json_without_bare_infinities(saved):
    document = json.loads((saved / "policy.json").read_text())
    assert document["evidence"]["target"]["coverage"] == 0.8
    assert isinstance(load_policy(saved), TrustPolicy)
