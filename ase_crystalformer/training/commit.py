"""Which state of the source a run was computed with, where the package lies in a repository."""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parents[1]


def commit_of(folder: Path = HERE) -> str | None:
    """Name the commit of a package; ``+`` stands behind it if files have changed since.

    Args:
        folder: Of the package.

    Returns:
        None where git is not installed, or the package is in no repository.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # e.g. installed into an environment that lies in somebody else's repository
    name = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return None if name is None else name + ("+" if changed else "")


def _git(folder: Path, *command: str) -> str | None:
    """Ask git; None if it has no answer."""
    program = shutil.which("git")
    if program is None:
        return None
    told = subprocess.run(
        [program, "-C", str(folder), *command], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() if told.returncode == 0 else None
