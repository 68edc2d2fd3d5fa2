"""Zero-shot classifiers: collected, and their likeliest classes ranked anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.observing import model_notes
from sightline.core.protocols import Request

if TYPE_CHECKING:
    from sightline.workflow.classifying.collecting import ClassifyResult, SupportRule
    from sightline.workflow.classifying.encoders import Preprocessing
    from sightline.workflow.classifying.reranking import RerankResult
    from sightline.workflow.collect import CollectProgress


def classify(
    model: str,
    data: str | Path,
    output: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    templates: str | None = None,
    images: str | Path | None = None,
    encoders: Sequence[str] = (),
    encoder_preprocessing: Preprocessing = "own",
    views: Sequence[str] = ("mirror", "gray"),
    support: str | Path | None = None,
    shots: int = 16,
    draws: int | None = None,
    support_rule: SupportRule = "random",
    seed: int = 0,
    limit: float | None = None,
    batch_size: int = 64,
    shard_size: int = 512,
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, CollectProgress], None] = lambda _part, _progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ClassifyResult:
    """Embeds pictures and class names with a zero-shot classifier, once; the same call resumes.

    Args:
        model: A CLIP, SigLIP or SigLIP 2 model as transformers loads it, ``embedded:clip``,
            ``embedded:siglip``, or ``open_clip:ARCHITECTURE/WEIGHTS``.
        data: Labelled pictures; see `sightline.data.image_sets.load_image_set`.
        output: The run directory.
        classes: Names of the classes: a sequence, a file, joined by commas, or the directory of an
            earlier run, of which a picture may then be none; the data's if None.
        templates: Prompt templates: a built-in name or a file; the model's usual ones if None.
        images: Folder that picture paths start from; the data's own if None.
        encoders: Auxiliary image encoders: model directories, hub names or ``embedded:encoder``,
            with ``?pool=mean`` or ``?pool=cls`` behind one to pool its tokens otherwise than the
            model does; or files of vectors (.npz, .safetensors, .parquet).
        encoder_preprocessing: classifier gives encoders pictures as the classifier's own processor
            prepares them, as TrustVLM's released code does; own is what each was trained on.
        views: Transformed versions of every picture that are embedded, too: mirror, gray.
        support: Labelled pictures to learn from: a source as ``data``, or the name of another split
            of it.
        shots: Support pictures of every class.
        draws: Repeated draws of them; 10 if None, or 1 where the rule has one.
        support_rule: random, or compat for the draw of TrustVLM's released code.
        seed: Of the draws.
        limit: Pictures only of this count (int) or share (float < 1), spread evenly.
        batch_size: Pictures at once.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        model_options: Passed to the loading of models (device_map, dtype, revision, …).
        announce: Called with single lines on what will be done.
        progress: Called with the part and its progress after every shard.
        should_stop: Asked before every shard; True ends it, resumable.
    """
    from sightline.data.image_sets import (
        load_image_set,
        load_templates,
        numbers_read_as,
        require_known,
        with_classes,
    )
    from sightline.data.image_sources import support_source
    from sightline.models import load_classifier
    from sightline.store.images import image_writer
    from sightline.store.layout import is_run, require_free
    from sightline.workflow.classifying.collecting import SupportPlan
    from sightline.workflow.classifying.collecting import classify as run_classify
    from sightline.workflow.classifying.encoders import load_encoders, usual_templates
    from sightline.workflow.classifying.reading import run_classes

    path = Path(output)
    if not is_run(path):
        require_free(path, overwrite=overwrite)
    given = str(classes) if isinstance(classes, Path) else classes
    earlier = run_classes(Path(given)) if isinstance(given, str) else None
    given = earlier or given
    writer = image_writer(path)
    pictures = load_image_set(data, classes=given, images=images, limit=limit, store_image=writer)
    if earlier is None:
        require_known(pictures)
    if (read := numbers_read_as(pictures)) is not None:
        announce(read)
    plan = None
    if support is not None:
        source = support_source(str(support), str(data), shots)
        pool = load_image_set(source, classes=given, images=images, store_image=writer)
        usual = 10 if support_rule == "random" else 1
        plan = SupportPlan(
            with_classes(pool, pictures.classes),
            shots,
            usual if draws is None else draws,
            seed,
            support_rule,
        )
    options = dict(model_options or {})
    loaded = load_classifier(model, **options)
    return run_classify(
        loaded,
        pictures,
        path,
        templates=load_templates(templates, usual_templates(model, sigmoid=loaded.sigmoid)),
        encoders=load_encoders(
            encoders, options, preprocessing=encoder_preprocessing, classifier=loaded
        ),
        views=tuple(views),
        support=plan,
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        notes=model_notes(model),
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )


def rerank(
    run: str | Path,
    model: str,
    output: str | Path,
    *,
    top: int = 3,
    question: str | None = None,
    shown: bool = False,
    limit: int | None = None,
    samples: int = 0,
    max_new_tokens: int = 32,
    layers: Sequence[float | int] = (),
    seed: int = 0,
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[CollectProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RerankResult:
    """Lets a vision-language model choose among a classifier's likeliest classes.

    Args:
        run: The classifier's run.
        model: The model that is asked; as `collect` takes it.
        output: Receives the model's run, which is evaluated like any other.
        top: Classes offered.
        question: What is asked of a picture; "What does the picture show?" if None.
        shown: Also show a support picture of every class offered.
        limit: The first pictures only.
        samples: Sampled answers beside the greedy one.
        max_new_tokens: Limit on generated tokens per answer.
        layers: Depths whose hidden states are kept.
        seed: Run seed.
        batch_size: Pictures at once.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        model_options: Passed to `sightline.models.load_model`.
        announce: Called with one line on the size of the job.
        progress: Called after every shard.
        should_stop: Asked before every shard; True ends it, resumable.
    """
    from sightline.models import load_model
    from sightline.workflow.classifying.reranking import ASKED
    from sightline.workflow.classifying.reranking import rerank as run_rerank

    return run_rerank(
        Path(run),
        load_model(model, **(model_options or {})),
        Path(output),
        top=top,
        question=question or ASKED,
        shown=shown,
        limit=limit,
        request=Request(
            max_new_tokens=max_new_tokens, n_samples=samples, layers=tuple(layers), seed=seed
        ),
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )
