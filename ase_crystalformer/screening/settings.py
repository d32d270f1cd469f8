"""What a screening shall do, and the refusal to go on under other settings."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.pretrained import describe
from ase_crystalformer.screening.store import Store

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?)\s*%|(\d+)")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the results of a screening.

    Attributes:
        model: The potential: a name or a path.
        property_model: Predicts formation energies before, and properties after relaxation.
        closest: Smallest distance between atoms, in sums of their covalent radii.
        balanced: Leave out compounds with non-metals whose charges cannot balance; else that is
            only noted.
        duplicates: Keep structures that others resemble.
        keep: How many of lowest predicted formation energy to relax: a number, or a share such as
            ``"20%"``; ``None`` for all.
        fmax: Force below which a structure is relaxed, eV/Å.
        steps: How often a structure may move.
        relax_cell: Relax the cell too.

    Raises:
        BadRecipe: A value is out of range.
    """

    model: str = "default"
    property_model: str = "default-properties"
    closest: float = 0.6
    balanced: bool = False
    duplicates: bool = False
    keep: str | None = None
    fmax: float = 0.05
    steps: int = 500
    relax_cell: bool = True

    def __post_init__(self) -> None:
        self.kept_of(1)
        if not (self.closest >= 0 and self.fmax >= 0 and self.steps >= 0):
            raise BadRecipe(
                f"closest = {self.closest}, fmax = {self.fmax}, steps = {self.steps}: closest >= "
                "0, fmax >= 0 and steps >= 0 are needed."
            )

    def kept_of(self, count: int) -> int:
        """How many of ``count`` are relaxed; of a share that is not nothing at least one."""
        if self.keep is None:
            return count
        found = _AMOUNT.fullmatch(self.keep.strip())
        share = float(found[1]) / 100 if found and found[1] else 1.0
        if found is None or not 0 < share <= 1 or found[2] == "0":
            raise BadRecipe(f"keep = {self.keep!r}; give a number such as 500, or a share: 20%.")
        return min(count, int(found[2])) if found[2] else max(1, round(share * count))


def hold_to(store: Store, settings: Settings, candidates: Iterable[Path]) -> None:
    """Remember the settings of a screening, or make sure that they are still the same.

    Raises:
        BadRecipe: Settings, weights or candidates are others than those the results are of.
        UnknownName: There is no such model.
    """
    now = asdict(settings)
    for role in ("model", "property_model"):
        now[f"weights of {role}"] = describe(getattr(settings, role)).sha256
    now["candidates"] = digest(candidates)
    now["version"] = version("ase-crystalformer")
    before = store.fact("settings")
    if before is None:
        store.remember("settings", now)
        return
    changed = [
        f"{name} = {before.get(name)!r}, not {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise BadRecipe(
            f"The folder holds results of {'; '.join(changed)}. Choose another folder, or remove "
            "this one."
        )


def digest(files: Iterable[Path]) -> str:
    """Tell apart files by their names and what is in them, in their order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            told = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name} {told}\n".encode(errors="surrogateescape"))
    return total.hexdigest()[:16]
