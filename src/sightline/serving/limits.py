"""What the server refuses, in one place; every limit is a flag of ``sightline serve``."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.data.images import ImageLimits

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the server, all checked before the work they bound.

    Attributes:
        max_body: Bytes of a request's body.
        max_held: Bytes of all bodies being read or answered at once.
        max_images: Images of a request.
        max_image_bytes: Bytes of one image file.
        max_pixels: Pixels of one image.
        max_request_pixels: Pixels of all images of a request.
        min_side: Shorter side of an image, in pixels.
        max_aspect: Longer side over shorter side.
        decode_s: Seconds that decoding one image may take.
        max_held_pixels: Pixels of all images that are being asked about, and of the cached ones.
        max_messages: Messages of a request.
        max_parts: Parts of all its messages, or of all its questions and their input.
        max_text: Characters of all texts that one question shows a model, its options among them.
        max_options: Options of all questions of one ``/v1/decisions`` request.
        max_n: Choices of a request.
        max_tokens: Generated tokens of a choice.
        max_questions: Questions of one ``/v1/decisions`` request.
        concurrency: Requests worked on at once.
        queue: Requests that wait beyond those; more are answered 503 with Retry-After.
        header_s: Seconds a client may take to send its headers.
        body_s: Seconds a client may take to send its body.
        write_s: Seconds a client may take to accept what it asked for before it is dropped.
        request_s: Seconds a request may take from its last byte to its answer's first.
        max_headers: Header fields of a request.
        max_header_bytes: Bytes of all of them.
        max_answer: Bytes of an upstream's answer.
    """

    max_body: int = 32 * MIB
    max_held: int = 1024 * MIB
    max_images: int = 8
    max_image_bytes: int = 20 * 1000 * 1000
    max_pixels: int = 40_000_000
    max_request_pixels: int = 120_000_000
    min_side: int = 14
    max_aspect: int = 200
    decode_s: float = 10.0
    max_held_pixels: int = 1_000_000_000
    max_messages: int = 256
    max_parts: int = 2048
    max_text: int = 200_000
    max_options: int = 8192
    max_n: int = 16
    max_tokens: int = 4096
    max_questions: int = 400
    concurrency: int = 64
    queue: int = 128
    header_s: float = 5.0
    body_s: float = 10.0
    write_s: float = 10.0
    request_s: float = 120.0
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024
    max_answer: int = 32 * MIB

    @property
    def images(self) -> ImageLimits:
        """Limits on one image, as decoding takes them."""
        return ImageLimits(
            max_pixels=self.max_pixels,
            max_bytes=self.max_image_bytes,
            min_side=self.min_side,
            max_aspect=self.max_aspect,
        )
