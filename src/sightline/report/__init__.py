"""Typed results to one self-contained HTML file."""
