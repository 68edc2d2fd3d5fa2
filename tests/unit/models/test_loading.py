"""What a model may be named, what is refused before any import, and what identifies it."""

from __future__ import annotations

import copy
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import example, picture

from sightline.core.errors import UsageError
from sightline.core.protocols import Request
from sightline.models import load_model

REQUEST = Request(max_new_tokens=4, n_samples=1)


@pytest.fixture
def copied(saved_llava: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_llava, tmp_path / "copied"))


@pytest.mark.parametrize(
    "spec", ["missing", "./missing/model", "tests/missing", "/no/where", "~x/y"]
)
def test_a_missing_path_is_one_clear_error_at_once(spec: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match="does not exist; a model directory"):
        load_model(spec)
    assert time.monotonic() - started < 1


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        load_model(str(tmp_path))


def test_an_unreachable_hub_name() -> None:
    with pytest.raises(UsageError, match="nobody/nothing has no readable config"):
        load_model("nobody/nothing")


def test_an_unknown_dtype(saved_llava: Path) -> None:
    with pytest.raises(UsageError, match="dtype 'int3'"):
        load_model(str(saved_llava), dtype="int3")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_beside_the_model_is_refused_before_import(copied: Path, name: str) -> None:
    settings = json.loads((copied / name).read_text())
    settings["auto_map"] = {"AutoConfig": "evil.Config", "AutoProcessor": "evil.Processor"}
    (copied / name).write_text(json.dumps(settings))
    trace = copied / "ran"
    (copied / "evil.py").write_text(f"open({str(trace)!r}, 'w').write('ran')")
    with pytest.raises(UsageError, match=f"{name} of .* names code to run"):
        load_model(str(copied))
    assert not trace.exists()


def test_a_nested_internal_attention_is_refused(copied: Path) -> None:
    settings = json.loads((copied / "config.json").read_text())
    settings["text_config"]["_attn_implementation_internal"] = "someone/kernel"
    (copied / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="_attn_implementation_internal"):
        load_model(str(copied))


def test_damaged_settings_are_named(copied: Path) -> None:
    (copied / "generation_config.json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        load_model(str(copied))


def test_a_model_of_another_kind(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"copied is a model of another kind \(BertConfig\); an "):
        load_model(str(copied))


def test_a_classifier_is_no_model_that_answers() -> None:
    with pytest.raises(UsageError) as refused:
        load_model("embedded:clip")
    assert str(refused.value) == (
        "embedded:clip is a model of another kind (CLIPConfig); an image-text-to-text model of "
        "transformers is required. Name another model."
    )


def test_a_saved_model_answers_as_the_one_in_memory(tiny_llava, saved_llava: Path) -> None:
    asked = [example("a", "What is it?")]
    images = [(picture(3, (40, 20)),)]
    loaded = load_model(str(saved_llava))
    (one,) = loaded.observe(asked, images, REQUEST)
    (other,) = tiny_llava.observer().observe(asked, images, REQUEST)
    np.testing.assert_array_equal(one.answer.token_ids, other.answer.token_ids)
    np.testing.assert_allclose(one.answer.logprobs, other.answer.logprobs, atol=1e-5)
    assert loaded.fingerprint()["name"] == "tiny-llava"
    assert loaded.fingerprint()["dtype"] == "float32"


def test_half_precision_on_request(saved_llava: Path) -> None:
    model = load_model(str(saved_llava), dtype="bfloat16", device_map="cpu")
    assert model.fingerprint()["dtype"] == "bfloat16"
    (record,) = model.observe([example("a", "What?")], [(picture(1, (9, 9)),)], REQUEST)
    assert np.isfinite(record.answer.logprobs).all()


@pytest.mark.parametrize("device_map", [None, "cpu", "auto"])
def test_a_half_precision_checkpoint_runs_in_float32_on_the_cpu(
    tiny_llava, tmp_path: Path, device_map: str | None
) -> None:
    if torch.cuda.is_available() and device_map != "cpu":
        pytest.skip("a GPU keeps the checkpoint's precision")
    path = tmp_path / "half"
    copy.deepcopy(tiny_llava.model).half().save_pretrained(path)
    tiny_llava.processor.save_pretrained(path)
    model = load_model(str(path), device_map=device_map)
    assert model.fingerprint()["dtype"] == "float32"
    (record,) = model.observe([example("a", "What?")], [(picture(1, (9, 9)),)], REQUEST)
    assert np.isfinite(record.answer.logprobs).all()


def test_the_fingerprint_sees_other_weights_and_other_settings(copied: Path) -> None:
    before = load_model(str(copied)).fingerprint()
    assert load_model(str(copied)).fingerprint() == before
    weights = load_file(copied / "model.safetensors")
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    name = name if name in weights else next(n for n in weights if n.endswith("up_proj.weight"))
    weights[name] = weights[name] + torch.tensor(1e-3)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    after = load_model(str(copied)).fingerprint()
    assert after["files_xxh3"] != before["files_xxh3"]
    assert {**after, "files_xxh3": 0} == {**before, "files_xxh3": 0}
    template = copied / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    other = load_model(str(copied)).fingerprint()
    assert other["chat_template_sha256"] != after["chat_template_sha256"]


def test_missing_weights_are_not_made_up(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    dropped = next(name for name in weights if name.endswith("up_proj.weight"))
    del weights[dropped]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"has no weights for .*up_proj"):
        load_model(str(copied))


def test_loading_is_silent(saved_llava: Path, capfd: pytest.CaptureFixture) -> None:
    load_model(str(saved_llava))
    assert capfd.readouterr() == ("", "")


def test_a_model_brings_its_own_prompt_style(copied: Path) -> None:
    (copied / "prompt_style.json").write_text('{"short_instruction": "One word."}')
    style = load_model(str(copied)).fingerprint()["prompt_style"]
    assert style["short_instruction"] == "One word."


def test_a_changed_instruction_keeps_the_rest_of_the_models_own_style():
    model = load_model("embedded:vlm", style={"short_instruction": "Be brief."})
    style = model.fingerprint()["prompt_style"]
    assert style["short_instruction"] == "Be brief."
    assert style["choice_instruction"] == "Answer with the option's text."
