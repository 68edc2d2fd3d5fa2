"""Local vision-language models through transformers: everything one pass can show, kept once.

Each (images, question) pair is read by one prefill; the greedy answer, all samples and all options
continue copies of its key-value cache. Only the model's end tokens are taken from its generation
settings: repetition penalties, suppressed tokens, minimum lengths and sampling defaults are never
applied, so that greedy is the argmax of the recorded raw distribution.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.errors import ModelError, UnreadableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Record
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.answers import AnswerReader
from sightline.models.asking import Asker
from sightline.models.channels import AnswerStates, ChannelReader, require_layers
from sightline.models.decoding import Decoded, Sampling, decode, sample_uniforms, score
from sightline.models.failures import model_errors
from sightline.models.inputs import AnswerForm, InputBuilder, blank_images
from sightline.models.kept import compacted, detail_features, sample_features
from sightline.models.options import (
    BLANK_OF,
    OptionTexts,
    given_features,
    option_features,
    option_texts,
)
from sightline.models.pictures import PictureMemo
from sightline.models.prefill import Prefill
from sightline.models.reading import PromptReader
from sightline.models.request_settings import layer_indices, require_settings
from sightline.models.shared_prefix import by_images, which
from sightline.models.token_ids import eos_ids, first_set
from sightline.models.verification import Decoding, decoding_of
from sightline.models.vision import VisionTap

if TYPE_CHECKING:
    from PIL.Image import Image


class TransformersModel:
    """A `VisionLanguageModel` over a loaded transformers model and its processor.

    Args:
        model: A model of the image-text-to-text classes, in evaluation mode.
        processor: Its processor.
        identity: What identifies the weights, as `sightline.models.load_model` finds it.
        style: How an example becomes the user's text.
        blank_colour: Colour of the image that stands for "no image", as Pillow names it.
        decoding: How to decode; None = as fast as is exact for this model.

    Raises:
        UsageError: The model has no end token, is an encoder-decoder, or its chat template and
            processor do not go with it.
    """

    tells: ClassVar[bool] = True
    """It tells answers while it generates them."""

    counts_prompts: ClassVar[bool] = True
    """It says how many tokens its prompts have."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        identity: Mapping[str, Any],
        style: PromptStyle = PromptStyle(),  # noqa: B008 (frozen)
        blank_colour: str = "white",
        decoding: Decoding | None = None,
    ) -> None:
        config = model.config
        if getattr(config, "is_encoder_decoder", False) or not getattr(
            config, "use_decoder_only_language_model", True
        ):
            raise UsageError(
                f"{config.model_type} here is an encoder-decoder; a decoder-only vision-language "
                "model is required. Choose a checkpoint with a decoder-only language model."
            )
        self._model = model.eval()
        self._identity = dict(identity)
        self._style = style
        self._blank_colour = blank_colour
        self._image_token_id = first_set(config, "image_token_id", "image_token_index")
        self._inputs = InputBuilder(processor, config.model_type, self._image_token_id)
        self._inputs.require_working(str(self._identity.get("name", config.model_type)))
        self._eos_ids = eos_ids(model, self._inputs.tokenizer)
        self._form = self._inputs.answer_form(self._eos_ids)
        self._depth = int(config.get_text_config().num_hidden_layers)
        self._reader = AnswerReader(self._inputs.tokenizer)
        self._decoding = decoding or decoding_of(model, self._inputs, self._image_token_id)
        self._prompts = PromptReader(model, self._inputs, self._image_token_id, self._decoding)
        self._asker = Asker(
            self._inputs, self._form, style, self._reader, self._eos_ids, self._read_more
        )
        self._channels = ChannelReader(
            self._inputs, self._form, style, self._eos_ids, partial(self._read_more, whole=True)
        )

    @property
    def parts(self) -> ModelParts:
        """What the model is made of, for those who read more than its answers."""
        return ModelParts(
            network=self._model,
            inputs=self._inputs,
            form=self._form,
            style=self._style,
            reader=self._reader,
            eos_ids=self._eos_ids,
            image_token_id=self._image_token_id,
            decoding=self._decoding,
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the weights and everything fixed at loading that affects results."""
        template = self._inputs.template
        return {
            **self._identity,
            "model_type": self._model.config.model_type,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "eos_token_ids": list(self._eos_ids),
            "answer_lead": self._form.lead,
            "answer_end_id": self._form.end_id,
            "chat_template_sha256": text_sha256(template) if template else None,
            "prompt_style": self._style.to_dict(),
            "blank_image": self._blank_colour,
            "image_processor": type(self._inputs.processor.image_processor).__name__,
            "generation_settings": "neutral",
            "logprob_space": "raw",
            "decoding": self._decoding.value,
        }

    def layers(self, request: Request) -> tuple[int, ...]:
        """Layer indices the request asks for, as `layer_indices` finds them."""
        name = str(self._identity.get("name", "the model"))
        return layer_indices(request.layers, self._depth, name)

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
        told: Sequence[Callable[[str], None] | None] | None = None,
        counted: Callable[[Sequence[int]], None] | None = None,
    ) -> list[Record]:
        """Observes a batch; see `sightline.core.protocols.VisionLanguageModel.observe`.

        Examples with equal numbers of images share a prefill. An example without images has no
        blank record. ``told`` are called with the beginning of an example's answer as it grows,
        ``counted`` with the tokens of every example's prompt, images included.
        """
        require_settings(request)
        layers = self.layers(request)
        if request.channels:
            require_layers(layers)
        prompts = self._texts(examples, images)
        groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
        pictured = by_images(images)
        for i, own in enumerate(images):
            # Only questions with options are asked a second time, about the same vision tokens.
            apart = request.channels and examples[i].choices is None
            row = pictured[i] if self._decoding is Decoding.SHARED else i
            groups[len(own), row, apart].append(i)
        records: dict[int, list[Record]] = {}
        lengths: dict[int, int] = {}
        with model_errors(), torch.inference_mode():
            for (count, *_), members in groups.items():
                batch = _Batch(
                    [examples[i] for i in members],
                    [prompts[i] for i in members],
                    [images[i] for i in members],
                    [None if given is None else given[i] for i in members],
                    [None if told is None else told[i] for i in members],
                )
                with PictureMemo(self._inputs.processor):
                    try:
                        found = self._observe_group(
                            batch, request, layers, blank=request.blank and count > 0
                        )
                    except UnreadableError as error:
                        raise error.among(members) from None
                    answers = [shown[0].answer.text for shown in found]
                    replies = self._asker.ask(request.asks, batch.examples, batch.images, answers)
                found = [[*shown, *own] for shown, own in zip(found, replies, strict=True)]
                records.update(zip(members, found, strict=True))
                lengths.update(zip(members, batch.lengths, strict=True))
        if counted is not None:
            counted([lengths[i] for i in range(len(examples))])
        return [record for i in range(len(examples)) for record in records[i]]

    def _read_more(self, *args: Any, **settings: Any) -> Prefill:
        """Reads prompts that are not those of the batch, whose rows errors name."""
        try:
            return self._prompts.read(*args, **settings)
        except UnreadableError as error:
            raise ModelError(str(error)) from None

    def _texts(self, examples: Sequence[Example], images: Sequence[tuple[Image, ...]]) -> list[str]:
        """The prompts.

        Raises:
            UnreadableError: Some hold a special token, or are too long whatever the images.
        """
        prompts: list[str] = []
        refused: dict[int, str] = {}
        for row, (example, own) in enumerate(zip(examples, images, strict=True)):
            where = f"The question {example.question[:60]!r}"
            try:
                text = user_text(example, self._style)
                prompts.append(self._inputs.prompt(text, len(own), where=where))
            except UnreadableError as error:
                refused |= error.among([row]).reasons
        if refused:
            raise UnreadableError("special_token", refused)
        self._prompts.require_texts(prompts)
        return prompts

    def _observe_group(
        self, batch: _Batch, request: Request, layers: tuple[int, ...], *, blank: bool
    ) -> list[list[Record]]:
        tap, states = VisionTap(self._model), AnswerStates()
        opened: list[dict[Feature, torch.Tensor]] = []
        with tap if request.channels else contextlib.nullcontext():
            clean = self._prompts.read(batch.prompts, batch.images, layers, whole=request.channels)
            if request.channels and batch.examples[0].choices is not None:
                opened = self._channels.opened(batch.examples, batch.images, layers)
        batch.lengths.extend(clean.mask.sum(1).tolist())
        uniforms = np.stack(
            [
                sample_uniforms(request.seed, e.id, request.n_samples, request.max_new_tokens)
                for e in batch.examples
            ]
        )
        greedy, details, samples = decode(
            clean,
            uniforms=uniforms,
            max_new_tokens=request.max_new_tokens,
            eos_ids=self._eos_ids,
            sampling=Sampling(request.temperature, request.top_p),
            top_k=request.top_k_logprobs,
            told=self._telling(batch) if any(batch.told) else None,
        )
        asked = (
            option_texts(
                self._inputs,
                self._form,
                batch.examples,
                batch.prompts,
                letters=self._style.asks_for_letters,
            )
            if request.options
            else []
        )
        scorer = states.score if request.channels else score
        options = option_features(clean, asked, scorer)
        read = given_features(clean, batch.given, scorer)
        features = [
            detail_features(detail, clean, row, layers)
            | (sample_features(samples[row]) if request.sample_hidden else {})
            | options.get(row, {})
            | read.get(row, {})
            for row, detail in enumerate(details)
        ]
        if request.channels:
            ids = [row.ids for row in greedy]
            found = self._channels.asked(clean, states, batch.examples, ids, batch.given, asked)
            self._keep_channels(batch, clean, tap, found, features)
            for row, channels in enumerate(opened):
                features[row] |= compacted(channels)
        blanks: list[list[Record]] = [[] for _ in batch.examples]
        if blank:
            del clean
            answers, own = self._observe_blank(
                batch, request, [row.ids for row in greedy], asked, features
            )
            blanks = [
                [
                    Record(
                        batch.examples[row],
                        condition=BLANK,
                        greedy=self._reader.generation(answer, batch.prompts[row]),
                        features=own[row],
                    )
                ]
                for row, answer in enumerate(answers)
            ]
        return [
            [
                Record(
                    example,
                    condition=CLEAN,
                    greedy=self._reader.generation(greedy[row], batch.prompts[row]),
                    samples=tuple(
                        self._reader.generation(sample, batch.prompts[row])
                        for sample in samples[row]
                    ),
                    features=features[row],
                    layers=layers,
                ),
                *blanks[row],
            ]
            for row, example in enumerate(batch.examples)
        ]

    def _telling(self, batch: _Batch) -> Callable[[int, Decoded], None]:
        """From a row's tokens to whom its answer is told."""

        def tell(row: int, decoded: Decoded) -> None:
            told = batch.told[row]
            if told is not None:
                told(self._reader.so_far(decoded, batch.prompts[row]))

        return tell

    def _observe_blank(
        self,
        batch: _Batch,
        request: Request,
        answers: list[list[int]],
        asked: list[OptionTexts],
        features: list[dict[Feature, np.ndarray]],
    ) -> tuple[list[Decoded], list[dict[Feature, np.ndarray]]]:
        """Adds the blank features to the clean ones; returns the blank answers and their own."""
        blank = {which(own): blank_images(own, self._blank_colour) for own in batch.images}
        images = [blank[which(own)] for own in batch.images]
        start = self._prompts.read(batch.prompts, images)
        greedy, _, _ = decode(
            start,
            uniforms=np.empty((len(images), 0, 0)),
            max_new_tokens=request.max_new_tokens,
            eos_ids=self._eos_ids,
            sampling=Sampling(1.0, 1.0),
        )
        for row, values in enumerate(score(start, range(len(answers)), answers)):
            features[row][Feature.BLANK_LOGPROBS] = values
        for row, found in option_features(start, asked).items():
            for clean, unseen in BLANK_OF.items():
                if clean in found:
                    features[row][unseen] = found[clean]
        own: list[dict[Feature, np.ndarray]] = [{} for _ in answers]
        if request.channels:
            own = self._channels.yes_no(start, batch.examples, batch.prompts)
        return greedy, own

    def _keep_channels(
        self,
        batch: _Batch,
        start: Prefill,
        tap: VisionTap,
        states: Sequence[dict[Feature, torch.Tensor]],
        features: list[dict[Feature, np.ndarray]],
    ) -> None:
        """Adds the channels of every row to its features."""
        images = len(batch.images[0])
        seen = tap.features(len(features), images) if images else [{} for _ in features]
        said = self._channels.yes_no(start, batch.examples, batch.prompts)
        for row, channels in enumerate(states):
            features[row] |= compacted(channels) | seen[row] | said[row]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return self._reader.pieces(ids)


@dataclass(frozen=True, slots=True)
class ModelParts:
    """The parts of a local model.

    Attributes:
        network: The transformers model, in evaluation mode.
        inputs: Builds its prompts and tensors.
        form: How an answer follows a prompt.
        style: How an example becomes the user's text.
        reader: Reads its answers.
        eos_ids: Its end tokens.
        image_token_id: The token at a picture's places.
        decoding: How it is decoded.
    """

    network: Any
    inputs: InputBuilder
    form: AnswerForm
    style: PromptStyle
    reader: AnswerReader
    eos_ids: tuple[int, ...]
    image_token_id: int | None
    decoding: Decoding


@dataclass(frozen=True, slots=True)
class _Batch:
    """Examples with equal numbers of images, their prompts, images and given answers.

    ``lengths`` are the tokens of their prompts, once they are read.
    """

    examples: list[Example]
    prompts: list[str]
    images: list[tuple[Image, ...]]
    given: list[Sequence[int] | None]
    told: list[Callable[[str], None] | None]
    lengths: list[int] = field(default_factory=list)


def text_sha256(text: object) -> str:
    """Hex digest of a template, or of a mapping of templates in a fixed order."""
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
