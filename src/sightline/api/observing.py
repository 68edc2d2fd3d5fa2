"""What a model shows: collected, and computed from its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.protocols import Request

if TYPE_CHECKING:
    from sightline.data.prompts import PromptStyle
    from sightline.workflow.collect import CollectProgress, CollectResult
    from sightline.workflow.derive import DeriveResult

DEFAULT_LAYERS = (0.25, 0.5, 0.75, 1.0)
DEFAULT_SAMPLES = 10
DEFAULT_ENERGY_MAPS = 16


def collect(
    model: str,
    data: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    estimators: Sequence[str] | None = None,
    samples: int = DEFAULT_SAMPLES,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    top_k: int = 20,
    layers: Sequence[float | int] = DEFAULT_LAYERS,
    sample_states: bool = False,
    options: bool = True,
    blank: bool = True,
    asks: Sequence[str] = (),
    conditions: str | Path | Sequence[str] = (),
    condition_samples: int = 0,
    channels: bool = False,
    energy_maps: int = DEFAULT_ENERGY_MAPS,
    seed: int = 0,
    limit: float | None = None,
    sample_ids: Sequence[str] = (),
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    style: PromptStyle | Mapping[str, str] | None = None,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[CollectProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CollectResult:
    """Observes a model on a dataset and stores everything it shows; the same call resumes.

    Args:
        model: A directory or hub name that transformers loads, ``embedded:NAME``, ``openai:NAME``
            (with ``endpoint`` among the model_options) or ``fake``.
        data: A dataset file, folder or name; see `sightline.data.examples.load_dataset`.
        output: The run directory.
        images: Folder that relative image paths start from; the dataset's own folder if None.
        columns: Renames dataset columns: field to column name.
        estimators: Collect only what these need (overrides samples, layers, sample_states, options,
            blank).
        samples: Sampled answers beside the greedy one.
        temperature: Sampling temperature.
        top_p: Nucleus for sampling.
        max_new_tokens: Limit on generated tokens per answer.
        top_k: Most likely tokens kept per position.
        layers: Depths whose hidden states are kept: fractions, or layer indices.
        sample_states: Keep the last hidden state of every sample too, at the same layers.
        options: Score the options of multiple-choice questions.
        blank: Also observe with a blank image.
        asks: Follow-up questions about the greedy answer, by name (``p_true``, ``p_true.2``), on
            top of those that the estimators need; see `sightline.data.prompt_forms`. Those the
            model was not trained to read are left out.
        conditions: Perturbations under which every example is observed too: names (``jpeg:3``),
            a name of the bank (``default``) or a YAML file; see
            `sightline.data.condition_lists`. Whether the right answer stays is decided for each.
            Where estimators need answers under conditions and none is named, theirs are used.
        condition_samples: Sampled answers under each condition.
        channels: Keep what the model holds of question, picture and answer, at the same layers, and
            how smooth its vision tokens are: what `sightline audit` compares. With estimators, on
            top of what they need.
        energy_maps: With channels, examples of which the energy of every vision token is kept.
        seed: Run seed.
        limit: First examples only: a count (int) or a share (float ≤ 1); stamps the run partial.
        sample_ids: Only these examples.
        batch_size: Examples observed at once.
        shard_size: Examples committed at once.
        overwrite: Remove an existing run first.
        style: How questions are worded; the model's own or the default style if None. A mapping
            changes single fields of that.
        model_options: Passed to `sightline.models.load_model` (device_map, dtype, revision, …).
        announce: Called with one line on size and scope before the first example is observed.
        progress: Called after every shard.
        should_stop: Asked before every shard; True ends the collect, resumable.
    """
    from sightline.data.condition_lists import read_conditions
    from sightline.data.examples import load_dataset
    from sightline.data.prompt_forms import follow_up_names
    from sightline.models import check_model, load_model
    from sightline.store.images import image_writer
    from sightline.store.layout import is_run, require_free
    from sightline.workflow.collect import collect as run_collect
    from sightline.workflow.requests import answerable, no_letters, request_for, unobservable

    named = bool(str(conditions).strip()) if isinstance(conditions, str) else bool(conditions)
    names = [condition.name for condition in read_conditions(conditions)] if named else []
    request = Request(
        max_new_tokens=max_new_tokens,
        n_samples=samples,
        temperature=temperature,
        top_p=top_p,
        top_k_logprobs=top_k,
        layers=tuple(layers),
        sample_hidden=sample_states,
        options=options,
        blank=blank or BLANK in names,
        asks=follow_up_names(asks),
        conditions=tuple(name for name in names if name not in (BLANK, CLEAN)),
        condition_samples=condition_samples,
        channels=channels,
        energy_maps=energy_maps if channels else 0,
        seed=seed,
    )
    if estimators is not None:
        request = request_for(estimators, request)
    if not is_run(Path(output)):
        require_free(Path(output), overwrite=overwrite)
    check_model(model, **(model_options or {}))
    dataset = load_dataset(
        data,
        images=images,
        columns=columns,
        limit=limit,
        sample_ids=sample_ids,
        store_image=image_writer(Path(output)),
    )
    for note in dataset.notes:
        announce(note)
    loaded = load_model(model, style=style, **(model_options or {}))
    unseen = no_letters(estimators or (), loaded)
    if unseen is not None:
        announce(unseen)
    request, unasked = answerable(request, loaded)
    if unasked is not None:
        announce(unasked)
    unseen = unobservable(request, loaded)
    if unseen is not None:
        announce(unseen)
    return run_collect(
        loaded,
        dataset,
        Path(output),
        request=request,
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        notes=(*model_notes(model), *dataset.notes),
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )


def derive(
    run: str | Path,
    *,
    embeddings: str | None = None,
    entailment: str | None = None,
    importance: str | None = None,
    with_question: bool = False,
    replace: bool = False,
    model_options: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] = lambda _kind, _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[DeriveResult]:
    """Computes signals from the answers of a run, beside its records; the same call resumes.

    Args:
        run: The run directory.
        embeddings: Sentence encoder of the answers: ``words``, a directory or a hub name.
        entailment: Entailment model of pairs of answers: a directory or a hub name.
        importance: Sentence encoder that weighs the greedy answer's tokens, as ``embeddings``.
        with_question: Put the question before each answer.
        replace: Replace what another model or setting computed.
        model_options: Passed to the loading of models (device_map, dtype, revision, …).
        progress: Called with (kind, shards done, shards to do).
        should_stop: Asked before every shard; True ends the derivation, resumable.

    Returns:
        What each derivation did, in the order of the arguments.
    """
    from sightline.workflow.classifying.reading import open_answers
    from sightline.workflow.derive import derive_named

    return derive_named(
        open_answers(Path(run)),
        embeddings=embeddings,
        entailment=entailment,
        importance=importance,
        with_question=with_question,
        replace=replace,
        model_options=model_options or {},
        progress=progress,
        should_stop=should_stop,
    )


def model_notes(model: str) -> tuple[str, ...]:
    """What a reader must know of an embedded model: which checkpoint, how far it passes."""
    from sightline.models.embedded import EMBEDDED

    name = model.removeprefix("embedded:")
    if name == model or name not in EMBEDDED:
        return ()
    known = EMBEDDED[name]
    return (f"The model is Sightline's embedded one ({known.checkpoint}); gates: {known.gates}.",)
