"""Uncertainty estimators and the one table that lists them."""
