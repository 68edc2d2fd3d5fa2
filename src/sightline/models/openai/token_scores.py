"""Log-probabilities of first tokens that a request names by id, where the server lists those.

The likeliest tokens show some spellings of a letter and not others; named by id, all that are one
token are shown, in one request. A reply that lacks one of them says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from sightline.models.openai.scoring import logprob_of_spellings
from sightline.models.openai.transport import Transport
from sightline.models.openai.wire import Step, single_token

AT_ONCE = 16
"""Tokens named in one request."""


def forms(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts by themselves and after a space, each once: what `token_ids` asks for.

    Example:
        >>> forms(["A", "B", "A"])
        ('A', ' A', 'B', ' B')
    """
    return tuple(dict.fromkeys(form for text in texts for form in (text, f" {text}")))


async def token_ids(
    transport: Transport,
    name: str,
    texts: Sequence[str],
    known: dict[str, asyncio.Task[int | None]],
    *,
    attempts: int | None = None,
) -> tuple[int, ...]:
    """Ids of the tokens that spell one of the texts, by itself or after a space, as one token.

    Args:
        transport: Asks the servers.
        name: What they call the model.
        texts: The texts.
        known: Requests made or under way, by form; receives new ones, and loses those that fail.
        attempts: Tries of each request; None = those of the settings.

    Raises:
        NotServedError: The servers have no tokeniser.
        ModelError: It fails while they answer other requests.
        EndpointError: No server answers.
    """

    async def ask(form: str) -> int | None:
        payload = {"model": name, "prompt": form, "add_special_tokens": False}
        return await transport.post("/tokenize", payload, single_token, attempts=attempts)

    found = []
    for form in forms(texts):
        if form not in known:
            known[form] = asyncio.ensure_future(ask(form))
            known[form].add_done_callback(partial(_forget, known, form))
        # Others may wait for the same request: it goes on where this caller is cancelled.
        found.append(await asyncio.shield(known[form]))
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _forget(
    known: dict[str, asyncio.Task[int | None]], form: str, task: asyncio.Task[int | None]
) -> None:
    """Drops a request that gave no answer."""
    if task.cancelled() or task.exception() is not None:
        del known[form]


def groups(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of texts whose tokens are named in one request.

    Args:
        sizes: Tokens of each text.
        most: Most tokens that the server shows per place; the generated one may be among them.

    Example:
        >>> list(groups([2, 2, 14, 1], 20)), list(groups([2, 2, 2], 5))
        ([[0, 1], [2, 3]], [[0, 1], [2]])
    """
    room = min(AT_ONCE, most - 1)
    group: list[int] = []
    for index, size in enumerate(sizes):
        if group and sum(sizes[i] for i in group) + size > room:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def naming(ids: Sequence[int], most: int) -> Mapping[str, Any]:
    """Fields that ask for the log-probabilities of these tokens.

    Args:
        ids: The tokens.
        most: Most tokens that the server shows per place.
    """
    shown = max(1, min(len(ids) + 1, most))
    return {"logprobs": True, "top_logprobs": shown, "logprob_token_ids": list(ids)}


def listed(step: Step, spellings: Sequence[str], count: int) -> float | None:
    """Log-probability that one of the spellings comes first, from a place with named tokens.

    Args:
        step: The first place of the reply.
        spellings: The texts that were named, white space aside.
        count: Tokens that were named for them.

    Returns:
        None where fewer of them are shown, or nothing was named.
    """
    wanted = {spelling.encode() for spelling in spellings}
    shown = [piece for piece in step.top if piece.raw.strip() in wanted]
    if not count or len(shown) < count:
        return None
    return logprob_of_spellings(step, spellings)
