"""Whether the upstream is the one that a policy was fitted on.

It is examined as ``doctor`` does, and compared with what the policy's run recorded, before a port
opens. Whatever speaks for a change later starts a further examination: that it cannot be reached,
what its answers say of their origin, several in a row that show less than the run's did, and a look
at what it lists of itself, which requests bring about at most every ten seconds. Until it has been
found the same (again), no answer has a confidence.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import EndpointError, SightlineError, UsageError
from sightline.data.prompts import PromptStyle
from sightline.models.openai.background import wait_for
from sightline.models.openai.loading import current_fingerprint, identity_of
from sightline.models.openai.settings import EndpointSettings
from sightline.models.openai.transport import Transport
from sightline.models.openai.wire import Choice, Reply
from sightline.workflow.policy.trust import TrustPolicy

LONGEST_S = 120.0
"""Seconds that examining the upstream may take in all."""

_LONGEST_REQUEST_S = 30.0
_AGAIN_S = 5.0
_LONGEST_PAUSE_S = 60.0
_LOOK_AGAIN_S = 10.0
_LOOKING_S = 3.0
_MOST_MARKS = 16
_BARE_IN_A_ROW = 3
"""A server that stopped showing log-probabilities shows none at all; single filtered or refused
answers have none anywhere, and take nobody else's confidence."""
_LOG = logging.getLogger("sightline.serving")

NOT_KNOWN = (
    "the upstream could not be reached and was not examined since: whether it is the model that "
    "the policy was fitted on is not known"
)
CHANGED = (
    "the upstream shows signs of a change and was not examined since: whether it still is the "
    "model that the policy was fitted on is not known"
)
OTHER = "the upstream is not the model, or not served as the model, that the policy was fitted on"


