"""Starting the server: what is loaded, what is checked before a port opens, and how it listens."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import MissingExtraError, UsageError
from sightline.serving.limits import Limits

if TYPE_CHECKING:
    from sightline.core.protocols import VisionLanguageModel
    from sightline.serving.feedback import FeedbackStore
    from sightline.serving.forwarding import Served
    from sightline.serving.shared import Backend, Mode, Server
    from sightline.serving.trust import Judge

    _Make = Callable[[FeedbackStore | None], Backend]

BACKLOG = 1024
"""Clients that may wait for their connection to be taken up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``sightline serve`` is told.

    Attributes:
        model: As `sightline.models.loading.load_model` takes it, or the upstream's name for it.
        policy: Directory of a saved policy, or None.
        upstream: Base URL of an OpenAI-compatible server to stand before, or None.
        upstream_key: Its bearer key, or None.
        salted: Whether it is told to keep its prefix cache apart for every key of ours.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        keys: Bearer keys.
        mode: ``refuse`` withholds answers that the policy abstains from.
        feedback: Directory for graded outcomes, or None.
        estimators: Raw scores to show where there is no policy; None for the usual ones.
        max_new_tokens: Limit on answers where there is no policy.
        max_batch: Questions observed at once.
        window_s: Longest wait for a batch to fill.
        strict: Refuse unknown fields instead of dropping them.
        fetch_hosts: Hosts that images may be fetched from; none switches fetching off.
        text_models: Directory of the local text models that computed a policy's derived signals.
        model_options: More options for loading the model.
        limits: Limits on requests.
    """

    model: str
    policy: Path | None = None
    upstream: str | None = None
    upstream_key: str | None = None
    salted: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    mode: Mode = "flag"
    feedback: Path | None = None
    estimators: tuple[str, ...] | None = None
    max_new_tokens: int = 64
    max_batch: int = 16
    window_s: float = 0.01
    strict: bool = False
    fetch_hosts: tuple[str, ...] = ()
    text_models: Path | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


def check(settings: Settings) -> None:
    """Raises what is wrong with the settings, before anything is loaded.

    Raises:
        UsageError: The address is open to others without a key, settings contradict, or an
            estimator's raw scores cannot be shown.
        MissingExtraError: The extra ``serve`` is not installed.
    """
    require_serving()
    if not settings.keys and not is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host} can be reached from other machines; a bearer key is required "
            "there. Name the variable that holds one with --api-key-env, or listen on 127.0.0.1."
        )
    if settings.mode == "refuse" and settings.policy is None:
        raise UsageError(
            "--on-low-trust refuse without --policy; a policy is required to refuse by. "
            "Add --policy DIR."
        )
    if settings.feedback is not None and settings.policy is None:
        raise UsageError(
            "--feedback without --policy; a policy's confidences are required to watch. "
            "Add --policy DIR."
        )
    if settings.salted and settings.upstream is None:
        raise UsageError(
            "--cache-salt without --upstream; a server whose cache it keeps apart is required. "
            "Leave it out: a local model shares nothing between keys."
        )
    if settings.policy is not None and settings.estimators is not None:
        raise UsageError(
            f"--estimator {settings.estimators[0]} with --policy; either a policy, which has its "
            "own estimators, or raw scores are required. Leave one of them out."
        )
    if settings.policy is None and settings.estimators is not None:
        from sightline.serving.judging import require_raw_scores

        require_raw_scores(settings.estimators, upstream=settings.upstream is not None)


def require_serving() -> None:
    """Raises unless the extra ``serve`` is installed.

    Raises:
        MissingExtraError: It is not.
    """
    from importlib.util import find_spec

    for module in ("uvicorn", "h11", "httpx2", "python_multipart"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "serve", "sightline serve")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(one).is_loopback for one in found)


def build(settings: Settings) -> Server:
    """Loads model and policy and returns the server, not yet listening.

    Raises:
        SightlineError: Something cannot be loaded, or does not go together.
    """
    check(settings)
    from sightline.serving.feedback import FeedbackStore
    from sightline.serving.shared import Server

    make, judge = _upstream(settings) if settings.upstream is not None else _local(settings)
    store = None
    if settings.feedback is not None and judge is not None and judge.calibrator is not None:
        store = FeedbackStore(settings.feedback, judge.calibrator)
    return Server(
        backend=make(store),
        limits=settings.limits,
        mode=settings.mode,
        keys=settings.keys,
        strict=settings.strict,
        feedback=store,
        has_policy=settings.policy is not None,
    )


def serve(settings: Settings, announce: Callable[[str], None] = lambda _: None) -> None:
    """Loads what is asked for and answers until it is told to stop (SIGINT, SIGTERM).

    The port is taken first: loading can take minutes. Clients are taken up when all is loaded.

    Args:
        settings: What was asked for.
        announce: Called with one line once the port is open.

    Raises:
        SightlineError: The address cannot be listened on, or `build` raises.
    """
    check(settings)
    with bind(settings.host, settings.port) as bound:
        server = build(settings)
        open_to_clients(bound)
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        announce(f"sightline: serving {settings.model} on http://{shown}:{port}")
        _run(server, bound)


def _run(server: Server, listening: socket.socket) -> None:
    import uvicorn

    from sightline.serving.app import create_app
    from sightline.serving.protocol import protocol_class

    limits = server.limits
    config = uvicorn.Config(
        create_app(server),
        http=protocol_class(limits),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * limits.max_header_bytes,
        timeout_keep_alive=int(limits.header_s),
        timeout_graceful_shutdown=int(limits.request_s),
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listening])


def bind(host: str, port: int) -> socket.socket:
    """Takes a port; clients are refused until it is open to them.

    Raises:
        UsageError: The address is in use, not this machine's, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, TCP is known to asyncio, which then sends small parts of a stream without waiting.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise _not_free(host, port, error) from None
    return found


