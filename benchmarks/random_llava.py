"""A random LLaVA of about 30 million parameters with 576 image tokens, built without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sightline.core.types import Example
from sightline.models.transformers import TransformersModel
from sightline.store.images import image_writer

TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ':' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ ' <image>' }}"
    "{% else %}{{ ' ' + c['text'] }}{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHOICES = ("a red bus", "two small dogs", "nothing at all", "the green door")


def build() -> tuple[TransformersModel, Any, Any]:
    """Returns the observer, the model and the processor."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = tf.LlavaConfig(
        text_config=tf.LlamaConfig(
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            vocab_size=4096,
            max_position_embeddings=2048,
            initializer_range=0.05,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        ),
        vision_config=tf.CLIPVisionConfig(
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=336,
            patch_size=14,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = tf.LlavaForConditionalGeneration(config).eval()
    model.generation_config = tf.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    processor = tf.LlavaProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return TransformersModel(model, processor, identity={"name": "random-llava"}), model, processor


def questions(count: int, folder: Path, *, choices: bool) -> list[Example]:
    """Examples with JPEG photographs of 640 x 480 noise, written below the folder."""
    import io

    rng = np.random.default_rng(0)
    write = image_writer(folder)
    made = []
    for i in range(count):
        coarse = rng.integers(0, 255, size=(48, 64, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(coarse).resize((640, 480)).save(data, "JPEG", quality=90)
        made.append(
            Example(
                id=f"q{i}",
                question=f"What is at position {i}?",
                images=(write(data.getvalue(), "jpg"),),
                choices=CHOICES if choices else None,
            )
        )
    return made


def _tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocab = {token: i for i, token in enumerate([*words, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
