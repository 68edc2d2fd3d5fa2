"""Whether the upstream is the one that a policy was fitted on.

It is examined as ``doctor`` does, and compared with what the policy's run recorded, before a port
opens. One that cannot be asked then, or is gone for a while later, is examined while the server
runs; until it has been found the same, no answer has a confidence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import EndpointError, SightlineError, UsageError
from sightline.data.prompts import PromptStyle
from sightline.models.openai.background import wait_for
from sightline.models.openai.loading import current_fingerprint
from sightline.models.openai.settings import EndpointSettings
from sightline.workflow.policy.trust import TrustPolicy

LONGEST_S = 120.0
"""Seconds that examining the upstream may take in all."""

_LONGEST_REQUEST_S = 30.0
_AGAIN_S = 5.0
_LONGEST_PAUSE_S = 60.0
_LOG = logging.getLogger("sightline.serving")

NOT_KNOWN = (
    "the upstream could not be reached and was not examined since: whether it is the model that "
    "the policy was fitted on is not known"
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
        self._policy, self._name, self._key = policy, name, key
        self._settings = EndpointSettings(
            (url,), timeout_s=_LONGEST_REQUEST_S, image_format=self._recorded("image_format", "png")
        )

    def check(self) -> None:
        """Examines the upstream; one that cannot be asked now leaves the doubt.

        Raises:
            UsageError: It is another, or is served otherwise.
        """
        wait_for(self._check())

    def lose(self) -> None:
        """Doubts an upstream that is gone: what comes back may be another."""
        if self.doubt is None:
            self.doubt = NOT_KNOWN
            self._doubted.set()

    async def watch(self) -> None:
        """Examines the upstream whenever there is a doubt that an examination can end."""
        while self.doubt != OTHER:
            await self._settle()
            self._doubted.clear()
            await self._doubted.wait()

    async def _settle(self) -> None:
        """Examines the upstream until it could be asked; then the doubt is gone, or stays."""
        pause = _AGAIN_S
        while self.doubt == NOT_KNOWN:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                await self._check()
            except SightlineError as error:
                self.doubt = OTHER
                _LOG.error("No answer has a confidence: %s", error)

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                found = await self._fingerprint()
        except (EndpointError, TimeoutError) as error:
            why = f"not within {LONGEST_S:g} s" if isinstance(error, TimeoutError) else str(error)
            _LOG.warning("No answer has a confidence until the upstream was examined: %s", why)
            return
        self._policy.check_model(found, where="the upstream")
        self.doubt = None

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
