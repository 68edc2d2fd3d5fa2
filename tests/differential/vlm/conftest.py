"""Tiny random models of every tested architecture, built from configurations, no download.

The weights' spread is large enough that distributions are far from flat and answers end at times.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sightline.core.types import Example, ImageRef
from sightline.models.inputs import PartsProcessor
from sightline.models.transformers import TransformersModel

CHAT = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ IMAGE }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{{ m['role'].upper() + ':' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ ' ' + IMAGE }}"
    "{% else %}{{ ' ' + c['text'] }}{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """One model with its processor; ``marker`` is its image token."""

    name: str
    model: Any
    processor: Any

    def observer(self) -> TransformersModel:
        return TransformersModel(self.model, self.processor, identity={"name": self.name})


def byte_tokenizer(*special: str, **named: str) -> Any:
    """One token a byte: every text has an exact round trip."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", "<|start|>", "<|end|>", "<unk>", *special, *named.values()]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*words, *alphabet]))}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in words])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=named or None,
    )


TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 4,
    "pad_token_id": 0,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
    "initializer_range": 0.25,
}
SIGLIP = {k: v for k, v in CLIP.items() if k != "projection_dim"}


def _finished(model: Any) -> Any:
    """Spreads the weights, favours the end token, and sets a trap in the generation settings."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
            elif "norm" not in name and "ln" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    model.generation_config = tf.GenerationConfig(
        bos_token_id=1,
        eos_token_id=[4, 2],
        pad_token_id=0,
        do_sample=True,
        temperature=0.3,
        top_k=5,
        repetition_penalty=1.7,
        min_length=5,
        suppress_tokens=[40, 41, 42],
    )
    return model.eval()


def llava() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    config = tf.LlavaConfig(
        text_config=tf.LlamaConfig(**TEXT),
        vision_config=tf.CLIPVisionConfig(**CLIP),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    images = tf.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = tf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA.replace("IMAGE", "'<image>'"),
    )
    return Tiny("llava", _finished(tf.LlavaForConditionalGeneration(config)), processor)


BUILDERS = {"llava": llava}


@pytest.fixture(scope="session", params=list(BUILDERS))
def tiny(request: pytest.FixtureRequest) -> Tiny:
    torch.manual_seed(0)
    return BUILDERS[request.param]()


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def example(name: str, question: str, *, images: int = 1, choices: Any = None) -> Example:
    refs = tuple(ImageRef(f"{name}-{i}.png", "0" * 64) for i in range(images))
    return Example(id=name, question=question, images=refs, choices=choices)
