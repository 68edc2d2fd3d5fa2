"""Building a scorer, and writing it down as settings and arrays.

Imports torch: import this module where it is used.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from sightline.core.errors import DataError, MissingExtraError
from sightline.estimators.token_sequence import TokenSequence
from sightline.estimators.token_start import word_rows
from sightline.estimators.token_text import BUCKETS, HashedText, SubtokenText, TextCode
from sightline.estimators.token_transformer import (
    Pooled,
    Pretrained,
    Scorer,
    Transformer,
    batch,
    compact_table,
    start_tensors,
)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What rebuilds a scorer apart from its weights, JSON-serialisable.

    Attributes:
        pooled: Whether it averages positions instead of attending to them.
        start: Numbers that its linear start reads of an answer; None for no such start.
        state_width: Entries of a state, None where none is read.
        image_width: Entries of the mean state over the image, None where not read.
        encoder: Configuration of the pretrained text encoder; None for the compact one.
        tokenizer: The pretrained encoder's fast tokenizer, as it writes itself.
        first: Its id that a sequence begins with.
        last: Its id that separates and ends.
    """

    pooled: bool
    start: int | None
    state_width: int | None
    image_width: int | None
    encoder: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    first: int = 0
    last: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {**asdict(self), "encoder": None if self.encoder is None else dict(self.encoder)}


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A pretrained text encoder.

    Attributes:
        model: The encoder.
        tokenizer: Its fast tokenizer, as it writes itself.
        first: Id that a sequence begins with.
        last: Id that separates and ends.
    """

    model: Any
    tokenizer: str
    first: int
    last: int


def load_encoder(name: str) -> Encoder:
    """Loads a pretrained text encoder by its directory or hub name.

    Raises:
        DataError: It cannot be loaded, or its tokenizer has no fast form or no special tokens.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "models", "a pretrained text encoder") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"Text encoder {name!r} cannot be loaded ({reason}); a directory or hub name of a text "
            "encoder of transformers is required. Correct it, or use compact."
        ) from error
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if not tokenizer.is_fast or first is None or last is None:
        raise DataError(
            f"Text encoder {name!r} has no fast tokenizer with a start and a separator token; "
            "both are required. Use one of the line of RoBERTa or BERT, or compact."
        )
    return Encoder(model, tokenizer.backend_tokenizer.to_str(), int(first), int(last))


def blueprint(
    *,
    pooled: bool,
    start: int | None,
    state_width: int | None,
    image_width: int | None,
    encoder: Encoder | None,
) -> Blueprint:
    """The blueprint of a scorer, with a pretrained encoder or without."""
    if encoder is None:
        return Blueprint(pooled, start, state_width, image_width)
    written = json.loads(encoder.model.config.to_json_string(use_diff=False))
    config = {name: value for name, value in written.items() if name != "_name_or_path"}
    tokens = (encoder.tokenizer, encoder.first, encoder.last)
    return Blueprint(pooled, start, state_width, image_width, config, *tokens)


def text_code(blueprint: Blueprint) -> TextCode:
    """What turns texts into rows of the scorer's table."""
    if blueprint.tokenizer is None:
        return HashedText()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(blueprint.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return SubtokenText(tokenizer, blueprint.first, blueprint.last)


def table_rows(blueprint: Blueprint) -> int:
    """Rows of the scorer's text table."""
    if blueprint.encoder is None:
        return BUCKETS
    return int(blueprint.encoder["vocab_size"])


def build(
    blueprint: Blueprint,
    states: np.ndarray | None,
    images: np.ndarray | None,
    encoder: Encoder | None,
) -> Scorer:
    """A new scorer, its own weights drawn from torch's random state.

    Args:
        blueprint: What to build.
        states: Training states, by whose mean and spread they are standardised.
        images: Training mean states over the image.
        encoder: The pretrained encoder, which is copied; None for the compact one.
    """
    if blueprint.encoder is None:
        table = compact_table()
        body: nn.Module = Pooled(table.embedding_dim) if blueprint.pooled else Transformer()
        return Scorer(table, body, states, images, start=blueprint.start)
    model = _encoder_model(blueprint.encoder)
    if encoder is not None:
        model.load_state_dict(encoder.model.state_dict())
    table = nn.Embedding(*model.get_input_embeddings().weight.shape)
    with torch.no_grad():
        table.weight.copy_(model.get_input_embeddings().weight)
    body = Pooled(table.embedding_dim) if blueprint.pooled else Pretrained(model)
    return Scorer(table, body, states, images, start=blueprint.start)


def weights(scorer: Scorer) -> dict[str, np.ndarray]:
    """All weights and fixed numbers by name."""
    return {name: tensor.numpy().copy() for name, tensor in scorer.state_dict().items()}


def rebuild(blueprint: Blueprint, arrays: Mapping[str, np.ndarray]) -> Scorer:
    """The scorer whose weights were written down.

    Raises:
        ValueError: The arrays are not those of this blueprint.
    """

    def like(width: int | None) -> np.ndarray | None:
        return None if width is None else np.zeros((1, width))

    with torch.random.fork_rng(devices=[]):
        scorer = build(blueprint, like(blueprint.state_width), like(blueprint.image_width), None)
    try:
        scorer.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in arrays.items()})
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return scorer.eval()


def log_odds(
    scorers: Sequence[Scorer], answers: Sequence[TokenSequence], device: torch.device
) -> Float[np.ndarray, "n k"]:
    """Log-odds of being right by answer and scorer, each answer through the network by itself."""
    out = np.empty((len(answers), len(scorers)))
    with torch.inference_mode():
        for column, scorer in enumerate(scorers):
            rows = scorer.table.num_embeddings
            placed = scorer if device.type == "cpu" else copy.deepcopy(scorer).to(device)
            if placed.is_start_alone():  # the same numbers, without the network's work for nothing
                out[:, column] = _from_start(placed, answers, device)
                continue
            for row, answer in enumerate(answers):
                out[row, column] = placed(batch([answer], rows, device)).item()
    return out


def _from_start(
    scorer: Scorer, answers: Sequence[TokenSequence], device: torch.device
) -> Float[np.ndarray, " n"]:
    """Log-odds where the network adds nothing.

    Answers of equally many words go together: a sum over words that were filled up would differ in
    its last bits.
    """
    held = [word_rows(answer, scorer.table.num_embeddings) for answer in answers]
    alike: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(held):
        alike[len(own)].append(row)
    out = np.empty(len(answers))
    for rows in alike.values():
        chosen = [answers[row] for row in rows]
        numbers, words = start_tensors(chosen, [held[row] for row in rows], device)
        out[rows] = scorer.from_start(numbers, words).cpu().numpy()
    return out


def _encoder_model(config: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModel

    values = {name: value for name, value in config.items() if name != "model_type"}
    return AutoModel.from_config(AutoConfig.for_model(config["model_type"], **values))
