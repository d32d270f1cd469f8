"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What names begin with while a file is written.
PARTIAL = ".partial-"


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Name a place to write to, which takes the name ``path`` when all is written.

    It lies in the same folder and has the same ending. Where writing breaks, ``path`` stays as it
    was; what a killed process leaves is written over by the next one.
    """
    path = Path(path)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether a file is what a killed process left; whoever walks through a folder passes it by."""
    return path.name.startswith(PARTIAL)
