"""Tiny random models of every tested architecture, built from configurations, no download.

The weights' spread is large enough that distributions are far from flat and answers end at times.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sightline.core.types import Example, ImageRef
from sightline.models.inputs import images_only
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
        head = model.get_output_embeddings().weight
        head[4] *= 1.8
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


def llava_next() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = tf.LlavaNextConfig(
        text_config=tf.MistralConfig(**TEXT, sliding_window=None),
        vision_config=tf.CLIPVisionConfig(**CLIP),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_grid_pinpoints=pinpoints,
    )
    images = tf.LlavaNextImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=pinpoints,
    )
    processor = tf.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "'<image>'"),
    )
    return Tiny("llava_next", _finished(tf.LlavaNextForConditionalGeneration(config)), processor)


def llava_onevision() -> Tiny:
    tokenizer = byte_tokenizer("<video>", image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = tf.LlavaOnevisionConfig(
        text_config=tf.Qwen2Config(**TEXT),
        vision_config=tf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    images = tf.LlavaOnevisionImageProcessor(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
    )
    processor = images_only(tf.LlavaOnevisionProcessor)(
        images,
        tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "'<image>'"),
    )
    model = tf.LlavaOnevisionForConditionalGeneration(config)
    return Tiny("llava_onevision", _finished(model), processor)


def instructblip() -> Tiny:
    tokenizer = byte_tokenizer()
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    reader = byte_tokenizer()
    processor = tf.InstructBlipProcessor(
        tf.BlipImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        reader,
        num_query_tokens=6,
    )
    config = tf.InstructBlipConfig(
        text_config=tf.LlamaConfig(**TEXT),
        vision_config=tf.InstructBlipVisionConfig(
            **small, intermediate_size=64, image_size=32, patch_size=8, initializer_range=0.2
        ),
        qformer_config=tf.InstructBlipQFormerConfig(
            **small, intermediate_size=64, vocab_size=320, encoder_hidden_size=32
        ),
        num_query_tokens=6,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = tf.InstructBlipForConditionalGeneration(config)
    tiny_model = Tiny("instructblip", _finished(model), processor)
    model.language_model.generation_config = model.generation_config
    return tiny_model


def _qwen(name: str, config: Any, model_class: Any, processor_class: Any) -> Tiny:
    tokenizer = byte_tokenizer(
        "<|vision_start|>",
        "<|vision_end|>",
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )
    for token, field in {
        "<|image_pad|>": "image_token_id",
        "<|video_pad|>": "video_token_id",
        "<|vision_start|>": "vision_start_token_id",
        "<|vision_end|>": "vision_end_token_id",
    }.items():
        setattr(config, field, tokenizer.convert_tokens_to_ids(token))
    patch = config.vision_config.patch_size
    images = tf.Qwen2VLImageProcessor(
        patch_size=patch,
        merge_size=2,
        size={"shortest_edge": 4 * patch * patch, "longest_edge": 40 * patch * patch},
    )
    marker = "'<|vision_start|><|image_pad|><|vision_end|>'"
    processor = images_only(processor_class)(
        images, tokenizer, chat_template=CHAT.replace("IMAGE", marker)
    )
    return Tiny(name, _finished(model_class(config)), processor)


MROPE = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}


def qwen2_vl() -> Tiny:
    config = tf.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "mlp_ratio": 2,
        },
    )
    return _qwen("qwen2_vl", config, tf.Qwen2VLForConditionalGeneration, tf.Qwen2VLProcessor)


def qwen2_5_vl() -> Tiny:
    config = tf.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 48,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
    )
    return _qwen(
        "qwen2_5_vl", config, tf.Qwen2_5_VLForConditionalGeneration, tf.Qwen2_5_VLProcessor
    )


def qwen3_vl() -> Tiny:
    config = tf.Qwen3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 12,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "out_hidden_size": 48,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
    )
    return _qwen("qwen3_vl", config, tf.Qwen3VLForConditionalGeneration, tf.Qwen3VLProcessor)


def idefics3() -> Tiny:
    rows = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    tokenizer = byte_tokenizer(
        "<fake_token_around_image>",
        "<end_of_utterance>",
        "<global-img>",
        *rows,
        image_token="<image>",
    )
    config = tf.Idefics3Config(
        text_config=tf.LlamaConfig(**{**TEXT, "vocab_size": 352}),
        vision_config={**SIGLIP, "model_type": "idefics3_vision"},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = tf.Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = tf.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=CHAT.replace("IMAGE", "'<image>'")
    )
    return Tiny("idefics3", _finished(tf.Idefics3ForConditionalGeneration(config)), processor)


def paligemma() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    images = tf.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = tf.PaliGemmaProcessor(images, tokenizer)
    config = tf.PaliGemmaConfig(
        text_config=tf.GemmaConfig(**{**TEXT, "vocab_size": 1600, "head_dim": 12}),
        vision_config={**SIGLIP, "model_type": "siglip_vision_model", "projection_dim": 48},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=48,
        hidden_size=48,
    )
    model = tf.PaliGemmaForConditionalGeneration(config)
    return Tiny("paligemma", _finished(model), processor)


def internvl() -> Tiny:
    """Reads tiles without a chat template's help; its cache is put to the test when loaded."""
    tokenizer = byte_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    images = tf.GotOcr2ImageProcessor(
        size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=6
    )
    processor = images_only(tf.InternVLProcessor)(
        images,
        tokenizer,
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "'<IMG_CONTEXT>'"),
    )
    config = tf.InternVLConfig(
        text_config=tf.Qwen2Config(**TEXT),
        vision_config={
            **{k: v for k, v in SIGLIP.items() if k not in ("image_size", "patch_size")},
            "image_size": [32, 32],
            "patch_size": [8, 8],
            "model_type": "internvl_vision",
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return Tiny("internvl", _finished(tf.InternVLForConditionalGeneration(config)), processor)


BUILDERS = {
    builder.__name__: builder
    for builder in (
        llava,
        llava_next,
        llava_onevision,
        instructblip,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        idefics3,
        paligemma,
    )
}


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def example(name: str, question: str, *, images: int = 1, choices: Any = None) -> Example:
    refs = tuple(ImageRef(f"{name}-{i}.png", "0" * 64) for i in range(images))
    return Example(id=name, question=question, images=refs, choices=choices)
