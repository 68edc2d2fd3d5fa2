"""Everything observed behind the shared prefill equals the model asked the plain way.

The plain way is one unpadded example at a time: the library's own ``generate``, and full forward
passes without a cache over prompt and answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from tiny_models import Tiny, example, picture

from sightline.core.errors import ModelError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Record
from sightline.data.prompts import PromptStyle, user_text
from sightline.models import reading, reading_apart, verification
from sightline.models.prefill import Continuation, Prefill
from sightline.models.transformers import TransformersModel
from sightline.models.verification import Decoding

TOLERANCE = 1e-4
NEW_TOKENS = 10
END = 4
LAYERS = (0, 1, 3)

EXAMPLES = [
    example("short", "Is it red?"),
    example("longer", "How many of the small things on the left of the large one are green now?"),
    example("choice", "Which one is it?", choices=("a cat", "dog", "two red buses")),
    example("pair", "Same question, again and again?", choices=("yes", "no")),
]
IMAGES = [
    (picture(1, (40, 30)),),
    (picture(2, (24, 60)),),
    (picture(3, (64, 64)),),
    (picture(4, (90, 33)),),
]
REQUEST = Request(
    max_new_tokens=NEW_TOKENS,
    n_samples=3,
    temperature=1.3,
    top_p=0.9,
    top_k_logprobs=5,
    layers=LAYERS,
    sample_hidden=True,
    options=True,
    blank=True,
    seed=11,
)


@pytest.fixture(scope="module")
def batched(tiny: Tiny) -> dict[tuple[str, str], Record]:
    records = tiny.observer().observe(EXAMPLES, IMAGES, REQUEST)
    return {tuple(record.key): record for record in records}


def prompt_text(tiny: Tiny, asked: Example | str, images: int) -> str:
    text = asked if isinstance(asked, str) else user_text(asked, PromptStyle())
    if tiny.name == "instructblip":
        return text
    if tiny.name == "paligemma":
        return "<image>" * images + text
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return tiny.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def plain_inputs(
    tiny: Tiny, asked: Example | str, images: tuple[Image.Image, ...]
) -> dict[str, Any]:
    shown: Any = list(images) if tiny.name == "instructblip" else [list(images)]
    encoded = tiny.processor(
        text=[prompt_text(tiny, asked, len(images))],
        images=shown if images else None,
        return_tensors="pt",
    )
    return {name: value for name, value in encoded.items() if name != "labels"}


def continued(inputs: dict[str, Any], answer: list[int]) -> dict[str, Any]:
    """The inputs of one pass over prompt and answer."""
    tail = torch.tensor([answer], dtype=torch.long)
    extended = dict(inputs)
    extended["input_ids"] = torch.cat([inputs["input_ids"], tail], 1)
    extended["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(tail)], 1)
    for name, value in (("token_type_ids", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            extended[name] = torch.cat([inputs[name], torch.full_like(tail, value)], 1)
    return extended


def full_forward(tiny: Tiny, inputs: dict[str, Any], answer: list[int]) -> torch.Tensor:
    """Log-probabilities (t, v) at every answer position, from one pass without a cache."""
    with torch.inference_mode():
        logits = tiny.model(**continued(inputs, answer), use_cache=False).logits[0]
    return torch.log_softmax(logits[-len(answer) - 1 : -1].float(), -1)


def chosen(tiny: Tiny, inputs: dict[str, Any], answer: list[int]) -> np.ndarray:
    table = full_forward(tiny, inputs, answer)
    return table[range(len(answer)), answer].double().numpy()


def assert_forced(tiny: Tiny, inputs: dict[str, Any], answer: Any, logprobs: np.ndarray) -> None:
    """Holds an answer to a full pass, up to an image token it may have produced itself.

    A full pass would take that token for the place of another image.
    """
    ids = answer.token_ids.tolist()
    count = ids.index(image_id(tiny)) if image_id(tiny) in ids else len(ids)
    if count:
        expected = chosen(tiny, inputs, ids[:count])
        np.testing.assert_allclose(logprobs[:count], expected, atol=TOLERANCE)


def generated(tiny: Tiny, inputs: dict[str, Any], new_tokens: int = NEW_TOKENS) -> Any:
    settings = tf.GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=[END, 2],
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        output_hidden_states=True,
    )
    owner = tiny.model.language_model if tiny.name == "instructblip" else tiny.model
    trap, owner.generation_config = owner.generation_config, settings
    try:
        return tiny.model.generate(**inputs, generation_config=settings)
    finally:
        owner.generation_config = trap


def test_greedy_equals_generate(tiny: Tiny, batched: dict) -> None:
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        inputs = plain_inputs(tiny, asked, images)
        output = generated(tiny, inputs)
        reference = output.sequences[0].tolist()[-len(output.logits) :]
        own = batched[asked.id, "clean"].answer
        compared = 0
        for step, logits in enumerate(output.logits):
            best = logits[0].float().log_softmax(-1).topk(2)
            if best.values[0] - best.values[1] <= 1e-4:
                break
            assert own.token_ids[step] == reference[step]
            compared += 1
        assert compared > 0
        assert own.finish_reason == ("stop" if reference[-1] in (END, 2) else "length")
        assert len(own.token_ids) == len(reference)


def test_some_answers_end_and_some_are_cut(tiny: Tiny, batched: dict) -> None:
    reasons = {
        answer.finish_reason
        for record in batched.values()
        for answer in (record.answer, *record.samples)
    }
    assert reasons == {"stop", "length"}


def test_logprobs_equal_a_full_forward_pass(tiny: Tiny, batched: dict) -> None:
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        record = batched[asked.id, "clean"]
        inputs = plain_inputs(tiny, asked, images)
        for answer in (record.answer, *record.samples):
            assert_forced(tiny, inputs, answer, answer.logprobs)


def test_entropy_and_top_tokens_are_of_the_raw_distribution(tiny: Tiny, batched: dict) -> None:
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        record = batched[asked.id, "clean"]
        ids = record.answer.token_ids.tolist()
        kept = ids[: ids.index(image_id(tiny)) + 1] if image_id(tiny) in ids else ids
        # The last token is not fed, so one image token at the end does no harm.
        table = full_forward(tiny, plain_inputs(tiny, asked, images), [*kept[:-1], END])
        entropy = -(table.exp() * table).sum(-1)
        top = record.array(Feature.TOP_LOGPROBS)[: len(kept)]
        top_ids = record.array(Feature.TOP_TOKEN_IDS)[: len(kept)]
        shown = record.array(Feature.TOKEN_ENTROPY)[: len(kept)]
        np.testing.assert_allclose(shown, entropy, atol=2e-4)
        np.testing.assert_allclose(top, table.topk(5, -1).values, atol=TOLERANCE)
        at_ids = torch.gather(table, 1, torch.tensor(top_ids).long())
        np.testing.assert_allclose(top, at_ids, atol=TOLERANCE)
        np.testing.assert_array_equal(top_ids[:, 0], kept)


def test_one_by_one_equals_batched(tiny: Tiny, batched: dict) -> None:
    observer = tiny.observer()
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        for record in observer.observe([asked], [images], REQUEST):
            assert_equal_observations(record, batched[tuple(record.key)])


def assert_equal_observations(record: Record, other: Record) -> None:
    pairs = zip((record.answer, *record.samples), (other.answer, *other.samples), strict=True)
    for one, many in pairs:
        assert one.text == many.text
        np.testing.assert_array_equal(one.token_ids, many.token_ids)
        np.testing.assert_allclose(one.logprobs, many.logprobs, atol=TOLERANCE)
    assert record.features.keys() == other.features.keys()
    for feature, array in record.features.items():
        np.testing.assert_allclose(
            array.astype(np.float64),
            other.features[feature].astype(np.float64),
            atol=2e-2 if "hidden" in feature else 2e-4,
            err_msg=feature,
        )


def test_reading_in_parts_equals_one_by_one(
    tiny: Tiny, batched: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_apart, "_LEAST_POSITIONS", 1)
    monkeypatch.setattr(reading_apart, "_LEAST_FLOPS", 1.0)
    parts = []

    def counted(own: list[Prefill], rows: list[list[int]]) -> Prefill:
        parts.append(rows)
        return reading_apart.joined(own, rows)

    monkeypatch.setattr(reading, "joined", counted)
    observer = tiny.observer()
    twin = example("twin", EXAMPLES[0].question)
    images = [IMAGES[0], *IMAGES[1:], (picture(9, (40, 30)),)]
    found = observer.observe([*EXAMPLES, twin], images, REQUEST)
    # Questions of equal length about pictures of equal size are read together.
    assert any([0, 4] in rows for rows in parts)
    assert sum(map(len, parts[0])) == 5
    # So are they whatever number of pictures each has.
    pairs = [(*IMAGES[i], picture(30 + i, (25 + 8 * i, 31))) for i in (0, 1)]
    if tiny.name != "instructblip":  # which reads exactly one
        found += observer.observe(
            [pair("two-a"), pair("two-b", "Which is larger now?")], pairs, REQUEST
        )
        assert sum(map(len, parts[-1])) == 2
    observer = tiny.observer()
    monkeypatch.setattr(observer._prompts, "_in_parts", False)
    for record in found:
        if record.example.id.startswith("two"):
            row = 0 if record.example.id == "two-a" else 1
            alone = observer.observe([record.example], [pairs[row]], REQUEST)
        elif record.example.id == "twin":
            alone = observer.observe([twin], [images[4]], REQUEST)
        else:
            alone = [batched[tuple(record.key)]]
        assert_equal_observations(record, next(a for a in alone if a.key == record.key))


def pair(name: str, question: str = "What differs?") -> Example:
    return example(name, question, images=2)


def test_reading_everything_again_equals_the_shared_prefill(tiny: Tiny, batched: dict) -> None:
    slow = TransformersModel(tiny.model, tiny.processor, identity={}, decoding=Decoding.RECOMPUTED)
    compared = 0
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        expected = [batched[asked.id, "clean"], batched[asked.id, "blank"]]
        answers = [a for r in expected for a in (r.answer, *r.samples)]
        if any(image_id(tiny) in answer.token_ids for answer in answers):
            with pytest.raises(ModelError, match=r"refused its own answer|number of ones in mask"):
                slow.observe([asked], [images], REQUEST)
            continue
        found = slow.observe([asked], [images], REQUEST)
        again = [a for r in found for a in (r.answer, *r.samples)]
        for one, many in zip(again, answers, strict=True):
            np.testing.assert_array_equal(one.token_ids, many.token_ids)
            np.testing.assert_allclose(one.logprobs, many.logprobs, atol=TOLERANCE)
        assert found[0].features.keys() == expected[0].features.keys()
        for feature, array in found[0].features.items():
            np.testing.assert_allclose(
                array.astype(np.float64),
                expected[0].features[feature].astype(np.float64),
                atol=2e-2 if "hidden" in feature else 10 * TOLERANCE,
                err_msg=feature,
            )
        compared += 1
    assert compared > 0


def test_every_tested_architecture_is_trusted_without_a_probe(tiny: Tiny) -> None:
    config = tiny.model.config
    assert (config.model_type, config.get_text_config().model_type) in verification.TESTED


def test_the_probe_of_untested_architectures_accepts_every_tested_one(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "TESTED", frozenset())
    assert tiny.observer().fingerprint()["decoding"] == Decoding.SHARED


def test_the_probe_notices_a_cache_that_cannot_be_shared(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Continuation, start: Prefill, rows: torch.Tensor, room: int) -> None:
        right(self, start, rows, room)
        self._positions = self._positions - 5

    right = Continuation.__init__
    monkeypatch.setattr(verification, "TESTED", frozenset())
    monkeypatch.setattr(Continuation, "__init__", wrong)
    assert tiny.observer().fingerprint()["decoding"] == Decoding.RECOMPUTED


def test_samples_do_not_depend_on_order_or_number(tiny: Tiny, batched: dict) -> None:
    other = Request(max_new_tokens=NEW_TOKENS, n_samples=2, temperature=1.3, top_p=0.9, seed=11)
    records = tiny.observer().observe(EXAMPLES[::-1], IMAGES[::-1], other)
    for record in records:
        for one, many in zip(record.samples, batched[tuple(record.key)].samples, strict=False):
            np.testing.assert_array_equal(one.token_ids, many.token_ids)


def test_options_equal_scoring_each_by_itself(tiny: Tiny, batched: dict) -> None:
    lead = " " if tiny.name in ("llava", "instructblip") else ""
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        record = batched[asked.id, "clean"]
        if asked.choices is None:
            assert not record.has(Feature.OPTION_LOGPROBS)
            continue
        for condition, shown in (("", images), ("blank_", white(images))):
            inputs = plain_inputs(tiny, asked, shown)
            scores = record.array(Feature(f"{condition}option_logprobs"))
            for choice, score, length in zip(
                asked.choices, scores, record.array(Feature.OPTION_LENGTHS), strict=True
            ):
                ids = tiny.processor.tokenizer(lead + choice, add_special_tokens=False)["input_ids"]
                expected = chosen(tiny, inputs, [*ids, END])
                assert score == pytest.approx(expected.sum(), abs=TOLERANCE * length)
                assert length == len(ids) + 1
            letters = record.array(Feature(f"{condition}letter_logprobs"))
            for letter, score in zip(asked.letters, letters, strict=True):
                tokens = tiny.processor.tokenizer
                forms = {
                    tuple(tokens(text, add_special_tokens=False)["input_ids"])
                    for text in (letter, lead + letter)
                }
                total = sum(np.exp(chosen(tiny, inputs, list(form)).sum()) for form in forms)
                assert score == pytest.approx(np.log(total), abs=TOLERANCE)


def test_blank_equals_a_white_image(tiny: Tiny, batched: dict) -> None:
    moved = 0.0
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        clean, blank = batched[asked.id, "clean"], batched[asked.id, "blank"]
        inputs = plain_inputs(tiny, asked, white(images))
        assert_forced(tiny, inputs, clean.answer, clean.array(Feature.BLANK_LOGPROBS))
        assert_forced(tiny, inputs, blank.answer, blank.answer.logprobs)
        moved = max(
            moved, np.abs(clean.array(Feature.BLANK_LOGPROBS) - clean.answer.logprobs).max()
        )
    assert moved > 0.05, "the image must matter for this test to mean anything"


def test_hidden_states_are_those_that_emitted_the_tokens(tiny: Tiny, batched: dict) -> None:
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        record = batched[asked.id, "clean"]
        inputs = plain_inputs(tiny, asked, images)
        states = generated(tiny, inputs).hidden_states
        assert record.layers == LAYERS
        for row, layer in enumerate(LAYERS):
            emitted = torch.stack([step[layer][0, -1] for step in states]).float()
            close = {"atol": 2e-2, "rtol": 2e-3}
            np.testing.assert_allclose(record.array(Feature.HIDDEN)[row], emitted, **close)
            np.testing.assert_allclose(
                record.array(Feature.PROMPT_HIDDEN)[row], emitted[0], **close
            )
            where = inputs["input_ids"][0] == image_id(tiny)
            mean = states[0][layer][0, where].float().mean(0)
            assert int(where.sum()) > 1
            np.testing.assert_allclose(record.array(Feature.IMAGE_HIDDEN)[row], mean, **close)


def test_states_of_samples_are_those_that_emitted_their_last_tokens(
    tiny: Tiny, batched: dict
) -> None:
    """Equal to a teacher-forced pass of the plain model over prompt and sample."""
    compared, lengths = 0, set()
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        record = batched[asked.id, "clean"]
        kept = record.array(Feature.SAMPLE_HIDDEN)
        assert kept.shape[:2] == (len(LAYERS), len(record.samples))
        inputs = plain_inputs(tiny, asked, images)
        for i, sample in enumerate(record.samples):
            ids = sample.token_ids.tolist()
            if image_id(tiny) in ids[:-1]:
                continue  # a full pass would take it for the place of another image
            extended = continued(inputs, ids[:-1])
            with torch.inference_mode():
                outputs = tiny.model(**extended, use_cache=False, output_hidden_states=True)
            outputs = getattr(outputs, "language_model_outputs", None) or outputs
            emitted = torch.stack([outputs.hidden_states[layer][0, -1] for layer in LAYERS])
            np.testing.assert_allclose(kept[:, i], emitted.float(), atol=2e-2, rtol=2e-3)
            compared += 1
            lengths.add(len(ids))
    assert compared > 0
    assert len(lengths) > 1, "samples must end at different steps for this test to mean anything"


def test_states_of_samples_are_kept_only_on_request(tiny: Tiny) -> None:
    request = Request(max_new_tokens=3, n_samples=2, layers=LAYERS)
    record = tiny.observer().observe(EXAMPLES[:1], IMAGES[:1], request)[0]
    assert record.has(Feature.HIDDEN)
    assert not record.has(Feature.SAMPLE_HIDDEN)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_any_number_of_images(tiny: Tiny, count: int) -> None:
    if tiny.name in ("instructblip", "paligemma") and count != 2:
        pytest.skip("this model reads at least one image")
    if tiny.name == "instructblip":
        pytest.skip("this model reads exactly one image")
    asked = example(f"many-{count}", "What differs?", images=count)
    images = tuple(picture(20 + i, (30 + 9 * i, 50 - 7 * i)) for i in range(count))
    mixed = [EXAMPLES[0], asked, EXAMPLES[1]]
    request = Request(max_new_tokens=6, n_samples=1, layers=(1.0,), blank=True)
    records = tiny.observer().observe(mixed, [IMAGES[0], images, IMAGES[1]], request)
    keys = [tuple(record.key) for record in records]
    blank = [(asked.id, "blank")] if count else []
    assert keys == [
        ("short", "clean"),
        ("short", "blank"),
        (asked.id, "clean"),
        *blank,
        ("longer", "clean"),
        ("longer", "blank"),
    ]
    record = records[2]
    inputs = plain_inputs(tiny, asked, images)
    for answer in (record.answer, *record.samples):
        assert_forced(tiny, inputs, answer, answer.logprobs)
    assert record.has(Feature.IMAGE_HIDDEN) == (count > 0)


def white(images: tuple[Image.Image, ...]) -> tuple[Image.Image, ...]:
    return tuple(Image.new("RGB", image.size, "white") for image in images)


def image_id(tiny: Tiny) -> int:
    config = tiny.model.config
    return getattr(config, "image_token_id", None) or config.image_token_index
