"""Decoding and scoring behind a prefill: greedy and samples together, given answers one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xxhash
from jaxtyping import Float

from sightline.core.errors import ModelError
from sightline.models.prefill import Prefill

_NOT_FINITE = (
    "The model's logits hold NaN or infinity; finite logits are required. "
    "Load it with another dtype, such as bfloat16 or float32."
)


@dataclass(slots=True)
class Decoded:
    """One decoded row; lists grow by one per token.

    Attributes:
        ids: Token ids, end token included.
        logprobs: Nats, raw distribution.
        stopped: Whether an end token was produced.
        state: (l, d), the state that produced the last token, or None.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    state: torch.Tensor | None = None


@dataclass(slots=True)
class Detail:
    """What is kept of a greedy row beside its tokens, one entry per token.

    Attributes:
        entropy: Nats, over the full vocabulary.
        top_logprobs: (k,) each, descending.
        top_ids: (k,) each.
        hidden: (l, d) each, the state that produced the token.
    """

    entropy: list[float] = field(default_factory=list)
    top_logprobs: list[np.ndarray] = field(default_factory=list)
    top_ids: list[np.ndarray] = field(default_factory=list)
    hidden: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How samples are drawn.

    Attributes:
        temperature: Divides the logits; recorded log-probabilities are those before it.
        top_p: Smallest set of tokens whose probability reaches it; 1 = all.
    """

    temperature: float
    top_p: float


def decode(
    start: Prefill,
    *,
    uniforms: Float[np.ndarray, "b m t"],
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling,
    top_k: int = 0,
    told: Callable[[int, Decoded], None] | None = None,
) -> tuple[list[Decoded], list[Detail], list[list[Decoded]]]:
    """Decodes the greedy answer and m samples of every prompt, all rows together.

    Greedy takes the argmax of the raw distribution; a sample takes the first token, in id order,
    at which the cumulative probability passes its own next uniform number. Rows that have ended
    leave the batch once they are half of it.

    Args:
        start: The prefill.
        uniforms: Numbers in [0, 1) of every sample's tokens.
        max_new_tokens: Limit on tokens of a row.
        eos_ids: Tokens that end a row.
        sampling: How samples are drawn.
        top_k: Most likely tokens to keep of greedy rows.
        told: Called with a prompt and its greedy row after every token of it.

    Returns:
        Greedy rows, what was kept of them, and the samples of each prompt.
    """
    prompts, samples, _ = uniforms.shape
    width = 1 + samples
    device = start.log_probs.device
    decoded = [Decoded() for _ in range(prompts * width)]
    details = [Detail() for _ in range(prompts)]
    draws = torch.as_tensor(
        uniforms.reshape(prompts * samples, uniforms.shape[2]), device=_precise(device)
    )
    eos = torch.as_tensor(list(eos_ids), device=device)
    # Row numbers of the batch; every prompt's first row is its greedy one.
    alive = torch.arange(prompts * width, device=device)
    log_probs = start.log_probs.repeat_interleave(width, 0)
    hidden = None if start.hidden is None else start.hidden.repeat_interleave(width, 0)
    emitting = None if hidden is None else torch.empty_like(hidden)
    running = None
    ended = torch.zeros_like(alive, dtype=torch.bool)
    for step in range(max_new_tokens):
        greedy = alive % width == 0
        tokens = torch.empty_like(alive)
        tokens[greedy] = log_probs[greedy].argmax(-1)
        if samples:
            own = alive[~greedy].to(draws.device)
            draw = draws[own - own // width - 1, step]
            tokens[~greedy] = _drawn(log_probs[~greedy], draw, sampling)
        chosen = log_probs.gather(1, tokens[:, None])[:, 0]
        _record(decoded, alive, tokens, chosen, ended)
        kept = (greedy & ~ended).nonzero()[:, 0]
        owners = [details[i] for i in (alive[kept] // width).tolist()]
        _keep_detail(owners, log_probs[kept], None if hidden is None else hidden[kept], top_k)
        if emitting is not None and hidden is not None:
            going = ended[:, None, None].logical_not()
            emitting[alive] = torch.where(going, hidden.to(emitting.dtype), emitting[alive])
        ended = ended | torch.isin(tokens, eos)
        for row in alive[ended].tolist():
            decoded[row].stopped = True
        if told is not None:
            for prompt in (alive[kept] // width).tolist():
                told(prompt, decoded[prompt * width])
        if bool(ended.all()) or step + 1 == max_new_tokens:
            break
        if running is None:
            # The first step needs no cache: rows that ended at once are never copied.
            left = (~ended).nonzero()[:, 0]
            running = start.continued(alive[left] // width, room=max_new_tokens)
            alive, tokens, ended = alive[left], tokens[left], ended[left]
        elif int(ended.sum()) * 2 >= len(ended):
            left = (~ended).nonzero()[:, 0]
            running.keep(left)
            alive, tokens, ended = alive[left], tokens[left], ended[left]
        outputs = running.feed(tokens[:, None], states=hidden is not None)
        log_probs = torch.log_softmax(outputs.logits[:, -1].float(), -1)
        hidden = outputs.hidden
    if emitting is not None:
        for row, state in zip(decoded, emitting, strict=True):
            row.state = state
    per_prompt = [decoded[i * width : (i + 1) * width] for i in range(prompts)]
    return [rows[0] for rows in per_prompt], details, [rows[1:] for rows in per_prompt]


def score(
    start: Prefill, rows: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[Float[np.ndarray, " t"]]:
    """Log-probabilities of given continuations, each token after the ones before it.

    Args:
        start: The prefill.
        rows: Prefill row that each continuation continues.
        continuations: Token ids, at least one each.

    Returns:
        Float64 arrays in nats, one value per token. A shorter continuation is padded on the
        right, where causal attention cannot see it.
    """
    index = torch.as_tensor(list(rows), device=start.log_probs.device)
    padded = padded_tokens(continuations).to(index.device)
    lengths = [len(ids) for ids in continuations]
    logits = None
    if max(lengths) > 1:
        logits = start.continued(index, room=padded.shape[1]).feed(padded[:, :-1]).logits
    return log_probabilities(start, index, padded, logits, lengths)


def padded_tokens(continuations: Sequence[Sequence[int]]) -> torch.Tensor:
    """Tokens in one row each, (r, t), zeros behind the shorter ones."""
    padded = torch.zeros((len(continuations), max(map(len, continuations))), dtype=torch.long)
    for row, ids in enumerate(continuations):
        padded[row, : len(ids)] = torch.as_tensor(ids)
    return padded


def log_probabilities(
    start: Prefill,
    rows: torch.Tensor,
    padded: torch.Tensor,
    logits: torch.Tensor | None,
    lengths: Sequence[int],
) -> list[Float[np.ndarray, " t"]]:
    """Log-probabilities of continuations that have been fed.

    Args:
        start: The prefill.
        rows: (r,) prefill row of each continuation.
        padded: (r, t) their tokens.
        logits: (r, t - 1, v) behind every token but the last; None where all are single tokens.
        lengths: Tokens of each.

    Raises:
        ModelError: A value is NaN or infinite.
    """
    first = start.log_probs[rows, padded[:, 0]].cpu().double().numpy()
    if logits is None or padded.shape[1] == 1:
        return [value.reshape(1) for value in first]
    rest = _chosen(logits, padded[:, 1:]).cpu().double().numpy()
    scored = [
        np.concatenate([first[row : row + 1], rest[row, : length - 1]])
        for row, length in enumerate(lengths)
    ]
    if not all(np.isfinite(values).all() for values in scored):
        raise ModelError(_NOT_FINITE)
    # Rounding of the normaliser can leave a certain token a hair above log 1.
    return [np.minimum(values, 0.0) for values in scored]


def sample_uniforms(seed: int, example_id: str, samples: int, tokens: int) -> np.ndarray:
    """Uniform numbers of an example's samples, (m, t); sample i's depend on i alone."""
    return np.array(
        [
            np.random.default_rng(
                xxhash.xxh3_128_intdigest(f"{seed}\x1f{index}\x1f{example_id}".encode())
            ).random(tokens)
            for index in range(samples)
        ]
    ).reshape(samples, tokens)


def _chosen(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of ids without building the full log-softmax, row by row."""
    return torch.stack(
        [
            row.gather(1, own[:, None])[:, 0] - row.logsumexp(-1)
            for row, own in zip(map(torch.Tensor.float, logits), ids, strict=True)
        ]
    )


