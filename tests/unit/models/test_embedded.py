"""The shipped models: present, small, documented, readable without the network."""

import json

import numpy as np
import pytest

from sightline.core.errors import UsageError
from sightline.models.embedded import EMBEDDED, embedded_model_card, embedded_model_path

LIMIT_BYTES = 12_000_000


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_model_is_shipped_whole(name):
    path = embedded_model_path(name)
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == [EMBEDDED[name].architecture]
    assert "auto_map" not in config
    assert EMBEDDED[name].size_bytes < LIMIT_BYTES
    assert f"embedded:{name}" in embedded_model_card(name)


def test_an_unknown_model_is_named():
    with pytest.raises(UsageError, match="'vml'"):
        embedded_model_path("vml")


@pytest.fixture(scope="module")
def processor():
    transformers = pytest.importorskip("transformers", reason="the models extra is not installed")
    return transformers.AutoProcessor.from_pretrained(embedded_model_path("vlm"))


def _prompt(processor, text):
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


def test_the_template_writes_picture_text_and_the_start_of_an_answer(processor):
    assert _prompt(processor, "Hi?") == "<user><image>Hi?<assistant>"
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "A"}]
    assert processor.apply_chat_template(turns) == "<user>Hi?<assistant>A<end>"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A. red\nB. blue", ["A", "red", "B", "blue"]),
        ("A", ["A"]),
        ("Is there a red circle?", ["is", "there", "a", "red", "circle", "?"]),
        ("A zebra, 42%", ["a", "<unk>", ",", "4", "2", "%"]),
        ("the option's letter.", ["the", "option", "'", "s", "letter", "."]),
    ],
)
def test_letters_words_and_digits_are_tokens_of_their_own(processor, text, tokens):
    tokenizer = processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == tokens


def test_a_picture_of_any_size_becomes_36_tokens(processor):
    from PIL import Image

    prompt = _prompt(processor, "What color is the circle?")
    image = Image.fromarray(np.zeros((90, 120, 3), dtype=np.uint8))
    inputs = processor(text=[prompt], images=[[image]], return_tensors="pt")
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert int((inputs["input_ids"] == image_id).sum()) == 36
    assert tuple(inputs["pixel_values"].shape) == (1, 3, 48, 48)
