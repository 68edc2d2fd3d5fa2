"""Maps from uncertainty to the probability of being right."""
