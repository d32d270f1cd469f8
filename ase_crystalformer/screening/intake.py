"""Candidates on their way in: read, checked, and put down with what tells them apart."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.errors import BadStructure, CrystalformerError, UnseenElement
from ase_crystalformer.neighbours.search import neighbour_pairs
from ase_crystalformer.pretrained import describe
from ase_crystalformer.screening.duplicates import fingerprint
from ase_crystalformer.screening.settings import Settings
from ase_crystalformer.screening.store import Result
from ase_crystalformer.structure_files import NamedStructure, read_structures
from ase_crystalformer.structures import Crystal, as_crystal, reduced_formula

if TYPE_CHECKING:
    from ase import Atoms

LONGEST_BOND = 6.0
"""Å. Farther than any sum of covalent radii times a sensible factor."""


def read_candidates(
    sources: Sequence[str], settings: Settings, skip: int, *, made: Sequence[Path] = ()
) -> Iterator[tuple[int, str, Result]]:
    """Read and check candidates one by one.

    Args:
        sources: As of ``read_structures``.
        settings: What is allowed.
        skip: So many were read before.
        made: As of ``read_structures``.

    Yields:
        Number, name, and how it fared.
    """
    intake = Intake(settings)
    stream = enumerate(read_structures(sources, made=made))
    for number, found in islice(stream, skip, None):
        yield number, found.name, intake.check(found)


class Intake:
    """Checks candidates before anything is spent on them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known = [
            (model, frozenset(describe(model).elements))
            for model in (settings.model, settings.property_model)
        ]

    def check(self, found: NamedStructure) -> Result:
        """Take in a candidate, or say why not."""
        from ase.io.jsonio import encode

        if found.atoms is None:
            return Result.failed(str(found.error))
        try:
            told = self._examine(found.atoms)
        except CrystalformerError as error:
            return Result.failed(f"{type(error).__name__}: {error}")
        if self.settings.balanced and told["balanced"] is False:
            reason = "No common oxidation states of its elements add up to zero."
            return Result(outcome="left out", told=told | {"reason": reason})
        return Result(told=told, atoms=encode(_bare(found.atoms)))

    def _examine(self, atoms: "Atoms") -> dict[str, Any]:
        crystal = as_crystal(atoms)
        symbols = atoms.symbols
        for model, known in self._known:
            if known and (unseen := sorted(set(symbols) - known)):
                raise UnseenElement(
                    f"Model {model!r} was trained without {', '.join(unseen)}; it knows "
                    f"{len(known)} elements. Use another model, or train one on them."
                )
        refuse_close(crystal, self.settings.closest)
        formula = reduced_formula(atoms)
        return {
            "formula": formula,
            "system": "-".join(sorted(set(symbols))),
            "atoms": len(atoms),
            "balanced": is_balanced(formula),
            "fingerprint": [round(number, 6) for number in fingerprint(crystal)],
        }


def _bare(atoms: "Atoms") -> "Atoms":
    """Copy a structure without results, and with such notes alone as every format can hold."""
    from ase.calculators.calculator import all_properties

    bare = atoms.copy()
    plain = (str, int, float, bool)
    bare.info = {
        key: value
        for key, value in atoms.info.items()
        if isinstance(value, plain) and key not in all_properties
    }
    kept = ("numbers", "positions", "initial_magmoms", "initial_charges", "tags")
    for name in set(bare.arrays) - set(kept):
        del bare.arrays[name]
    return bare


def refuse_close(crystal: Crystal, closest: float) -> None:
    """Raise if two atoms are nearer than ``closest`` times the sum of their covalent radii.

    Raises:
        BadStructure: naming the atoms.
    """
    from ase.data import chemical_symbols, covalent_radii

    radii = np.array(covalent_radii)[crystal.species]
    pairs = neighbour_pairs(crystal, min(2 * closest * float(radii.max()), LONGEST_BOND) + 0.02)
    distance = np.linalg.norm(pairs.vector, axis=1)
    allowed = closest * (radii[pairs.receiver] + radii[pairs.sender])
    if (distance < allowed).any():
        worst = int(np.argmin(distance / allowed))
        one, other = int(pairs.receiver[worst]), int(pairs.sender[worst])
        names = [chemical_symbols[crystal.species[atom]] for atom in (one, other)]
        raise BadStructure(
            f"Atoms {one} ({names[0]}) and {other} ({names[1]}) are {distance[worst]:.2f} Å apart; "
            f"at least {allowed[worst]:.2f} Å is needed ({closest:g} of the sum of their covalent "
            "radii). Move them apart, or allow closer atoms."
        )


@lru_cache(maxsize=100_000)
def is_balanced(formula: str) -> bool | None:
    """Say whether charges can balance.

    They can if every atom may have one of the oxidation states that its element has in the ICSD,
    as pymatgen lists them, and all add up to zero: atoms of one element may differ.

    Returns:
        ``None`` for elements, and for metals and metalloids alone, where the question has no sense.
    """
    from pymatgen.core import Composition

    amounts = Composition(formula).get_el_amt_dict()
    if len(amounts) == 1 or not any(_is_nonmetal(symbol) for symbol in amounts):
        return None
    sums = {0}
    for symbol, amount in amounts.items():
        for _ in range(int(amount)):
            sums = {charge + state for charge in sums for state in _states(symbol)}
    return 0 in sums


@cache
def _is_nonmetal(symbol: str) -> bool:
    from pymatgen.core import Element

    element = Element(symbol)
    return not (element.is_metal or element.is_metalloid)


@cache
def _states(symbol: str) -> tuple[int, ...]:
    from pymatgen.core import Element

    element = Element(symbol)
    return tuple(element.icsd_oxidation_states or element.oxidation_states or (0,))
