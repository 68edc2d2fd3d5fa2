"""What is asked of a classifier and of image encoders: vectors, one record a picture or class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError, ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, ImageRef, Record
from sightline.data.image_sets import prompts
from sightline.data.vector_files import file_sha256, read_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

VIEWS = ("mirror", "gray")
"""Transformed versions of a picture that are embedded beside it."""

_SHORTEST, _LONGEST = 1e-18, 1e18  # lengths whose squares single precision holds


class Classifier(Protocol):
    """A model that turns pictures and texts into vectors of one space."""

    scale: float
    bias: float
    sigmoid: bool

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model."""
        ...

    def image_vectors(self, images: Sequence[Image]) -> Float[np.ndarray, "n d"]:
        """Unit vectors of RGB pictures."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "k d"]:
        """Unit vectors of texts."""
        ...


class PictureEncoder(Protocol):
    """Gives a vector for every picture, by looking at it or by knowing its name."""

    @property
    def name(self) -> str:
        """What scores that use it are called by."""
        ...

    @property
    def width(self) -> int:
        """Width of its vectors."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies it."""
        ...

    def lacks(self, example: Example) -> str | None:
        """Why it can give no vector for a picture, or None."""
        ...

    def require_own(self, examples: Sequence[Example]) -> None:
        """Requires that it tells these pictures apart.

        Raises:
            DataError: Two of them are taken for one.
        """
        ...

    def vectors(
        self, examples: Sequence[Example], images: Sequence[Image]
    ) -> Float[np.ndarray, "n e"]:
        """Vectors of the pictures, not normalised."""
        ...


class VisionModel(Protocol):
    """An image encoder as `sightline.models.load_image_encoder` returns it."""

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model."""
        ...

    def vectors(self, images: Sequence[Image]) -> Float[np.ndarray, "n e"]:
        """Vectors of RGB pictures."""
        ...


@dataclass(frozen=True, slots=True)
class ModelEncoder:
    """An image encoder that looks at the pictures.

    Attributes:
        name: What scores that use it are called by.
        model: The encoder.
        width: Width of its vectors.
    """

    name: str
    model: VisionModel
    width: int

    @classmethod
    def of(cls, name: str, model: VisionModel) -> ModelEncoder:
        """Finds the width by encoding one blank picture.

        Raises:
            UsageError: It gives another thing than one vector.
        """
        from PIL import Image as Pillow

        found = model.vectors([Pillow.new("RGB", (64, 64))])
        if found.ndim != 2 or len(found) != 1:
            raise UsageError(
                f"Encoder {name} gives an array of shape {found.shape} for one picture; one vector "
                "is required. Pool its output, or use another encoder."
            )
        return cls(name, model, found.shape[1])

    def fingerprint(self) -> Mapping[str, Any]:
        """The model's own."""
        return self.model.fingerprint()

    def lacks(self, example: Example) -> str | None:
        """It can look at any picture."""
        return None

    def require_own(self, examples: Sequence[Example]) -> None:
        """It looks at each picture itself."""

    def vectors(
        self, examples: Sequence[Example], images: Sequence[Image]
    ) -> Float[np.ndarray, "n e"]:
        """Vectors of the pictures."""
        return self.model.vectors(images)


@dataclass(frozen=True, slots=True, eq=False)
class FileEncoder:
    """Vectors that were computed elsewhere.

    A picture's is found by its id, its content hash, its path or an end of its path, of which the
    longest that is a key decides.

    Attributes:
        name: Name of the file.
        path: The file.
        rows: Row of each key.
        table: The vectors.
    """

    name: str
    path: Path
    rows: Mapping[str, int]
    table: Float[np.ndarray, "n e"]

    @classmethod
    def read(cls, path: Path) -> FileEncoder:
        """Reads the file.

        Raises:
            DataError: It holds no vectors by key, or a key twice.
        """
        keys, table = read_vectors(path)
        rows = {key: row for row, key in enumerate(keys)}
        if len(rows) < len(keys):
            double = next(k for i, k in enumerate(keys) if rows[k] != i)
            raise DataError(
                f"{path} holds the key {double!r} twice; one vector for each picture is required. "
                "Remove the duplicates."
            )
        return cls(path.stem, path, MappingProxyType(rows), table)

    @property
    def width(self) -> int:
        """Width of its vectors."""
        return int(self.table.shape[1])

    def fingerprint(self) -> Mapping[str, Any]:
        """The file's name and hash."""
        return {"name": self.path.name, "sha256": file_sha256(self.path)}

    def lacks(self, example: Example) -> str | None:
        """That the file has no vector for the picture, or one without a usable direction."""
        row = self._row(example)
        if row is None:
            return f"{self.path.name} has no vector under its id, path or SHA-256"
        length = float(_lengths(self.table[row]))
        if not np.isfinite(length):
            return f"its vector in {self.path.name} is not finite"
        if not length:
            return f"its vector in {self.path.name} is zero"
        if not _SHORTEST <= length <= _LONGEST:
            return (
                f"the length of its vector in {self.path.name} is {length:.0e}, outside "
                f"{_SHORTEST:.0e} to {_LONGEST:.0e}; scale the vectors"
            )
        return None

    def require_own(self, examples: Sequence[Example]) -> None:
        """Requires that no vector is that of two pictures, by the hashes of their bytes.

        Raises:
            DataError: A key fits several pictures, such as a file name that comes in two folders.
        """
        users: dict[int, ImageRef] = {}
        for example in examples:
            image, row = example.images[0], self._row(example)
            other = image if row is None else users.setdefault(row, image)
            if other.sha256 != image.sha256:
                key = next(key for key, at in self.rows.items() if at == row)
                raise DataError(
                    f"The key {key!r} of {self.path} fits several pictures, {other.path} and "
                    f"{image.path} among them; a key of its own is required for each. Write ends "
                    "of their paths that differ, or their SHA-256."
                )

    def vectors(
        self, examples: Sequence[Example], images: Sequence[Image]
    ) -> Float[np.ndarray, "n e"]:
        """Rows of the file."""
        found = [self._row(example) for example in examples]
        return np.asarray(self.table[[row for row in found if row is not None]], dtype=np.float32)

    def _row(self, example: Example) -> int | None:
        return next((self.rows[key] for key in _keys(example) if key in self.rows), None)


