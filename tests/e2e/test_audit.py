"""sightline audit on the embedded model: collect under perturbations, measure, resume."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO

import numpy as np
import pytest
import tokenizers
import torch
import transformers as tf
from click.testing import CliRunner
from PIL import Image

import sightline
from sightline.cli import cli
from sightline.core.audit_results import load_audit
from sightline.core.errors import DataError, UsageError
from sightline.core.features import CHANNELS, Feature
from sightline.core.protocols import Request
from sightline.core.text import answer_form
from sightline.data.images import load_image
from sightline.data.perturbations import parse_condition
from sightline.models import load_model
from sightline.report.audit_terminal import print_audit
from sightline.report.render import write_audit_report
from sightline.store.run import RunStore
from sightline.workflow.auditing.probe_rows import PROBES, ProbeSettings, load_probes
from sightline.workflow.auditing.probing import probe_run
from sightline.workflow.auditing.running import AuditSettings, audit_run

DATA = "scenes:test?n=18"
CONDITIONS = "jpeg:3,rotate:30,wording:1,unrelated:1"
FLAGS = ["-m", "embedded:vlm", "-d", DATA, "--conditions", CONDITIONS, "--resamples", "200"]
SIZES = ["--shard-size", "6", "--batch-size", "6", "--max-new-tokens", "8", "--spectra", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "run"
    result = CliRunner().invoke(cli, ["audit", *FLAGS, *SIZES, "-o", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


def test_the_command_collects_and_measures(run):
    path, document = run
    (audit,) = document["audits"]
    assert (
        load_audit(path / "audit" / "audit.json").rates[0].ifr.value
        == (audit["rates"][0]["ifr"]["value"])
    )
    assert audit["items"] == audit["protocol"]["unrelated"] == 18
    assert "unrelated:1" not in audit["protocol"]["conditions"]
    controls = {d["control"] for d in audit["drift"] if d["partners"]}
    assert {"other_images", "other_items", "paraphrases"} == controls
    assert {rates["name"] for rates in audit["rates"]} >= {"all", "rotation", "rotate:30"}
    assert (path / "audit" / "audit.csv").read_text().count("\n") > 18
    store = RunStore.open(path)
    assert store.available() >= CHANNELS - {Feature.CTX_MCQ, Feature.ANS_MCQ, Feature.ANS_MCQ_FREE}


def test_a_run_is_measured_again_without_its_model(run):
    path, document = run
    again = CliRunner().invoke(
        cli, ["audit", str(path), "--resamples", "200", "--spectra", "2", "--json"]
    )
    assert json.loads(again.stdout)["audits"] == document["audits"]
    shown = CliRunner().invoke(cli, ["audit", str(path), "--resamples", "200", "--spectra", "2"])
    assert "rotation" in shown.stdout
    assert "hide representations that move far" in shown.stdout


def test_the_geometry_of_every_channel_is_shown_where_asked_for(run, tmp_path):
    path, document = run
    page = tmp_path / "page.html"
    command = ["audit", str(path), "--resamples", "200", "--spectra", "2", "--geometry", "--json"]
    result = CliRunner().invoke(cli, [*command, "--report", str(page)])
    (audit,) = json.loads(result.stdout)["audits"]
    found = {(own["channel"], own["layer"]) for own in audit["similarities"]}
    places = {(own["channel"], own["layer"]) for own in audit["drift"]}
    assert found == {place for place in places if "mcq" not in place[0]}  # asked too seldom
    assert {**audit, "similarities": []} == {**document["audits"][0], "similarities": []}
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "CKA of clean with perturbed vectors, mean over" in text
    assert "18 answers about an unrelated picture" in text
    assert "Euclidean drift at the last layer by type" in text


def test_a_control_alone_is_nothing_to_audit(tmp_path):
    flags = ["-m", "fake", "-d", DATA, "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, ["audit", *flags, "--conditions", "unrelated"])
    assert isinstance(result.exception, UsageError)
    assert "clean, blank and controls" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_channels_see_no_change_where_there_is_none(run):
    """A full cyclic shift is the same picture: no flip, no drift, not even by rounding."""
    path, _ = run
    model = load_model("embedded:vlm")
    request = Request(max_new_tokens=8, layers=(0.5, 1.0), options=True, channels=True)
    for example in RunStore.open(path).examples()[:4]:
        image = load_image(example.images[0], path)
        shifted = parse_condition(f"translate:{image.width}").apply(image, example)
        assert np.array_equal(np.asarray(shifted), np.asarray(image.convert("RGB")))
        ((before,), (after,)) = (
            model.observe([example], [(own,)], request) for own in (image.convert("RGB"), shifted)
        )
        assert before.answer.text == after.answer.text
        for feature in CHANNELS & before.features.keys():
            assert np.array_equal(before.array(feature), after.array(feature)), feature


def test_a_blank_picture_moves_every_channel(run):
    path, _ = run
    model = load_model("embedded:vlm")
    request = Request(max_new_tokens=8, layers=(1.0,), channels=True)
    example = RunStore.open(path).examples()[0]
    image = load_image(example.images[0], path).convert("RGB")
    blank = Image.new("RGB", image.size, "white")
    (before, after) = (model.observe([example], [(i,)], request)[0] for i in (image, blank))
    for feature in (Feature.CTX_OPEN, Feature.VISION_ENCODED, Feature.VISION_PROJECTED):
        assert np.abs(before.array(feature) - after.array(feature)).max() > 0.01
    assert after.array(Feature.VISION_ENERGY) < before.array(Feature.VISION_ENERGY)


def test_a_killed_audit_goes_on_and_ends_alike(run, tmp_path):
    _, document = run
    command = [sys.executable, "-m", "sightline", "audit", *FLAGS, *SIZES]
    command += ["-o", str(tmp_path / "run"), "--display", "none"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while child.poll() is None and time.monotonic() < until:
        if list((tmp_path / "run").glob("shards/*.parquet")):
            os.kill(child.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    child.wait()
    left = len(list((tmp_path / "run").glob("shards/*.parquet")))
    assert 1 <= left <= 3
    result = CliRunner().invoke(
        cli, ["audit", *FLAGS, *SIZES, "-o", str(tmp_path / "run"), "--json"]
    )
    assert result.exit_code == 0, result.output
    (again,), (first,) = json.loads(result.stdout)["audits"], document["audits"]
    assert {**again, "path": ""} == {**first, "path": ""}


def test_flags_that_contradict_one_another(tmp_path):
    for flags, message in (
        ([], "No run to audit"),
        (["-m", "fake"], "Give -m, -d and -o"),
        ([str(tmp_path), "-o", str(tmp_path)], "Give runs"),
        (["-m", "fake", "-d", "scenes:test", "-o", "x", str(tmp_path)], "or runs alone"),
    ):
        result = CliRunner().invoke(cli, ["audit", *flags])
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)


def test_two_models_are_set_side_by_side(run, tmp_path):
    path, _ = run
    small = tmp_path / "small"
    flags = ["-m", "embedded:vlm-small", *FLAGS[2:], *SIZES]
    collected = CliRunner().invoke(cli, ["audit", *flags, "-o", str(small), "--json"])
    assert collected.exit_code == 0, collected.output
    store = RunStore.open(small)
    assert {Feature.VISION_ENERGY, Feature.VISION_ENCODED} <= store.available()
    page = tmp_path / "both.html"
    shown = CliRunner().invoke(
        cli,
        ["audit", str(path), str(small), "--resamples", "200", "--spectra", "2",
         "--sizes", "5e6,3e6", "--report", str(page)],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "A larger model flips as often although it is more often right" in shown.stdout
    assert page.read_text(encoding="utf-8").count("Side by side") >= 2


def test_frequencies_are_probed_and_a_stopped_probe_goes_on(run, tmp_path):
    path, _ = run
    own = tmp_path / "run"
    shutil.copytree(path, own)
    model = load_model("embedded:vlm")
    plan = ProbeSettings(questions=2, trials=1, steps=2)
    told, steps = [], []
    assert probe_run(own, model, plan, announce=told.append, progress=lambda *n: steps.append(n))
    assert steps == [(1, 2), (2, 2)]
    assert "about" in told[0]
    whole = (own / PROBES).read_bytes()
    (own / PROBES).unlink()
    assert not probe_run(own, model, plan, should_stop=(own / PROBES).exists)
    assert len(load_probes(own).questions) == 1
    asked = []
    assert probe_run(own, model, plan, progress=lambda *n: asked.append(n))
    assert asked == [(2, 2)]
    assert (own / PROBES).read_bytes() == whole
    first = load_probes(own).questions[0]
    assert first.agrees
    assert first.side == (48, 48)
    assert first.gradients == 4
    assert all(0 <= found.leakage < 0.2 for found in first.attacks.values())
    assert all(found.largest <= 8 / 255 + 1e-9 for found in first.attacks.values())
    found = audit_run(own, AuditSettings(resamples=200, spectra=0, budget=2)).audit
    assert found.probes.questions == 2
    assert found.probes.agreement.value == 1
    assert found.probes.filters[0].kept[0].value == 1
    assert found.probes.attacks[0].leakage_most == max(
        row.attacks["low"].leakage for row in load_probes(own).questions
    )
    assert [budget.target for budget in found.budgets] == [
        "the clean answer is wrong", "the answer flips more often than the median one",
    ]  # fmt: skip
    assert found.meaning[0].judge == "content words"
    write_audit_report([found], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Answers that stay under filters" in text
    printed = StringIO()
    print_audit(found, file=printed)
    said = " ".join(printed.getvalue().split())
    assert "attack within the high band: succeeds on" in said
    assert "budget, the clean answer is wrong:" in said
    assert "free answers by content words:" in said


def test_free_answers_are_probed_by_decoding_them_again(run, tmp_path):
    """The first free question: its clean answer is the collected one, and noise makes another."""
    path, _ = run
    own = tmp_path / "run"
    shutil.copytree(path, own)
    examples = {e.id: e for e in RunStore.open(own).examples()}
    first = {e.images: e for e in reversed(examples.values())}  # one question of every picture
    order = [e for e in examples.values() if first[e.images] == e]
    free = next(i for i, e in enumerate(order) if answer_form(e) not in ("choice", "yes_no"))
    plan = ProbeSettings(questions=free + 1, trials=1, steps=1, sizes=(16 / 255,))
    assert probe_run(own, load_model("embedded:vlm"), plan)
    rows = load_probes(own).questions
    assert [row.example_id for row in rows] == [e.id for e in order[: free + 1]]
    assert [row.free for row in rows] == [False] * free + [True]
    assert rows[free].agrees
    assert rows[free].attacks["low"].score_change <= 0
    assert 0 <= rows[free].attacks["low"].leakage < 0.2
    found = audit_run(own, AuditSettings(resamples=200, spectra=0)).audit
    assert found.probes.free == 1
    assert found.probes.questions == free + 1
    write_audit_report([found], tmp_path / "page.html")
    page = " ".join((tmp_path / "page.html").read_text(encoding="utf-8").split())
    assert "Answered freely: 1 of the questions." in page


def test_what_cannot_be_probed_is_one_line(run, tmp_path):
    path, _ = run
    for model, said in (
        ("fake", "does not show its gradients"),
        ("embedded:vlm-small", "same model"),
    ):
        result = CliRunner().invoke(cli, ["audit", str(path), "-m", model, "--probe", "1"])
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)
    result = CliRunner().invoke(cli, ["audit", str(path), "-m", "fake"])
    assert "nothing to ask it" in str(result.exception)
    (tmp_path / "audit").mkdir()
    (tmp_path / PROBES).write_text("[]")
    with pytest.raises(DataError, match="probe again"):
        load_probes(tmp_path)


def test_single_answers_are_evaluated_by_what_the_audit_found(run):
    path, _ = run
    estimators = ("flip_rate", "drift_share", "delta_energy", "sequence_probability")
    settings = sightline.Settings(estimators=estimators, resamples=100, seeds=2)
    evaluation = sightline.evaluate(path, settings)
    names = {e.name for e in evaluation.estimators} | {e.name for e in evaluation.not_applicable}
    assert set(estimators) <= names
    found = next(e for e in evaluation.estimators if e.name == "flip_rate")
    assert found.forward_passes > 0


def nli_model(path, texts, seed):
    """A random entailment model with a WordPiece tokenizer learned from the texts."""
    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = tokenizers.normalizers.Lowercase()
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    raw.train_from_iterator(
        texts, tokenizers.trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    )
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(special, ("pad", "unk", "cls", "sep"), strict=True))
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, **{f"{role}_token": token for token, role in names.items()}
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(seed)
    labels = dict(enumerate(("contradiction", "neutral", "entailment")))
    config = tf.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.6,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )
    tf.BertForSequenceClassification(config).save_pretrained(path)
    return path


def entails_both_ways(path, pairs):
    """By the model itself, each pair of texts alone."""
    model = tf.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(path)

    def entails(first, second):
        with torch.inference_mode():
            logits = model(**tokenizer([first], [second], return_tensors="pt")).logits[0]
        return model.config.id2label[int(logits.argmax())] == "entailment"

    return [a == b or (entails(a, b) and entails(b, a)) for a, b in pairs]


def test_free_answers_are_compared_by_an_entailment_model(run, tmp_path):
    """The command, with a whole model: each figure is what the model says of the stored answers."""
    own = tmp_path / "run"
    shutil.copytree(run[0], own)
    clean = {r.example.id: r for r in RunStore.open(own).records(condition="clean")}
    with (own / "audit" / "audit.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["form"] == "text"]
    pairs = []
    for row in rows:
        before = clean[row["example_id"]]
        said = (before.answer.text, row["answer"])
        pairs.append(tuple(f"{before.example.question} {text}" for text in said))
    assert len({text for pair in pairs for text in pair}) > 5
    # The first random model that holds some changed answers to say the same, and others not.
    for seed in range(50):
        nli = nli_model(tmp_path / f"nli{seed}", [text for pair in pairs for text in pair], seed)
        same = entails_both_ways(nli, pairs)
        reworded = [s for s, (a, b) in zip(same, pairs, strict=True) if a != b]
        if any(reworded) and not all(reworded):
            break
    assert any(reworded)
    assert not all(reworded)

    command = ["audit", str(own), "--resamples", "200", "--spectra", "2", "--entailment", str(nli)]
    result = CliRunner().invoke(cli, [*command, "--json"])
    assert result.exit_code == 0, result.output
    (audit,) = json.loads(result.stdout)["audits"]
    words, judged = audit["meaning"]
    assert words["judge"] == "content words"
    assert judged["judge"] == f"entailment by {nli.name}"
    with (own / "audit" / "audit.csv").open(encoding="utf-8", newline="") as file:
        after = [row for row in csv.DictReader(file) if row["form"] == "text"]
    assert [row["meaning_changed"] for row in after] == [str(not s) for s in same]
    counted = [i for i, row in enumerate(after) if not row["excluded"] and row["kind"] != "wording"]
    assert judged["changed"]["n"] == len(counted)
    assert judged["changed"]["value"] == pytest.approx(np.mean([not same[i] for i in counted]))
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.output
    assert f"free answers by entailment by {nli.name}:" in " ".join(shown.stdout.split())


def test_a_model_that_judges_no_entailment_is_one_line(run, tmp_path):
    path = nli_model(tmp_path / "nli", ["yes", "no"], 0)
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad", "2": "ugly"}
    (path / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(cli, ["audit", str(run[0]), "--entailment", str(path)])
    assert isinstance(result.exception, UsageError)
    assert "has the labels good, bad, ugly" in str(result.exception)
    assert "\n" not in str(result.exception)
