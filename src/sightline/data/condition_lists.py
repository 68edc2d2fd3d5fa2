"""Lists of conditions as people write them: names, a name of the bank, or a YAML file.

A YAML file is a list. Each entry is a name as on the command line, or a family with one or several
of its levels:

    - default              # every condition of a list of the bank
    - rotate: [-30, 30]    # a family at these levels
    - wording: 1
    - jpeg:3+rotate:30     # composed, applied from left to right
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import UsageError
from sightline.data.perturbations import Condition, parse_conditions

_ENDINGS = (".yaml", ".yml")
_LARGEST = 1_000_000
_LAYOUT = "Write one '- family:level' per line."


def read_conditions(source: str | Path | Sequence[str]) -> tuple[Condition, ...]:
    """Reads a list of conditions from names or from a YAML file.

    Args:
        source: Names, one text with commas between them, or a path that ends with .yaml or .yml.

    Returns:
        Each condition once, in the order first named.

    Raises:
        UsageError: A name that does not exist, an empty list, or a file of another layout.
    """
    if isinstance(source, Path) or (
        isinstance(source, str) and source.strip().lower().endswith(_ENDINGS)
    ):
        return _from_file(Path(str(source).strip()))
    return parse_conditions(source)


def _from_file(path: Path) -> tuple[Condition, ...]:
    import yaml

    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(
                f"{path} has more than {_LARGEST} bytes; a list of conditions is required. "
                f"{_LAYOUT}"
            )
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; a readable YAML file is required. Check --conditions."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or ["nesting too deep"])[0]
        raise UsageError(f"{path}: {first}; valid YAML is required. Fix the file.") from None
    if not isinstance(entries, list):
        raise UsageError(
            f"{path}: holds {type(entries).__name__}; a list of conditions is required. {_LAYOUT}"
        )
    names = [name for number, entry in enumerate(entries) for name in _names(path, number, entry)]
    try:
        return parse_conditions(names)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _names(path: Path, number: int, entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    if isinstance(entry, dict) and len(entry) == 1:
        ((family, levels),) = entry.items()
        listed = levels if isinstance(levels, list) else [levels]
        if isinstance(family, str) and listed and all(map(_is_level, listed)):
            return [f"{family}:{level}" for level in listed]
    raise UsageError(
        f"{path}: entry {number + 1} is {str(entry)[:60]!r}; a name, or one family with its "
        f"levels, is required. {_LAYOUT}"
    )


def _is_level(level: Any) -> bool:
    return isinstance(level, str | int | float) and not isinstance(level, bool)
