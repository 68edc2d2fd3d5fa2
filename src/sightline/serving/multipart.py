"""Decisions as a form: one field with the JSON, and images as files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header

from sightline.serving.errors import RequestError
from sightline.serving.image_files import as_data_url, require_named
from sightline.serving.limits import Limits
from sightline.serving.strict_json import loads

REQUEST, IMAGE = "request", "image"
_UNNAMED = "application/octet-stream"
"""What clients call a file whose type they do not know."""
_PIECE = 1 << 18
"""Bytes that are parsed without letting go of the interpreter, more or less."""


def read_multipart(body: bytes, content_type: str, limits: Limits) -> dict[str, Any]:
    """Reads a form: the field ``request`` is the JSON body, files named ``image`` are its images.

    Returns:
        The JSON body with the images behind its input, as data URLs.

    Raises:
        RequestError: The form is damaged, a field is unknown or missing, an image is of another
            type than its part says, or a limit is broken.
    """
    fields: list[bytes] = []
    files: list[bytes] = []
    ended: list[bool] = []
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        raise _damaged()

    def keep(name: bytes | None, data: bytes) -> None:
        # At once, not at the end: a form may have a million fields.
        if name != REQUEST.encode() or fields:
            raise _not_the_form()
        fields.append(data)

    def on_field(field: Field) -> None:
        keep(field.field_name, field.value or b"")

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        data = file.file_object.read()
        file.close()
        if file.field_name != IMAGE.encode():
            keep(file.field_name, data)
            return
        if len(files) == limits.max_images:
            raise RequestError(
                f"The form holds more than {limits.max_images} images; at most as many are read. "
                "Send fewer.",
                param=IMAGE,
                code="too_many_images",
            )
        if len(data) > limits.max_image_bytes:
            raise RequestError(
                f"An image of the form has {len(data)} bytes; at most {limits.max_image_bytes} are "
                "read. Send a smaller one.",
                status=413,
                param=IMAGE,
                code="image_too_large",
            )
        said = (file.content_type or _UNNAMED).partition(";")[0].strip().lower()
        if said != _UNNAMED:
            require_named(data, said, IMAGE)
        files.append(data)

    try:
        parser = FormParser(
            "multipart/form-data",
            on_field,
            on_file,
            on_end=lambda: ended.append(True),
            boundary=options[b"boundary"],
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},
        )
        for at in range(0, len(body), _PIECE):
            parser.write(body[at : at + _PIECE])
        parser.finalize()
    except FormParserError:
        raise _damaged() from None
    if not ended:  # cut short: what had not ended was never handed over
        raise _damaged()
    if not fields:
        raise _not_the_form()
    return _with_images(loads(fields[0]), files)


def _with_images(request: dict[str, Any], files: list[bytes]) -> dict[str, Any]:
    given = request.get("input", "")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(messages, list) or not files:
        return request
    parts: list[Mapping[str, Any]] = [
        {"type": "input_image", "image_url": as_data_url(data)} for data in files
    ]
    return {**request, "input": [*messages, {"role": "user", "content": parts}]}


def _not_the_form() -> RequestError:
    return RequestError(
        "The form needs one field 'request' with the JSON body, and files named 'image'; nothing "
        "else is read. Correct it.",
        param=REQUEST,
    )


def _damaged() -> RequestError:
    return RequestError(
        "The form is damaged; multipart/form-data with its boundary is required. Correct it.",
        code="invalid_form",
    )
