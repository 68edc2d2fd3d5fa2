"""Lets ``python -m sightline`` run the command line."""

from sightline.cli import main

main()
