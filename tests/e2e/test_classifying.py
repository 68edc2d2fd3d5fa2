"""The embedded classifier from pictures to a page, by the command line; killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sightline.store.disk import is_temporary

pytest.importorskip("torch", reason="the models extra is not installed")
pytest.importorskip("transformers", reason="the models extra is not installed")

COMMAND = [
    "classify", "-m", "embedded:clip", "-d", "digits:test?n=120", "--support", "train",
    "--shots", "2", "--draws", "2", "--encoder", "embedded:encoder", "--shard-size", "16",
    "--batch-size", "16", "--display", "none",
]  # fmt: skip


def sightline(*arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def shards(run):
    return {
        str(file.relative_to(run)): file.read_bytes()
        for folder in ("shards", "classes/shards", "support/shards")
        for file in sorted((run / folder).iterdir())
        if not is_temporary(file.name)  # a killed writer leaves those; gc removes them
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("e2e") / "clip"
    sightline(*COMMAND, "-o", path)
    return path


def test_pictures_to_a_page(run):
    names = "msp,trustvlm_aux,trustvlm_aux_rescored,trustvlm_tuned"
    done = sightline("evaluate", run, "-e", names, "--resamples", "100", "--json")
    found = json.loads(done.stdout)
    assert found["classifier"]["classes"] == 10
    assert found["classifier"]["support"] == "clip"
    scores = found["classifier"]["scores"]
    assert set(scores) == set(names.split(","))
    assert scores["msp"]["mean"]["accuracy"] == pytest.approx(found["accuracy"]["value"])
    assert 0.3 < found["accuracy"]["value"] < 0.95
    page = sightline("report", run).stdout.strip()
    text = Path(page).read_text(encoding="utf-8")
    assert "Over the support draws" in text
    assert "uses support labels" in text
    assert sightline("runs", "verify", run).returncode == 0


def test_encoders_and_draws_as_the_published_code_has_them(tmp_path):
    sightline(
        *COMMAND[:COMMAND.index("--draws")], "--encoder", "embedded:encoder?pool=mean",
        "--encoder-preprocessing", "classifier", "--support-rule", "compat", "--views", "none",
        "--display", "none", "-o", tmp_path / "r",
    )  # fmt: skip
    names = "trustvlm_aux_compat,trustvlm_aux_rescored_compat"
    done = sightline("evaluate", tmp_path / "r", "-e", names, "--resamples", "100", "--json")
    found = json.loads(done.stdout)["classifier"]
    assert found["draws"] == 1
    assert found["encoders"] == ["encoder-mean"]
    for figures in found["scores"].values():
        assert 0 <= figures["mean"]["fpr95_nearest"] <= 1


def test_a_resnet_serves_as_auxiliary_encoder(tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    transformers.ResNetModel(config).save_pretrained(tmp_path / "resnet")
    transformers.ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(
        tmp_path / "resnet"
    )
    sightline(
        "classify", "-m", "embedded:clip", "-d", "digits:test?n=40", "--support", "train",
        "--shots", "2", "--draws", "1", "--encoder", tmp_path / "resnet", "--views", "none",
        "--display", "none", "-o", tmp_path / "r",
    )  # fmt: skip
    done = sightline(
        "evaluate", tmp_path / "r", "-e", "trustvlm_aux", "--resamples", "100", "--json"
    )
    assert json.loads(done.stdout)["classifier"]["encoders"] == ["resnet"]


def test_killed_at_any_moment_it_ends_with_the_same_bytes(run, tmp_path):
    path = tmp_path / "clip"
    for wait in (3.0, 4.5):
        process = subprocess.Popen(
            [sys.executable, "-m", "sightline", *COMMAND, "-o", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    sightline(*COMMAND, "-o", path)
    assert shards(path) == shards(run)


def test_the_same_command_again_changes_nothing(run):
    before = shards(run)
    sightline(*COMMAND, "-o", run)
    assert shards(run) == before


def test_the_embedded_model_chooses_among_the_first_classes(run, tmp_path):
    done = sightline(
        "rerank", run, "-m", "embedded:vlm", "-o", tmp_path / "vlm", "--question",
        "What digit is shown?", "--limit", "40", "--json", "--display", "none",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["before"]["n"] == found["after"]["n"] == 40
    assert found["change"]["value"] == pytest.approx(
        found["after"]["value"] - found["before"]["value"]
    )
    done = sightline(
        "evaluate", tmp_path / "vlm", "-e", "sequence_probability,recorded_confidence",
        "--resamples", "100", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["accuracy"]["value"] == pytest.approx(found["after"]["value"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "digits:test?n=9", "--classes", "digit 1"], "1 class was found"),
        (["--data", "digits:test?n=9", "--views", "x"], "--views 'x'"),
        (["--data", "nowhere"], "does not exist"),
        (["--data", "digits:test?n=9", "--classes", "cat,dog"], "their labels are 'digit "),
        (
            ["--data", "digits:test?n=9", "--encoder", "embedded:encoder?pool=max"],
            "sets 'pool=max'",
        ),
        (
            [
                "--data",
                "digits:test?n=9",
                "--support",
                "train",
                "--support-rule=compat",
                "--draws=2",
            ],
            "2 draws by the rule compat",
        ),
        (["--data", "digits:test?n=9", "--encoder-preprocessing", "classifier"], "with 0 encoders"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, said):
    done = sightline(
        "classify", "-m", "embedded:clip", *arguments, "-o", tmp_path / "r", check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_a_model_that_is_no_classifier(tmp_path):
    done = sightline(
        "classify", "-m", "embedded:vlm", "-d", "digits:test?n=9", "-o", tmp_path / "r", check=False
    )
    assert done.returncode == 2
    assert "image and a text tower" in done.stderr