class Identity:
    """Whether the upstream is the one that a policy was fitted on.

    Args:
        policy: Fitted on a run that was collected from an endpoint.
        name: What the upstream calls the model.
        url: Its base URL.
        key: Its bearer key, or None.

    Attributes:
        doubt: Why its answers have no confidence, or None once it was found the same. It reaches
            clients, so it names no address.
    """

    def __init__(self, policy: TrustPolicy, name: str, url: str, key: str | None) -> None:
        self.doubt: str | None = NOT_KNOWN
        self._doubted = asyncio.Event()
        self._doubtful_again = False
        self._since = self._looked_at = -math.inf
        self._marks = set[str]()
        self._bare, self._patience = 0, _BARE_IN_A_ROW
        self._look: asyncio.Task[None] | None = None
        self._policy, self._name, self._key = policy, name, key
        self._settings = EndpointSettings(
            (url,), timeout_s=_LONGEST_REQUEST_S, image_format=self._recorded("image_format", "png")
        )
        self._transport: Transport | None = None

    def check(self) -> None:
        """Examines the upstream; one that cannot be asked now leaves the doubt.

        Raises:
            UsageError: It is another, or is served otherwise.
        """
        wait_for(self._check())

    def lose(self) -> None:
        """Doubts an upstream that is gone: what comes back may be another."""
        self._marks.clear()
        self._suspect(NOT_KNOWN)

    def lacks_logprobs(self, choice: Choice) -> bool:
        """Whether an answer lacks the log-probabilities that those of the policy's run had."""
        return self._showed_logprobs and bool(choice.text) and not choice.steps

    def hear(self, reply: Reply, choice: Choice, models: Collection[str], *, alike: bool) -> None:
        """Takes signs of a change from an answer that was asked for as the policy's were.

        Args:
            reply: What the upstream says.
            choice: The answer.
            models: Names under which the policy's model answers.
            alike: Whether no setting of the client can have changed what the answer shows.
        """
        if reply.model is not None and reply.model not in models:
            self._suspect(CHANGED)
        mark = reply.system_fingerprint
        if mark is not None and mark not in self._marks:
            if self._marks:
                self._suspect(CHANGED)
            # What an examination finds the same under this mark, too, needs no further one.
            self._marks = {mark, *list(self._marks)[: _MOST_MARKS - 1]}
        if choice.steps:
            self._bare = 0
        elif alike and self.lacks_logprobs(choice):
            self._bare += 1
            if self._bare >= self._patience:
                self._suspect(CHANGED)

    def glance(self) -> None:
        """Begins a look at what the upstream lists of itself, unless there was one just now."""
        now = time.monotonic()
        if self.doubt is None and now - self._looked_at > _LOOK_AGAIN_S:
            self._looked_at = now
            self._look = asyncio.create_task(self._compare_listed())

    async def glanced(self) -> None:
        """Waits for the look that is going on, if one is."""
        if self._look is not None and not self._look.done():
            await asyncio.wait((self._look,))

    async def watch(self) -> None:
        """Examines the upstream whenever there is a doubt, ever more seldom while there is."""
        pause = _AGAIN_S
        while True:
            if self.doubt is None:
                self._doubted.clear()
                await self._doubted.wait()
                if time.monotonic() - self._since > _LONGEST_PAUSE_S:
                    pause = _AGAIN_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                await self._check()
            except SightlineError as error:
                if self.doubt != OTHER:
                    _LOG.error("No answer has a confidence: %s", error)
                self.doubt = OTHER
                self._bare, self._patience = 0, _BARE_IN_A_ROW

    async def close(self) -> None:
        """Ends a look that is going on, and closes its connection."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        if self._transport is not None:
            await self._transport.close()

    def _suspect(self, why: str) -> None:
        self._doubtful_again = True
        if self.doubt is None:
            _LOG.warning("No answer has a confidence for now: %s", why)
            self.doubt = why
            self._doubted.set()

    async def _check(self) -> None:
        self._doubtful_again = False
        try:
            async with asyncio.timeout(LONGEST_S):
                found = await self._fingerprint()
        except (EndpointError, TimeoutError) as error:
            why = f"not within {LONGEST_S:g} s" if isinstance(error, TimeoutError) else str(error)
            _LOG.warning("No answer has a confidence until the upstream was examined: %s", why)
            return
        self._policy.check_model(found, where="the upstream")
        if self._doubtful_again:
            self.doubt = CHANGED  # it changed, or was gone, while it was examined
            return
        if self._since > -math.inf:
            _LOG.warning("The upstream was examined and is the policy's: answers have confidences.")
        self.doubt, self._since = None, time.monotonic()
        self._looked_at = self._since
        if self._bare >= self._patience:
            # Its answers to somebody's questions are no sign, then: such questions can be repeated.
            self._patience *= 2
        self._bare = 0

    async def _compare_listed(self) -> None:
        """Doubts an upstream that lists anything of itself that the policy's run did not record.

        What it does not list now says nothing: whether it answers is seen by asking it.
        """
        if self._transport is None:
            self._transport = Transport(self._settings, self._key)
        try:
            async with asyncio.timeout(_LOOKING_S):
                listed = await identity_of(self._transport, self._name)
        except TimeoutError:
            return
        except UsageError:  # the model is not among those that it lists
            self._suspect(CHANGED)
            return
        if not all(_agrees(value, self._recorded(name, None)) for name, value in listed.items()):
            self._suspect(CHANGED)

    @property
    def _showed_logprobs(self) -> bool:
        return bool(self._recorded("capabilities", {}).get("logprobs"))

    async def _fingerprint(self) -> Mapping[str, Any]:
        return await current_fingerprint(
            self._name,
            self._settings,
            style=PromptStyle.from_dict(self._recorded("prompt_style", {})),
            blank_colour=self._recorded("blank_image", "white"),
            key=self._key,
        )

    def _recorded(self, name: str, default: Any) -> Any:
        origin = self._policy.evidence.origin
        return default if origin is None else origin.model.get(name, default)


def _agrees(listed: object, recorded: object) -> bool:
    """Whether all that is listed was recorded; less may be listed."""
    if isinstance(listed, Mapping) and isinstance(recorded, Mapping):
        return all(_agrees(value, recorded.get(name)) for name, value in listed.items())
    return listed == recorded


def require_endpoint(policy: TrustPolicy, path: Path) -> None:
    """Requires a policy that was fitted on answers of an endpoint.

    Args:
        policy: The policy.
        path: Its directory, for the message.

    Raises:
        UsageError: Its answers were those of a model that was loaded, whose log-probabilities no
            endpoint shows as they were.
    """
    origin = policy.evidence.origin
    if origin is None or origin.model.get("endpoint") != "openai":
        raise UsageError(
            f"The policy {path} was fitted on answers of a model that was loaded, not asked over "
            "an endpoint, where other signals are shown; a policy fitted on the upstream's answers "
            "is required. Run 'sightline collect -m openai:NAME --base-url URL' and 'sightline "
            "calibrate' on that run."
        )
