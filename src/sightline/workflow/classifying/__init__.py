"""Zero-shot classifiers from pictures to a report: embed once, score from the store.

A classifier's run holds the vectors of its test pictures; two parts of it are runs of their own:
``classes`` with the vectors of the class texts, ``support`` with those of labelled pictures.
"""
