"""The verbs: collect, evaluate, and what they share."""
