"""The audit of a run: pairs of clean and perturbed answers, what they show, and what follows.

`pairs` reads a run shard by shard into columns, `drift`, `rates`, `spectra` and `shown` measure
them, `running` puts the results together, `writing` keeps them, `comparing` sets runs side by side.
"""
