"""Labelled pictures as examples, the names of their classes, and how classes are put into words.

Example:
    >>> from sightline.data.image_sets import class_names
    >>> class_names(None, {"tabby_cat": "tabby_cat", "dog": "dog"}, ["dog"])
    {'tabby_cat': 'tabby cat', 'dog': 'dog'}
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Example
from sightline.data.collected import Rejected, digest_json
from sightline.data.embedded import ImageReader, StoreImage
from sightline.data.image_sources import open_source
from sightline.data.images import ImageLimits
from sightline.data.json_files import parse_json
from sightline.data.labelled_pictures import Picture, few

QUESTION = "Which class does the picture show?"

TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "photo": ("a photo of a {}.",),
        "this-is": ("This is a photo of {}.",),
        "names": ("{}",),
        "picture": ("a picture of a {}", "a {}", "there is a {} in the picture", "{}"),
        "ensemble": (
            "a photo of a {}.",
            "a close-up of a {}.",
            "a dark picture of a {}.",
            "a blurred photo of the {}.",
            "one {} seen from afar.",
            "a drawing of a {}.",
        ),
    }
)
"""Built-in prompt templates by name; ``{}`` stands for the class."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Pictures with the classes they are told apart by.

    Attributes:
        name: Short name of the source.
        examples: One per picture; ``references`` holds the class name, and is empty where the label
            names none of the classes. Pictures of equal content share a group.
        classes: Names of the classes, in the order of their index.
        rejected: Rows that could not become examples.
        sha256: Hash of all that the examples say, pictures included.
        partial: What a limit left out, in words, or None.
    """

    name: str
    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    sha256: str
    partial: str | None = None


def load_image_set(
    source: str | Path,
    *,
    classes: str | Sequence[str] | Mapping[str, str] | None = None,
    images: str | Path | None = None,
    limit: int | float | None = None,
    store_image: StoreImage | None = None,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
) -> ImageSet:
    """Loads labelled pictures.

    Sources: a folder with a folder of pictures for every class (``DIR?split=test`` where these lie
    in folders of splits), a CoOp split file or the folder that holds one, a CSV, TSV, JSONL or
    Parquet file with a path and a label, an image-classification dataset that the datasets library
    saved or that the hub holds (``hf://NAME?split=…``, extra ``datasets``), and the generated
    ``scenes-classes:SPLIT`` and ``digits:SPLIT``.

    Args:
        source: What to load.
        classes: Names of the classes: a sequence, a map from label to name, a file, or names joined
            by commas; None takes the source's labels, underscores as spaces. See `class_names`.
        images: Folder that picture paths start from; the source's own if None.
        limit: Pictures only of this count, or this share below 1, spread evenly over the source.
        store_image: Writes a picture that comes as bytes and returns its reference.
        limits: Limits on picture files.

    Raises:
        DataError: No usable picture, fewer than two classes, or two of one name.
        UsageError: A split, setting or folder that does not exist.
    """
    root = Path(images) if images is not None else None
    if root is not None and not root.is_dir():
        raise UsageError(f"{root} is not a folder; --images takes a folder. Correct the path.")
    opened = open_source(str(source), root)
    pictures = list(opened.pictures)
    rejected = [Rejected(p.where, p.error) for p in pictures if p.error is not None]
    usable = [p for p in pictures if p.error is None]
    if not usable:
        raise DataError(_nothing(opened.name, rejected))
    chosen, partial = _limited(usable, limit)
    reader = ImageReader(opened.root, store_image, limits)
    labels = list(dict.fromkeys(p.label for p in usable if p.label is not None))
    names = class_names(classes, opened.names, labels)
    examples = _examples(chosen, names, reader, rejected)
    if not examples:
        raise DataError(_nothing(opened.name, rejected))
    digest = hashlib.sha256()
    for e in examples:
        digest.update(digest_json([e.id, e.images[0].sha256, e.references]).encode())
    return ImageSet(
        opened.name,
        tuple(examples),
        tuple(names.values()),
        tuple(rejected),
        digest.hexdigest(),
        partial,
    )


def class_names(
    given: str | Sequence[str] | Mapping[str, str] | None,
    declared: Mapping[str, str],
    labels: Sequence[str],
) -> dict[str, str]:
    """Class name of each label, in the order of the classes.

    Args:
        given: None: the declared or found labels, underscores as spaces. A sequence or names joined
            by commas: the classes themselves; where no label is among them and all are whole
            numbers below their count, a label is the place of its class, from 0. A map: the name of
            each label. A file: one class a line, JSON list, or a map from label to name (a JSON
            object, lines ``label<TAB>name``, or lines whose first word is a label of the data, as
            ImageNet's classnames.txt).
        declared: Labels that the source declares, in its own order.
        labels: Labels found.

    Raises:
        DataError: Fewer than two classes, or a name twice.
        UsageError: The file cannot be read.
    """
    known = list(declared) or sorted(labels)
    if given is None:
        named = {label: _spoken(label) for label in known}
    else:
        found = _read_names(given, set(known)) if isinstance(given, str) else given
        if isinstance(found, Mapping):
            named = {label: _one_line(name) for label, name in found.items()}
        else:
            named = _matched([_one_line(name) for name in found], known)
    _check_names(tuple(named.values()))
    return named


def prompts(templates: Sequence[str], name: str) -> list[str]:
    """The class in every template."""
    return [template.replace("{}", name) for template in templates]


def load_templates(given: str | None, default: str) -> tuple[str, ...]:
    """Prompt templates by built-in name, or the lines of a file.

    Raises:
        UsageError: No such name or file, or a template without exactly one ``{}``.
    """
    name = given or default
    if name in TEMPLATES:
        return TEMPLATES[name]
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"--templates {name} is neither a readable file nor one of {', '.join(TEMPLATES)}; "
            "one of both is required. Write one template a line, {} for the class."
        ) from None
    templates = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    wrong = next((t for t in templates if t.count("{}") != 1), None)
    if wrong is not None or not templates:
        raise UsageError(
            f"{name}: template {wrong!r}; at least one template, each with {{}} once, is required. "
            'For example: "a photo of a {}."'
        )
    return templates


def _nothing(name: str, rejected: Sequence[Rejected]) -> str:
    why = f" ({rejected[0].where}: {rejected[0].reason})" if rejected else ""
    return (
        f"{name} has no usable picture{why}; at least one is required. Correct the source, or name "
        "the folder of its pictures with --images."
    )


def _spoken(label: str) -> str:
    return _one_line(label.replace("_", " "))


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _read_names(given: str, labels: set[str]) -> dict[str, str] | list[str]:
    path = Path(given)
    if not path.is_file():
        if path.suffix in (".txt", ".json", ".csv") or "/" in given:
            raise UsageError(
                f"--classes {given} is not a file; a file of class names, or the names joined by "
                "commas, is required. Correct the path."
            )
        return [name.strip() for name in given.split(",") if name.strip()]
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = parse_json(text) if path.suffix == ".json" else None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as class names ({' '.join(str(error).split())[:100]}); UTF-8 "
            "text or JSON is required. Correct the file."
        ) from None
    if path.suffix == ".json":
        return _json_names(path, content)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [line.split("\t", 1) if "\t" in line else line.split(None, 1) for line in lines]
    if all(len(pair) == 2 for pair in pairs) and (
        "\t" in text or all(pair[0] in labels for pair in pairs)
    ):
        return {pair[0]: pair[1].strip() for pair in pairs}
    return lines


def _json_names(path: Path, content: Any) -> dict[str, str] | list[str]:
    """The names of a JSON file, each of which has to be a text of its own."""
    named = content if isinstance(content, dict) else None
    listed = content if isinstance(content, list) else None
    entries: list[tuple[Any, Any]] = [("the document", content)]
    if named is not None or listed is not None:
        entries = list(enumerate(listed or ()) if named is None else named.items())
    wrong = next(((at, name) for at, name in entries if not isinstance(name, str)), None)
    if wrong is not None:
        raise DataError(
            f"{path}: {wrong[0]!r} is {str(wrong[1])[:60]!r}; a list of names, or an object of "
            'labels with one name each, is required: ["zero", "one"] or {"0": "zero", "1": "one"}. '
            "Correct the file."
        )
    return named or listed or []


def _matched(names: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Names by the label they match, or their place from 0."""
    pairs = _pairs(names, labels)
    matched: dict[str, str] = {}
    for name in names:
        label = pairs.get(name, name)
        if label in matched:
            raise DataError(
                f"Class {name!r} is named twice; names must differ. Rename or merge the classes."
            )
        matched[label] = name
    places = [str(place) for place in range(len(names))]
    if labels and not set(labels) & set(matched) and set(labels) <= set(places):
        return dict(zip(places, names, strict=True))
    return matched


def _pairs(said: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The known name that each one said means: as it is, or with underscores as spaces.

    Of those left over, one whose letters are a known name's but for their case means that, where
    no other does, and no other known name is left that it could mean.
    """
    found: dict[str, str] = {}
    for spelled in (str, _spoken):
        by_spelling = {spelled(name): name for name in reversed(known)}
        for one in said:
            if one not in found and spelled(one) in by_spelling:
                found[one] = by_spelling[spelled(one)]
    taken = set(found.values())
    asking, left = (
        Counter(_spoken(name).lower() for name in names)
        for names in (set(said) - set(found), set(known) - taken)
    )
    for name in set(known) - taken:
        key = _spoken(name).lower()
        if asking[key] == left[key] == 1:
            one = next(s for s in said if s not in found and _spoken(s).lower() == key)
            found[one] = name
    return found


def _check_names(names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError(
            f"{len(names)} class was found{f' ({names[0]!r})' if names else ''}; at least 2 are "
            "required, or there is nothing to tell apart. Name every class with --classes."
        )
    if not all(names):
        raise DataError(
            f"Class {names.index('')} of {len(names)}, counted from 0, has an empty name; every "
            "class has a name of its own. Name it, or leave it out."
        )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"Class {name!r} is named {times} times; every class has a name of its own. Rename or "
            "merge the classes."
        )


def _limited(
    pictures: Sequence[Picture], limit: int | float | None
) -> tuple[list[Picture], str | None]:
    """Pictures spread evenly over the source, which is often sorted by class."""
    if limit is None or (limit == 1.0 and isinstance(limit, float)):
        return list(pictures), None
    if not 0 < limit < math.inf:
        raise UsageError(
            f"--limit {limit}; a number of pictures or a share between 0 and 1 is required. For "
            "example: --limit 100."
        )
    count = math.ceil(limit * len(pictures)) if limit < 1 else int(limit)
    if count >= len(pictures):
        return list(pictures), None
    chosen = [pictures[at * len(pictures) // count] for at in range(count)]
    return chosen, f"--limit {limit:g}: {count} of {len(pictures)}, spread evenly"


def _examples(
    pictures: Sequence[Picture],
    names: Mapping[str, str],
    reader: ImageReader,
    rejected: list[Rejected],
) -> list[Example]:
    found: dict[str, Example] = {}
    for picture in pictures:
        try:
            ref = reader.ref(picture.value)
            if picture.id in found:
                raise DataError(f"the id {picture.id[:80]!r} comes twice")
        except DataError as error:
            rejected.append(Rejected(picture.where, str(error)))
            continue
        name = None if picture.label is None else names.get(picture.label)
        label = {} if picture.label is None else {"label": picture.label}
        found[picture.id] = Example(
            id=picture.id,
            question=QUESTION,
            images=(ref,),
            references=() if name is None else (name,),
            group=f"image-{ref.sha256[:16]}",
            meta={**picture.meta, **label},
        )
    return list(found.values())


def require_known(images: ImageSet) -> None:
    """Requires that at least one picture has a label among the classes.

    Raises:
        DataError: None has; the message names the labels found.
    """
    if any(example.references for example in images.examples):
        return
    found = sorted({str(e.meta["label"]) for e in images.examples if "label" in e.meta})
    labels = f"their labels are {few([repr(x[:40]) for x in found])}" if found else "they have none"
    raise DataError(
        f"None of {len(images.examples)} pictures of {images.name} has a label among the "
        f"{len(images.classes)} classes ({few(images.classes)}): {labels}; at least one is "
        "required to judge anything. Correct --classes (lines 'label<TAB>name' say what a label "
        "means); pictures of none of the classes, for evaluate --ood, take an earlier run "
        "as --classes."
    )


def numbers_read_as(images: ImageSet) -> str | None:
    """What labels that are numbers are taken for, in words; None where none is one.

    A list that starts at another number would shift every class, which nothing else shows.
    """
    named = {str(e.meta["label"]): e.references[0] for e in images.examples if e.references}
    numbers = sorted((x for x in named if x.isdecimal() and x != named[x]), key=int)
    if not numbers:
        return None
    said = ", ".join(f"{label} as {named[label]!r}" for label in numbers[:3])
    return f"Labels are read as classes: {said}{', …' if len(numbers) > 3 else ''}."


def with_classes(images: ImageSet, classes: Sequence[str]) -> ImageSet:
    """The same pictures told apart by other classes; those of no such class lose their reference.

    Names are matched as they are; underscores count as spaces, and another case is passed over
    where only one class can be meant.
    """
    labels = [
        e.references[0] if e.references else str(e.meta.get("label", "")) for e in images.examples
    ]
    known = _pairs(labels, classes)
    examples = tuple(
        replace(example, references=(known[label],) if label in known else ())
        for example, label in zip(images.examples, labels, strict=True)
    )
    return replace(images, examples=examples, classes=tuple(classes))