def _keys(example: Example) -> Iterator[str]:
    """What a picture may be called in a file of vectors, the surest first."""
    image = example.images[0]
    yield from (example.id, image.sha256, image.path)
    end = image.path
    while "/" in end:
        end = end.partition("/")[2]
        yield end


@dataclass(frozen=True, slots=True)
class ClassObserver:
    """Embeds class names in every prompt template; an example is a class, its question the name.

    Attributes:
        model: The classifier.
        templates: Prompt templates.
    """

    model: Classifier
    templates: tuple[str, ...]

    def fingerprint(self) -> Mapping[str, Any]:
        """The model and how classes are put into words."""
        return {
            **self.model.fingerprint(),
            "templates": list(self.templates),
            "logit_scale": self.model.scale,
            "logit_bias": self.model.bias,
            "link": "sigmoid" if self.model.sigmoid else "softmax",
        }

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Record]:
        """One record per class."""
        texts = [text for e in examples for text in prompts(self.templates, e.question)]
        vectors = _finite(self.model.text_vectors(texts), "a class text")
        stacked = vectors.reshape(len(examples), len(self.templates), -1)
        return [
            Record(example, features={Feature.CLASS_VECTORS: mine})
            for example, mine in zip(examples, stacked, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class PictureObserver:
    """Embeds pictures and names the most likely class of each.

    Attributes:
        model: The classifier.
        classes: Names of the classes.
        texts: Unit vector of each class.
        templates: Prompt templates that these came from.
        encoders: Auxiliary image encoders.
        views: Names of transformed versions that are embedded, too.
    """

    model: Classifier
    classes: tuple[str, ...]
    texts: Float[np.ndarray, "c d"]
    templates: tuple[str, ...]
    encoders: tuple[PictureEncoder, ...] = ()
    views: tuple[str, ...] = ()

    def fingerprint(self) -> Mapping[str, Any]:
        """The classifier: model, classes, how they are put into words, and what else is kept."""
        names = json.dumps(list(self.classes)).encode()
        return {
            **ClassObserver(self.model, self.templates).fingerprint(),
            "classes": len(self.classes),
            "classes_sha256": hashlib.sha256(names).hexdigest(),
            "encoders": [
                {"encoder": e.name, "width": e.width, "model": dict(e.fingerprint())}
                for e in self.encoders
            ],
            "views": list(self.views),
        }

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Record]:
        """One record per picture; its answer is the name of the class with the largest logit."""
        pictures = [mine[0] for mine in images]
        vectors = _finite(self.model.image_vectors(pictures), "a picture")
        parts: dict[Feature, np.ndarray] = {Feature.IMAGE_VECTOR: vectors}
        if self.views:
            seen = [self.model.image_vectors([_VIEW[v](p) for p in pictures]) for v in self.views]
            parts[Feature.VIEW_VECTORS] = _finite(np.stack(seen, axis=1), "a view")
        if self.encoders:
            aux = [
                _finite(e.vectors(examples, pictures), f"a picture by encoder {e.name}")
                for e in self.encoders
            ]
            parts[Feature.AUX_VECTORS] = np.concatenate(aux, axis=1)
        answers = (vectors @ self.texts.T).argmax(axis=1)
        return [
            Record(
                example,
                greedy=Generation(text=self.classes[int(answers[at])]),
                features={feature: part[at] for feature, part in parts.items()},
            )
            for at, example in enumerate(examples)
        ]


def parse_views(text: str) -> tuple[str, ...]:
    """Reads ``mirror,gray`` or ``none``.

    Raises:
        UsageError: Another name.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names in ((), ("none",)):
        return ()
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        raise UsageError(
            f"--views {unknown[0]!r}; {', '.join(VIEWS)} or none is required. Choose among these."
        )
    return names


def _mirror(picture: Image) -> Image:
    from PIL import Image as Pillow

    return picture.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)


def _gray(picture: Image) -> Image:
    return picture.convert("L").convert("RGB")


_VIEW: Mapping[str, Callable[[Image], Image]] = {"mirror": _mirror, "gray": _gray}


def _finite(vectors: Float[np.ndarray, "*n d"], what: str) -> Float[np.ndarray, "*n d"]:
    """The vectors, each with a direction that single precision can tell.

    Raises:
        ModelError: One is zero, not finite, or of a length whose square is; the caller bisects to
            it.
    """
    length = _lengths(vectors)
    if not ((length >= _SHORTEST) & (length <= _LONGEST)).all():
        raise ModelError(
            f"The vector of {what} is zero, not finite or out of range; a length from "
            f"{_SHORTEST:.0e} to {_LONGEST:.0e} is required. Look at the picture, or use another "
            "model."
        )
    return np.asarray(vectors, dtype=np.float32)


def _lengths(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Euclidean lengths in double precision, which no vector of single precision leaves."""
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=-1, keepdims=True, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return np.linalg.norm(wide / scale, axis=-1) * scale[..., 0]
