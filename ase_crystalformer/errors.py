"""What can go wrong, one class per reaction the caller may have.

Every message says what was given, what is allowed and what to do next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CrystalformerError(Exception):
    """Base of every error this package raises on purpose."""


class BadStructure(CrystalformerError, ValueError):
    """This crystal cannot be computed; others in the batch can."""


class UnseenElement(BadStructure):
    """The crystal holds an element the model was not trained on."""


class UnknownName(CrystalformerError, KeyError):
    """A model, encoder, property or data set of that name does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class BadModelFile(CrystalformerError, OSError):
    """A weight file or its card is missing, truncated, altered or of another kind."""


class MissingData(CrystalformerError, FileNotFoundError):
    """The file of a data set is not where it was looked for."""


class DownloadFailed(CrystalformerError, OSError):
    """A file did not arrive whole, or is not the one asked for; trying again may help."""


class NoForces(CrystalformerError):
    """Forces or stress were asked of a model that has none."""


class OutOfMemory(CrystalformerError, MemoryError):
    """This crystal does not fit the memory of the device, not even alone."""


class BadRecipe(CrystalformerError, ValueError):
    """A recipe has an unknown key, a wrong type or a value out of range."""


class BadChain(CrystalformerError, ValueError):
    """A Monte Carlo chain cannot start, go on or resume like this."""


class MissingExtra(CrystalformerError, ImportError):
    """An optional dependency is needed for this and is not installed."""


class OutsideTraining(UserWarning):
    """A model was asked about surroundings unlike all that it was trained on."""


def unknown_name(kind: str, given: object, known: Iterable[str], advice: str = "") -> UnknownName:
    """Say that ``given`` is no ``kind``, what it may have meant, what there is, and any advice."""
    names = sorted(known)
    close = get_close_matches(str(given), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    told = f"There is no {kind} named {given!r}.{hint} Known: {', '.join(names)}."
    return UnknownName(f"{told} {advice}".rstrip())
