"""Finding out what stands behind the base URLs before the first question is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sightline.core.differences import differences
from sightline.core.errors import EndpointError, SightlineError, UsageError
from sightline.data.prompts import PromptStyle
from sightline.models.openai.background import wait_for
from sightline.models.openai.capabilities import Capabilities, probe
from sightline.models.openai.model import EndpointModel
from sightline.models.openai.settings import WORDS, EndpointSettings
from sightline.models.openai.transport import FailedTryError, Transport

_HEADERS = ("server", "openai-version", "x-model-revision")
_LISTED = ("root", "max_model_len", "owned_by")
_STYLE = ("option", "short_instruction", "choice_instruction")
_LONGEST_LINE = 2000


@dataclass(frozen=True, slots=True)
class _Found:
    """What one server says of itself and was seen to do."""

    identity: dict[str, Any]
    capabilities: Capabilities


def load_endpoint(
    name: str,
    settings: EndpointSettings,
    *,
    style: PromptStyle | Mapping[str, Any] | None = None,
    blank_colour: str = "white",
) -> EndpointModel:
    """Probes every server and returns the model they serve.

    A server that cannot be reached now is asked later, as long as another one answers.

    Args:
        name: What the servers call the model.
        settings: Where they are.
        style: How examples become text; None = as the server words questions itself, where it says
            so, else the default. A mapping changes single fields of that.
        blank_colour: Colour of the image that stands for "no image".

    Raises:
        EndpointError: No server can be asked.
        UsageError: The servers differ, do not have the model, or give no greedy answer; the style
            has unknown fields.
        MissingExtraError: The HTTP client is not installed.
    """
    if not isinstance(style, PromptStyle):
        PromptStyle.from_dict(style or {})
    found: dict[str, _Found] = {}
    lost: list[EndpointError] = []
    for url in settings.base_urls:
        try:
            found[url] = wait_for(_examine(name, replace(settings, base_urls=(url,))))
        except EndpointError as error:
            lost.append(error)
    if not found:
        raise lost[0]
    first_url, first = next(iter(found.items()))
    for url, other in found.items():
        different = _different(first, other)
        if different:
            raise UsageError(
                f"{url} and {first_url} differ in {', '.join(different[:4])}; servers of one run "
                "must be alike. Leave one out, or start them alike."
            )
    return EndpointModel(
        name,
        settings,
        first.capabilities,
        first.identity,
        transport=Transport(settings),
        style=_chosen(style, first.identity.get(WORDS, {})),
        blank_colour=blank_colour,
    )


def _chosen(
    asked: PromptStyle | Mapping[str, Any] | None, servers: Mapping[str, Any]
) -> PromptStyle:
    """The style that was asked for, on top of the server's own, so that nothing is said twice."""
    if isinstance(asked, PromptStyle):
        return asked
    return PromptStyle.from_dict({**servers, **(asked or {})})


async def current_fingerprint(
    name: str,
    settings: EndpointSettings,
    *,
    style: PromptStyle,
    blank_colour: str,
    key: str | None = None,
) -> Mapping[str, Any]:
    """The fingerprint that a run collected from one server now would record.

    Args:
        name: What the server calls the model.
        settings: Where it is.
        style: How examples become text.
        blank_colour: Colour of the image that stands for "no image".
        key: The server's key, in place of the one that the settings name.

    Raises:
        EndpointError: The server cannot be asked.
        UsageError: It does not have the model, or gives no greedy answer.
        MissingExtraError: The HTTP client is not installed.
    """
    found = await _examine(name, settings, key)
    model = EndpointModel(
        name,
        settings,
        found.capabilities,
        found.identity,
        transport=Transport(settings, key),
        style=style,
        blank_colour=blank_colour,
    )
    return model.fingerprint()


async def _examine(name: str, settings: EndpointSettings, key: str | None = None) -> _Found:
    transport = Transport(settings, key)
    try:
        identity = await identity_of(transport, name)
        return _Found(identity, await probe(transport, name))
    finally:
        await transport.close()


async def identity_of(transport: Transport, name: str) -> dict[str, Any]:
    """The server's headers and version, and its entry for the model, where it shows them.

    Args:
        transport: To one server; it gets two short requests.
        name: What it calls the model.

    Raises:
        UsageError: It lists models, and this is none of them.
    """
    (server,) = transport.pool.servers
    identity: dict[str, Any] = {}
    try:
        models, headers = await transport.get(server, "models")
    except (FailedTryError, SightlineError):
        models, headers = {}, {}
    says = {key: headers[key] for key in _HEADERS if key in headers}
    try:
        version = (await transport.get(server, "/version"))[0].get("version")
    except (FailedTryError, SightlineError):
        version = None
    if isinstance(version, str):
        says["version"] = version
    if says:
        identity["server"] = says
    listed = models.get("data")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    names = [str(one.get("id")) for one in entries]
    if entries and name not in names:
        raise UsageError(
            f"{server.url} does not serve {name!r}; it serves {', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}. Name one of these behind openai:."
        )
    for one in entries:
        if one.get("id") == name:
            identity |= {key: one[key] for key in _LISTED if isinstance(one.get(key), str | int)}
            words = _words_of(one)
            if words is not None:
                identity[WORDS] = words.to_dict()
    return identity


def _words_of(entry: Mapping[str, Any]) -> PromptStyle | None:
    """The style in which a server words questions itself; None where it does not say so.

    It would give follow-up questions the instruction of a question, so that none can be asked.
    """
    listed = entry.get("prompt_style")
    if entry.get(WORDS) is not True or not isinstance(listed, Mapping):
        return None
    texts = {name: listed.get(name) for name in _STYLE}
    if not all(isinstance(text, str) and len(text) <= _LONGEST_LINE for text in texts.values()):
        return None
    style = PromptStyle.from_dict(texts)
    if "{text}" not in style.option:
        return None  # nobody would see what there is to choose from
    return replace(style, asks=()) if style.short_instruction else style


def _different(first: _Found, other: _Found) -> list[str]:
    return differences(
        {**first.identity, **first.capabilities.to_dict()},
        {**other.identity, **other.capabilities.to_dict()},
    )
