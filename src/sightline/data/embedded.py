"""Image values as rows write them (paths, data URLs, base64, bytes), made into references."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, ImageError
from sightline.core.types import ImageRef
from sightline.data.fields import shown
from sightline.data.images import (
    FORMATS,
    ImageLimits,
    hash_image_file,
    image_extension,
    resolve_inside,
)

StoreImage = Callable[[bytes, str], ImageRef]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|//|file:", re.IGNORECASE)
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
_SUBSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MIN_BASE64 = 64
_MAX_PATH = 4096


class ImageReader:
    """Makes references of image values; remembers the hashes of files it has read.

    Attributes:
        root: Folder that paths start from and must stay in.
        store: Where embedded images are written, or None to refuse them.
        limits: Limits on the size of files.
    """

    def __init__(self, root: Path, store: StoreImage | None, limits: ImageLimits) -> None:
        self.root = root
        self.store = store
        self.limits = limits
        self._by_path: dict[str, ImageRef] = {}
        self._root = str(root)
        self._by_folder: dict[str, str] = {}
        self._by_number: dict[str, dict[int, list[str]]] = {}

    def ref(self, value: Any) -> ImageRef:
        """Returns the reference for one image value.

        Raises:
            DataError: The value is no image, or a URL, or a file that cannot be used.
        """
        if isinstance(value, dict):
            found = next((value[k] for k in ("bytes", "path", "url") if value.get(k)), None)
            if found is None or isinstance(found, dict):
                raise DataError(f"the image is {shown(value)}, without bytes or path")
            return self.ref(found)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._embedded(bytes(value))
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"the image is {shown(value)}, neither a path nor an image")
        value = value.strip()
        if value[:5].lower() == "data:":
            return self._embedded(self._data_url(value))
        if len(value) >= _MIN_BASE64 and value.startswith(_BASE64_STARTS):
            return self._embedded(self._base64(value))
        if _URL.match(value):
            raise DataError(f"the image is the URL {shown(value)}; images are never downloaded")
        return self._file(value)

    def is_file(self, value: str) -> bool:
        """Whether a path names a file of the image folder."""
        try:
            return resolve_inside(value, self.root).is_file()
        except (ImageError, OSError):
            return False

    def numbered(self, number: int, subset: str) -> str:
        """Finds the file whose name ends in a number, as COCO and VQA name their images.

        Args:
            number: The number.
            subset: Part of the data set, such as ``val2014``: a folder of that name is searched
                where there is one, else the root.

        Raises:
            DataError: No file of the folder, or more than one, has that number.
        """
        folder = self._subset_folder(subset)
        if folder not in self._by_number:
            self._by_number[folder] = self._numbers(folder)
        names = self._by_number[folder].get(number, [])
        if len(names) != 1:
            raise DataError(
                f"{len(names)} files in {self.root / folder} have the image_id {number}, not 1; "
                "name the folder of the images with --images"
            )
        return f"{folder}/{names[0]}" if folder else names[0]

    def _subset_folder(self, subset: str) -> str:
        """The folder's name, or empty for the root; the images of test-dev2015 are in test2015."""
        names = (subset, subset.replace("-dev", "")) if _SUBSET.fullmatch(subset) else ()
        return next((name for name in names if (self.root / name).is_dir()), "")

    def _numbers(self, folder: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        try:
            for path in sorted((self.root / folder).iterdir()):
                digits = re.search(r"([0-9]{1,18})$", path.stem)
                if digits is not None:
                    found.setdefault(int(digits[1]), []).append(path.name)
        except OSError as error:
            raise DataError(f"{self.root / folder} cannot be read ({error.strerror})") from None
        return found

    def _file(self, value: str) -> ImageRef:
        if value not in self._by_path:
            if len(value) > _MAX_PATH:
                raise DataError(
                    f"the image is {len(value)} characters of text, neither a path nor base64 of "
                    f"{', '.join(FORMATS)}"
                )
            path = self._inside(value)
            try:
                path.encode()
            except UnicodeEncodeError:
                raise DataError("the image's path is not UTF-8; rename the file") from None
            self._by_path[value] = ImageRef(path, hash_image_file(path, self.limits))
        return self._by_path[value]

    def _inside(self, value: str) -> str:
        """`sightline.data.images.resolve_inside`, asking the disk about each folder once."""
        folder, slash, name = value.rpartition("/")
        # Texts throughout: a Path costs more than the call it is made for, on every picture.
        linked = os.path.islink(os.path.join(self._root, value))  # noqa: PTH114, PTH118
        if linked or name in ("", ".", ".."):
            return str(resolve_inside(value, self.root))
        if folder + slash not in self._by_folder:
            self._by_folder[folder + slash] = str(resolve_inside(value, self.root).parent)
        return os.path.join(self._by_folder[folder + slash], name)  # noqa: PTH118

    def _embedded(self, data: bytes) -> ImageRef:
        if len(data) > self.limits.max_bytes:
            raise DataError(f"the image has {len(data)} bytes, over {self.limits.max_bytes}")
        extension = image_extension(data)
        if extension is None:
            raise DataError(f"the embedded image is none of {', '.join(FORMATS)}")
        if self.store is None:
            raise DataError("the image is embedded, and no folder was given to write it to")
        return self.store(data, extension)

    def _data_url(self, url: str) -> bytes:
        kind, comma, content = url[5:].partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise DataError(f"the data URL {shown(url)} is not base64")
        if not kind.lower().startswith("image/"):
            raise DataError(f"the data URL {shown(url)} is no image")
        return self._base64(content)

    def _base64(self, text: str) -> bytes:
        if len(text) > self.limits.max_bytes * 4 // 3 + 4096:
            raise DataError(f"the image has {len(text)} base64 characters, too many")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise DataError("the image is not valid base64") from None
