"""From the address of an image to its bytes: data URLs, and nothing else unless switched on."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.serving.errors import RequestError
from sightline.serving.images import read_data_url
from sightline.serving.limits import Limits


class DataUrls:
    """Reads data URLs only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def __call__(self, addresses: Sequence[str], param: str) -> list[bytes]:
        """The bytes of each image.

        Raises:
            RequestError: An address is no data URL of an image.
        """
        return [self._read(address, param) for address in addresses]

    def _read(self, address: str, param: str) -> bytes:
        if not address[:5].lower() == "data:":
            raise RequestError(
                "Images are not fetched from addresses here; a data URL "
                "(data:image/png;base64,…) is required. Send the image itself.",
                param=param,
                code="fetching_off",
            )
        return read_data_url(address, self._limits, param)