def open_to_clients(bound: socket.socket) -> None:
    """Opens a port that was taken; clients that come before the server runs wait in line.

    Raises:
        UsageError: Somebody who took it, too, opened it first.
    """
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise _not_free(host, port, error) from None


def listen(host: str, port: int) -> socket.socket:
    """Takes a port and opens it.

    Raises:
        UsageError: As for `bind` and `open_to_clients`.
    """
    found = bind(host, port)
    open_to_clients(found)
    return found


def _not_free(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"Cannot listen on {host}:{port} ({error.strerror}); a free port of this machine is "
        "required. Choose another --port."
    )


def _local(settings: Settings) -> tuple[_Make, Judge | None]:
    from sightline.models.loading import load_model
    from sightline.serving.judging import saved_judge

    judge = None
    if settings.policy is not None:  # before the model, which may take minutes to load
        judge = saved_judge(settings.policy, settings.text_models)
    model = load_model(settings.model, **settings.model_options)
    if judge is not None:
        judge.policy.check_model(model.fingerprint(), where="the model to serve")
    elif settings.estimators is not None:
        _require_shown(settings, model)
    return (lambda store: backend_of(settings, model, judge, store)), judge


def _require_shown(settings: Settings, model: VisionLanguageModel) -> None:
    """Requires that the model answers the follow-up questions, and scores the letters, that the
    scores to show are computed from.
    """  # noqa: D205 (one sentence over two lines)
    from sightline.workflow.requests import answerable, no_letters

    for spec in settings.estimators or ():
        (request,) = _raw_scores(replace(settings, estimators=(spec,))).requests
        line = answerable(request, model)[1] or no_letters((spec,), model)
        if line is not None:
            raise UsageError(
                f"--estimator {spec} needs what {settings.model} does not show; an estimator of "
                f"what it shows is required. {line} Or choose another."
            )


def _upstream(settings: Settings) -> tuple[_Make, Judge | None]:
    from sightline.serving.forwarding import Served
    from sightline.serving.judging import upstream_judge

    if settings.policy is None:
        served = Served(settings.model, frozenset({settings.model}))
        return (lambda store: proxy_of(settings, served, None, store)), None
    judge, served = upstream_judge(
        settings.policy,
        settings.model,
        settings.upstream or "",
        settings.upstream_key,
        settings.text_models,
    )
    return (lambda store: proxy_of(settings, served, judge, store)), judge


def proxy_of(
    settings: Settings, served: Served, judge: Judge | None, store: FeedbackStore | None
) -> Backend:
    """The backend before an upstream server.

    Args:
        settings: What was asked for; it names the upstream.
        served: What the upstream's model is known by.
        judge: Judges its answers; None for raw scores.
        store: Signs confidences; None where no feedback is kept.
    """
    from sightline.models.openai.settings import EndpointSettings
    from sightline.serving.fetching import Addresses
    from sightline.serving.listing import Listing
    from sightline.serving.proxy import Proxy
    from sightline.serving.trust import Trusting
    from sightline.serving.upstream import Connection

    (url,) = EndpointSettings((settings.upstream or "",)).base_urls
    limits = settings.limits
    return Proxy(
        served,
        Connection(url, settings.upstream_key, limits),
        Listing(url, settings.upstream_key),
        Trusting(judge or _raw_scores(settings), None if store is None else store.receipt),
        Addresses(limits, settings.fetch_hosts),
        limits,
        salted=settings.salted,
    )


def _raw_scores(settings: Settings) -> Judge:
    from sightline.serving.trust import RAW_SCORES, RawScores

    named = settings.estimators is not None
    return RawScores(settings.estimators or RAW_SCORES, settings.max_new_tokens, named)


def backend_of(
    settings: Settings,
    model: VisionLanguageModel,
    judge: Judge | None,
    store: FeedbackStore | None,
) -> Backend:
    """The backend of a local model, not yet started.

    Args:
        settings: What was asked for.
        model: The loaded model.
        judge: Judges its answers; None for raw scores.
        store: Signs confidences; None where no feedback is kept.
    """
    from sightline.data.prompts import PromptStyle
    from sightline.serving.decisions import AT_ONCE
    from sightline.serving.engine import Engine
    from sightline.serving.fetching import Addresses
    from sightline.serving.images import Decoders
    from sightline.serving.local import LocalModel
    from sightline.serving.trust import Trusting

    limits = settings.limits
    judge = judge or _raw_scores(settings)
    engine = Engine(
        model,
        judge,
        max_batch=settings.max_batch,
        max_queue=limits.concurrency * AT_ONCE,
        window_s=settings.window_s,
    )
    return LocalModel(
        settings.model,
        model,
        engine,
        Addresses(limits, settings.fetch_hosts),
        Decoders(limits),
        limits,
        Trusting(judge, None if store is None else store.receipt),
        PromptStyle.from_dict(model.fingerprint().get("prompt_style", {})),
    )
