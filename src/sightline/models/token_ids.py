"""Token ids that a model's settings name: its end tokens, its place for the picture."""

from __future__ import annotations

from typing import Any

from sightline.core.errors import UsageError


def eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End tokens: those of the generation settings, then the tokenizer's own."""
    found: list[int] = []
    for ids in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if ids is not None:
            _require_ids("eos_token_id of generation_config.json or the tokenizer", ids)
            found += [ids] if isinstance(ids, int) else list(ids)
    if not found:
        raise UsageError(
            f"{model.config.model_type} names no end token in its generation settings or "
            "tokenizer; at least one is required. Add eos_token_id to generation_config.json."
        )
    return tuple(dict.fromkeys(found))


def first_set(config: Any, *names: str) -> int | None:
    """The first of some fields of a configuration that holds a token id; None where none does."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            _require_ids(f"{name} of config.json", value)
            return int(value)
    return None


def _require_ids(where: str, ids: Any) -> None:
    for value in ids if isinstance(ids, list) else [ids]:
        if not isinstance(value, int) or value < 0:
            raise UsageError(
                f"{where} is {value!r}; token ids, whole numbers, are required. Download the model "
                "again."
            )