def _precise(device: torch.device) -> torch.device:
    """Where double precision is to be had: Apple's GPUs have none."""
    return torch.device("cpu") if device.type == "mps" else device


def _drawn(log_probs: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    behind = log_probs.to(uniform.device).double()
    # The likeliest at 0, so that no temperature is too small.
    behind = behind - behind.amax(-1, keepdim=True)
    probs = torch.softmax(behind / sampling.temperature, -1)
    if sampling.top_p < 1:
        ranked, order = probs.sort(stable=True, dim=-1, descending=True)
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p
        probs = probs.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), 0)
    steps = probs.cumsum(-1)
    total = steps[:, -1:]
    # Below the total, so that rounding never picks a token of probability zero behind the last.
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform[:, None] * total, below)
    return torch.searchsorted(steps, target, right=True)[:, 0].to(log_probs.device)


def _record(
    decoded: list[Decoded],
    alive: torch.Tensor,
    tokens: torch.Tensor,
    chosen: torch.Tensor,
    ended: torch.Tensor,
) -> None:
    # A GPU is waited for once per transfer.
    rows, ids, over = torch.stack([alive, tokens, ended.long()]).tolist()
    for row, token, logprob, done in zip(rows, ids, chosen.tolist(), over, strict=True):
        if not math.isfinite(logprob):
            raise ModelError(_NOT_FINITE)
        if not done:
            decoded[row].ids.append(token)
            decoded[row].logprobs.append(min(logprob, 0.0))


def _keep_detail(
    owners: Sequence[Detail], log_probs: torch.Tensor, hidden: torch.Tensor | None, top_k: int
) -> None:
    # Zero probabilities (log -inf) add nothing to the entropy.
    entropy = -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)
    for detail, value in zip(owners, entropy.clamp_min(0).tolist(), strict=True):
        detail.entropy.append(value)
    if top_k and owners:
        best = log_probs.topk(min(top_k, log_probs.shape[1]), -1)
        values, ids = best.values.cpu().numpy(), best.indices.cpu().numpy()
        for i, detail in enumerate(owners):
            detail.top_logprobs.append(values[i])
            detail.top_ids.append(ids[i])
    if hidden is not None:
        for detail, state in zip(owners, hidden, strict=True):
            detail.hidden.append(state)
