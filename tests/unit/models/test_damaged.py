"""Copies of models with one file damaged, cut off or missing: always one clear line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.core.errors import ModelError, UsageError
from sightline.models import check_model, load_classifier, load_image_encoder, load_model
from sightline.models.embedded import embedded_model_path
from sightline.models.inputs import InputBuilder

Damage = Callable[[Path], object]
WEIGHTS = "model.safetensors"


def cut(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def holds(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def without(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def changed(name: str, key: str, value: Any) -> Damage:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        inner = settings
        *outer, last = key.split(".")
        for part in outer:
            inner = inner[part]
        inner[last] = value
        (folder / name).write_text(json.dumps(settings))

    return damage


def narrower(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = max(name for name, tensor in weights.items() if tensor.ndim == 2)
    weights[name] = weights[name][:1].clone()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def fewer(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights[max(weights)]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    listed = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": listed}))


COMMON = [
    (cut(WEIGHTS, 0.5), r"model\.safetensors has \d+ bytes where its header says \d+"),
    (cut(WEIGHTS, 0.001), r"model\.safetensors is no safetensors file"),
    (holds(WEIGHTS, ""), r"model\.safetensors is no safetensors file"),
    (holds(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "is no safetensors file"),
    (holds(WEIGHTS, (2).to_bytes(8, "little") + b"[]"), "is no safetensors file"),
    (without(WEIGHTS), r"holds no weights; model\.safetensors is required"),
    (sharded, r"has no model-2\.safetensors \(1 such\), which model\.safetensors\.index\.json"),
    (narrower, r"of shape 1 x \d+ where config\.json asks for \d+ x \d+"),
    (fewer, "has no weights for"),
    (holds("config.json", ""), r"config\.json is not JSON"),
    (holds("config.json", "null"), r"config\.json holds no JSON object"),
    (holds("config.json", "{}".encode("utf-16")), r"config\.json is not JSON"),
    (changed("config.json", "model_type", "nonsense"), "could not be loaded from its weights"),
]
TEXT = [
    (without("tokenizer.json"), r"has no tokenizer; tokenizer\.json .* is required"),
    (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
    (cut("tokenizer.json", 0.5), r"tokenizer\.json is not JSON"),
    (holds("tokenizer.json", "{}"), r"processor and tokenizer files .*KeyError"),
    (holds("tokenizer.json", "[]"), r"tokenizer\.json holds no JSON object"),
    (without("tokenizer_config.json"), "could not be loaded from its .*tokenizer files"),
    (without("processor_config.json"), r"has no processor settings; processor_config\.json"),
    (cut("processor_config.json", 0.5), r"processor_config\.json is not JSON"),
    (holds("processor_config.json", "{}"), "could not be loaded from its processor"),
    (changed("processor_config.json", "image_processor.size", "abc"), "could not be loaded"),
    (changed("processor_config.json", "image_processor.image_mean", [1]), "could not be loaded"),
]
SPEAKING = [
    (holds("prompt_style.json", "{"), r"prompt_style\.json is not JSON"),
    (holds("prompt_style.json", "[]"), r"prompt_style\.json holds no JSON object"),
    (holds("prompt_style.json", '{"option": 3}'), r"prompt_style\.json: Prompt style has 'option'"),
    (holds("prompt_style.json", b'{"option": "\xff"}'), r"prompt_style\.json is not JSON"),
    (holds("prompt_style.json", "[" * 100_000), r"prompt_style\.json is not JSON"),
    (lambda d: (without("prompt_style.json")(d), (d / "prompt_style.json").mkdir()), "a directory"),
    (holds("chat_template.jinja", "{% for %}"), "chat template fails .TemplateSyntaxError"),
    (holds("chat_template.jinja", "{{ raise_exception('no') }}"), "chat template fails"),
    (holds("chat_template.jinja", "{{ 1 / 0 }}"), "chat template fails .ZeroDivisionError"),
    (holds("chat_template.jinja", "hello"), "chat template of .* leaves out the question"),
    (holds("chat_template.jinja", b"\xff"), "could not be loaded from its processor"),
    (holds("generation_config.json", '{"eos_token_id": "x"}'), "eos_token_id .* is 'x'"),
    (changed("config.json", "image_token_id", "x"), r"image_token_id of config\.json is 'x'"),
    (changed("config.json", "image_token_id", 999_999), "have no place for the picture"),
    (changed("config.json", "text_config.hidden_size", "big"), "could not be loaded from its wei"),
    (changed("config.json", "text_config.num_attention_heads", 0), "ZeroDivisionError"),
    (changed("processor_config.json", "processor_class", "Nope"), "no processor of images and"),
    (changed("processor_config.json", "patch_size", None), "could not be loaded from its chat"),
]


def copy(name: str, folder: Path, damage: Damage) -> str:
    model = Path(shutil.copytree(embedded_model_path(name), folder / "damaged"))
    damage(model)
    return str(model)


def refused(load: Callable[[str], object], path: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?i){said}") as caught:
        load(path)
    assert "damaged" in str(caught.value) or "chat_template" in said or "json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("damage", "said"), [*COMMON, *TEXT, *SPEAKING])
def test_a_damaged_vision_language_model(damage: Damage, said: str, tmp_path: Path) -> None:
    refused(load_model, copy("vlm", tmp_path, damage), said)


@pytest.mark.parametrize(("damage", "said"), [*COMMON, *TEXT])
def test_a_damaged_classifier(damage: Damage, said: str, tmp_path: Path) -> None:
    refused(load_classifier, copy("clip", tmp_path, damage), said)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut(WEIGHTS, 0.5), "where its header says"),
        (narrower, "where config"),
        (fewer, "has no weights for"),
        (without("preprocessor_config.json"), "has no processor settings"),
        (holds("preprocessor_config.json", '{"image_processor_type": "No"}'), "could not be"),
    ],
)
def test_a_damaged_image_encoder(damage: Damage, said: str, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    model = tmp_path / "damaged"
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(model)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(model)
    load_image_encoder(str(model))
    damage(model)
    refused(load_image_encoder, str(model), said)


def test_damage_is_found_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="where its header says"):
        check_model(copy("vlm", tmp_path, cut(WEIGHTS, 0.9)))


def test_a_template_that_fails_on_one_question_fails_that_example() -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(embedded_model_path("vlm"))
    inputs = InputBuilder(processor, "llava", None)
    inputs.processor.chat_template = (
        "{{ messages[0].content[1].text }}"
        "{% if 'x' in messages[0].content[1].text %}{{ raise_exception('an x') }}{% endif %}"
    )
    assert inputs.prompt("What?", 1, where="Example 'a'") == "What?"
    with pytest.raises(ModelError, match=r"chat template fails .*an x"):
        inputs.prompt("What x?", 1, where="Example 'b'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", {"": "cuda:1"}, "meta"])
def test_a_device_that_is_not_here(device: Any) -> None:
    for load in (load_model, check_model):
        with pytest.raises(UsageError, match=r"Device \S+ is not on this machine .0 of type"):
            load("embedded:vlm", device_map=device)


def test_a_device_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="Device 'gpu' is unknown to PyTorch"):
        load_model("embedded:vlm", device_map="gpu")


@pytest.mark.parametrize("spec", ["fake", "embedded:vlm"])
def test_a_colour_that_is_none(spec: str) -> None:
    for load in (load_model, check_model):
        with pytest.raises(UsageError, match="'notacolour' is no colour"):
            load(spec, blank_colour="notacolour")
    assert load_model("fake", blank_colour="#c0c0c0")


def test_a_hub_that_cannot_be_reached_is_said_at_once(tmp_path: Path) -> None:
    code = (
        "import time; from sightline.core.errors import UsageError;"
        "from sightline.models import load_model; import transformers; start = time.monotonic()\n"
        "try: load_model('nobody/nothing')\n"
        "except UsageError as error: print(time.monotonic() - start, error)"
    )
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **away},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, _, message = done.stdout.partition(" ")
    assert "nobody/nothing has no readable config.json" in message
    assert done.stderr == ""
    assert float(seconds) < 10  # retrying takes 23 s of waiting alone
