"""The tiny models: their sizes, their starting weights, and where their parts are.

`LLAVA` is the main one; `IDEFICS3` is smaller and reads each cell of a picture as one token.
Starting scales are those of the first trial that learned to use its picture; see README.md for
what was tried.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3VisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

SIDE, PATCH = 48, 8
GRID = SIDE // PATCH
PATCHES = GRID**2


@dataclass(frozen=True)
class Architecture:
    """Where a model keeps its parts.

    Attributes:
        name: As on the command line.
        width: Of the vision tower and of the language model.
        layers: Of the language model.
        prefix: Tokens from the start of the user's turn to the end of the picture.
        create: Builds the untrained model from (vocabulary size, token ids, width, layers).
        tower: Path of the vision tower below ``model.model``.
        connector: Path of what turns patches into image tokens.
        language: Path of the language model.
        class_token: Whether the tower's output starts with a token that is no patch.
    """

    name: str
    width: int
    layers: int
    prefix: tuple[str, ...]
    create: Callable[[int, dict[str, int], int, int], PreTrainedModel]
    tower: str
    connector: str
    language: str
    class_token: bool

    def build(self, vocabulary: int, ids: dict[str, int], *, seed: int = 0) -> PreTrainedModel:
        """Returns an untrained model; ``ids`` gives image, padding and end tokens."""
        torch.manual_seed(seed)
        model = self.create(vocabulary, ids, self.width, self.layers).float()
        self._start(model)
        return model

    def part(self, model: PreTrainedModel, name: str) -> nn.Module:
        """Returns ``tower``, ``connector`` or ``language`` of a model."""
        return model.model.get_submodule(getattr(self, name))

    def patches(self, model: PreTrainedModel, images: torch.Tensor) -> torch.Tensor:
        """Returns the tower's patches (n, 36, width) of pictures (n, 3, 48, 48)."""
        states = self.part(model, "tower")(images).last_hidden_state
        return states[:, 1:] if self.class_token else states

    @torch.no_grad()
    def _start(self, model: PreTrainedModel) -> None:
        """Sets the starting weights."""
        for name, weight in self.part(model, "language").named_parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.06)
            elif "norm" in name:
                weight.fill_(1.0)
        for weight in self.part(model, "connector").parameters():
            if weight.dim() == 2:
                weight.normal_(0, weight.shape[1] ** -0.5)
            else:
                weight.zero_()
        parameters = dict(self.part(model, "tower").named_parameters())
        patch = next(w for n, w in parameters.items() if "patch_embedding.weight" in n)
        patch.normal_(0, 0.05)
        table = next(w for n, w in parameters.items() if "position_embedding" in n)
        rows = torch.randn(GRID, 1, self.width) * 0.3
        columns = torch.randn(1, GRID, self.width) * 0.3
        table.zero_()
        table[-PATCHES:] = (rows + columns).reshape(PATCHES, self.width)


def _text_config(vocabulary: int, ids: dict[str, int], width: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
        bos_token_id=ids["pad"],
        eos_token_id=ids["end"],
    )


def _vision_sizes(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
    }


def _llava(vocabulary: int, ids: dict[str, int], width: int, layers: int) -> PreTrainedModel:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision_sizes(width), projection_dim=width),
        text_config=_text_config(vocabulary, ids, width, layers),
        image_token_id=ids["image"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=PATCHES,
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
        eos_token_id=ids["end"],
    )
    model = LlavaForConditionalGeneration(config)
    for name, parameter in model.model.vision_tower.named_parameters():
        if "post_layernorm" in name:  # LLaVA reads the patches before it
            parameter.requires_grad_(False)
    return model


def _idefics3(vocabulary: int, ids: dict[str, int], width: int, layers: int) -> PreTrainedModel:
    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(**_vision_sizes(width)),
        text_config=_text_config(vocabulary, ids, width, layers),
        image_token_id=ids["image"],
        scale_factor=2,
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
    )
    return Idefics3ForConditionalGeneration(config)


LLAVA = Architecture(
    name="llava",
    width=128,
    layers=5,
    prefix=("<user>", *["<image>"] * PATCHES),
    create=_llava,
    tower="vision_tower",
    connector="multi_modal_projector",
    language="language_model",
    class_token=True,
)
LLAVA_NARROW = replace(LLAVA, name="llava-narrow", width=80, layers=4)
IDEFICS3 = Architecture(
    name="idefics3",
    width=96,
    layers=4,
    prefix=(
        "<user>",
        "<fake_token_around_image>",
        "<global-img>",
        *["<image>"] * (PATCHES // 4),
        "<fake_token_around_image>",
    ),
    create=_idefics3,
    tower="vision_model",
    connector="connector",
    language="text_model",
    class_token=False,
)
ARCHITECTURES = {a.name: a for a in (LLAVA, LLAVA_NARROW, IDEFICS3)}
