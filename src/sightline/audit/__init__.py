"""The mathematics of the hidden-instability audit, on arrays.

A vision-language model can keep its answer under a change of the picture while what it holds of
the picture moves to where unrelated pictures lie. This package measures both sides from stored
arrays: what the answers do (`labels`, `instability`, `yes_no`), what the representations do
(`controls`, `drift`, `structure`), what the pictures do (`frequency`, `probes`, `attack`), what is
answered without the picture (`prior`), and what follows from it (`verdicts`, `answers`, `budget`).
Nothing here runs a model: where one is asked, it is a function of the caller's.

Axes: ``n`` rows (one perturbed answer each, unless said otherwise), ``i`` items (one question about
one picture), ``g`` images, ``c`` options, ``d`` width, ``b`` resamples, ``k`` frequency bands,
``h`` and ``w`` pixels or tokens down and across.
"""
