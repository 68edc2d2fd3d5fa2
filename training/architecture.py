"""The tiny LLaVA: its sizes and its starting weights.

Sizes and starting scales are those of the first trial that learned to use its picture; see
README.md for what was tried.
"""

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

SIDE, PATCH, WIDTH = 48, 8, 128
IMAGE_TOKENS = (SIDE // PATCH) ** 2


def build_vlm(
    vocabulary: int, ids: dict[str, int], *, layers: int = 5, seed: int = 0
) -> LlavaForConditionalGeneration:
    """Returns an untrained model; ``ids`` gives image, padding and end tokens."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
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
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=ids["image"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
        eos_token_id=ids["end"],
    )
    model = LlavaForConditionalGeneration(config).float()
    _start(model)
    return model


@torch.no_grad()
def _start(model: LlavaForConditionalGeneration) -> None:
    """Sets the starting weights."""
    for name, weight in model.model.language_model.named_parameters():
        if weight.dim() == 2:
            weight.normal_(0, 0.06)
        elif "norm" in name:
            weight.fill_(1.0)
    for weight in model.model.multi_modal_projector.parameters():
        if weight.dim() == 2:
            weight.normal_(0, weight.shape[1] ** -0.5)
        else:
            weight.zero_()
    parameters = dict(model.model.vision_tower.named_parameters())
    patch = next(w for n, w in parameters.items() if "patch_embedding" in n)
    patch.normal_(0, 0.05)
    table = next(w for n, w in parameters.items() if "position_embedding" in n)
    grid = SIDE // PATCH
    rows = torch.randn(grid, 1, WIDTH) * 0.3
    columns = torch.randn(1, grid, WIDTH) * 0.3
    table.zero_()
    table[1:] = (rows + columns).reshape(grid * grid, WIDTH)
