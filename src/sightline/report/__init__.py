"""Typed results to one self-contained HTML page, and to the terminal.

`view` decides every number and word, `charts` draws, `render` writes HTML; nothing here measures.
"""
