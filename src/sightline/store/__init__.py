"""Runs on disk, and importers of recorded outputs."""
