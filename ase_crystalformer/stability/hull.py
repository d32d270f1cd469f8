"""Which crystals last: energies above the convex hull of known phases.

Energies of density-functional theory compare across compounds only after corrections: PBE binds
O2 too strongly and oxides with and without a Hubbard U lie on different scales. A model that
learned Materials Project's uncorrected energies inherits both errors, so its energies take
Materials Project's own corrections, applied by pymatgen.
"""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.stability.known_phases import KNOWN, as_entry
from ase_crystalformer.stability.known_phases import known_phases as read_known_phases
from ase_crystalformer.structures import as_crystal
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

ROUNDING = 1e-8
"""eV/atom. What is no farther from the hull is on it."""

_ANIONS = {"Br", "Cl", "F", "H", "I", "N", "Sb", "Se", "Si", "Te"}
"""What Materials Project corrects where its oxidation state is negative."""


def corrected_entry(
    structure: Any, energy: float, *, name: str | None = None, corrected: bool = True
) -> "ComputedStructureEntry":
    """Make pymatgen's entry of a crystal, with the corrections of Materials Project of 2020.

    Which run the energy stands for is decided as Materials Project decides: PBE+U where oxygen or
    fluorine is the most electronegative element and Co, Cr, Fe, Mn, Mo, Ni, V or W are there, PBE
    elsewhere. Whether oxygen is oxide, peroxide or superoxide is read from the structure.

    Args:
        structure: An ASE, pymatgen or JARVIS structure, periodic in three directions.
        energy: Of the whole cell, eV, on the uncorrected scale of Materials Project, which the
            bundled potentials have.
        name: Becomes ``entry_id``.
        corrected: ``False`` for energies that hold the corrections already, or need none.

    Returns:
        The entry: ``energy`` is corrected, ``uncorrected_energy`` as given.

    Raises:
        BadStructure: It is no crystal, its energy is no finite number, or Materials Project has no
            PBE calculations of one of its elements.

    Source: Wang et al., Sci. Rep. 11, 15496 (2021); mixing of PBE and PBE+U: Jain et al., Phys.
    Rev. B 84, 045115 (2011).
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    if not (isinstance(energy, SupportsFloat) and np.isfinite(float(energy))):
        raise BadStructure(f"The energy is {energy}. Give that of the whole cell in eV.")
    crystal = _to_pymatgen(structure)
    run = _run_of(crystal)
    entry = ComputedStructureEntry(crystal, float(energy), parameters=run, entry_id=name)
    if corrected:
        _correct(entry)
    return entry


class ConvexHull:
    """The lowest energies that known phases offer to any composition.

    One phase diagram is made per chemical system, when it is first asked for.

    Args:
        entries: Known phases: pymatgen entries, all on one scale, e.g. of ``corrected_entry``; or
            the path of a file of them (see ``read_entries``).
        known_phases: Add the phases that come with the package: those stable among some 41,000
            crystals of Materials Project, three fifths of what it held in 2018, on its scale of
            2020; so corrected energies go with them. Where a stable phase is missing, energies
            above the hull are too low. ``data/known_phases.md`` says what is there.
    """

    def __init__(
        self, entries: "Iterable[ComputedEntry] | str | Path" = (), *, known_phases: bool = False
    ) -> None:
        if isinstance(entries, str | Path):
            _refuse_known(Path(entries))
            entries = read_entries(entries)
        self.entries = [_checked(entry) for entry in entries]
        self._by_system: dict[frozenset[str], list[ComputedEntry]] = defaultdict(list)
        for entry in self.entries:
            self._by_system[frozenset(entry.composition.chemical_system_set)].append(entry)
        self._known = read_known_phases() if known_phases else {}
        self._diagrams: dict[frozenset[str], PhaseDiagram] = {}

    def diagram(self, elements: Iterable[str]) -> "PhaseDiagram":
        """Return pymatgen's phase diagram of some elements and all their compounds.

        Raises:
            BadStructure: No phase of one of the elements alone is known.
        """
        from pymatgen.analysis.phase_diagram import PhaseDiagram

        system = frozenset(elements)
        if system not in self._diagrams:
            missing = [element for element in sorted(system) if not self._phases({element})]
            if missing:
                raise BadStructure(
                    f"The known phases hold no pure {', '.join(missing)}, from which the energies "
                    f"of {'-'.join(sorted(system))} are counted. Add entries of the elements."
                )
            parts = (set(p) for n in range(len(system)) for p in combinations(system, n + 1))
            known = [phase for part in parts for phase in self._phases(part)]
            self._diagrams[system] = PhaseDiagram(known)
        return self._diagrams[system]

    def _phases(self, elements: set[str]) -> "list[ComputedEntry]":
        """Return the known phases of all these elements and no others."""
        system = frozenset(elements)
        return [
            *self._by_system.get(system, []),
            *(as_entry(phase) for phase in self._known.get(system, [])),
        ]

    def above(self, entry: "ComputedEntry") -> float:
        """Energy of an entry above the hull, eV/atom; negative if no known mixture is as low.

        Raises:
            BadStructure: It is no entry, or no phase of one of its elements alone is known.
        """
        return self._split(entry)[1]

    def decomposition(self, entry: "ComputedEntry") -> dict[str, float]:
        """Name the phases that the hull holds at this composition, and the share of atoms in each.

        Raises:
            BadStructure: It is no entry, or no phase of one of its elements alone is known.
        """
        shares: dict[str, float] = {}
        for phase, share in self._split(entry)[0].items():
            name = phase.composition.reduced_formula
            shares[name] = shares.get(name, 0.0) + float(share)
        return shares

    def formation_energy(self, entry: "ComputedEntry") -> float:
        """Energy of an entry, counted from the known phases of its elements, eV/atom."""
        return float(self._diagram_of(entry).get_form_energy_per_atom(entry))

    def _diagram_of(self, entry: "ComputedEntry") -> "PhaseDiagram":
        return self.diagram(_checked(entry).composition.chemical_system_set)

    def _split(self, entry: "ComputedEntry") -> "tuple[dict[ComputedEntry, float], float]":
        diagram = self._diagram_of(entry)
        phases, above = diagram.get_decomp_and_e_above_hull(
            entry, allow_negative=True, check_stable=False
        )
        return phases, 0.0 if abs(above) < ROUNDING else float(above)


def _checked(entry: Any) -> "ComputedEntry":
    """Pass an entry on; refuse a structure, which says no energy."""
    if not hasattr(entry, "energy_per_atom"):
        raise BadStructure(
            f"A hull takes pymatgen entries, not {type(entry).__name__}. Make one of a structure "
            "and its energy: corrected_entry(atoms, energy)."
        )
    return entry


def _refuse_known(path: Path) -> None:
    """Refuse a name of the package's phases, which is an option and no file."""
    if path.name.startswith(KNOWN) and not path.exists():
        raise BadStructure(
            f"There is no file {str(path)!r} of entries. The phases that come with the package are "
            "an option: known_phases=True."
        )


def read_entries(path: str | Path, *, corrected: bool = True) -> "list[ComputedEntry]":
    """Read known phases: a JSON list of pymatgen entries, e.g. of Materials Project's own client.

    Args:
        path: The file, as ``write_entries`` or monty's ``dumpfn`` writes it.
        corrected: Correct PBE and PBE+U energies anew by the scheme of 2020, and leave out runs
            that do not belong to it, such as PBE runs of what needs a U. Entries that do not say
            what run they are from are taken as they are. ``False``: take all as they are.

    Raises:
        BadStructure: The file is no such list, or nothing in it can be used.
    """
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        entries = [
            (ComputedStructureEntry if "structure" in row else ComputedEntry).from_dict(row)
            for row in rows
        ]
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise BadStructure(
            f"{path} is no JSON list of pymatgen entries ({type(error).__name__}: {error}). Write "
            "one with write_entries, or with monty's dumpfn."
        ) from error
    if corrected:
        entries = [entry for entry in entries if not entry.parameters or _is_corrected(entry)]
    if not entries:
        raise BadStructure(f"{path} holds no entry that can be used. Give PBE or PBE+U energies.")
    return entries


def write_entries(path: str | Path, entries: "Iterable[ComputedEntry]") -> None:
    """Write entries as JSON that ``read_entries`` and pymatgen read."""
    from monty.json import MontyEncoder

    rows = [entry.as_dict() for entry in entries]
    with whole(path) as partial:
        partial.write_text(json.dumps(rows, cls=MontyEncoder), encoding="utf-8")


def _to_pymatgen(structure: Any) -> "Structure":
    from pymatgen.core import Lattice, Structure

    crystal = as_crystal(structure)
    if not crystal.periodic.all():
        raise BadStructure(
            f"With pbc={crystal.periodic.tolist()} this is no crystal. Only what is periodic in "
            "three directions has a place in a phase diagram."
        )
    return Structure(
        Lattice(crystal.cell), crystal.species, crystal.positions, coords_are_cartesian=True
    )


def _run_of(crystal: "Structure") -> dict[str, Any]:
    """Say which of Materials Project's calculations the energy of a crystal stands for."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # of noble gases
        elements = sorted(crystal.composition.elements, key=lambda element: element.X)
    potentials = MPRelaxSet.CONFIG["POTCAR"]
    if missing := [one.symbol for one in elements if one.symbol not in potentials]:
        raise BadStructure(
            f"Materials Project has no PBE calculations of {', '.join(missing)}, so there are no "
            "corrections. Pass corrected energies, or leave these elements out."
        )
    hubbards = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].get(elements[-1].symbol, {})
    used = {one.symbol: hubbards[one.symbol] for one in elements if one.symbol in hubbards}
    return {
        "run_type": "GGA+U" if used else "GGA",
        "is_hubbard": bool(used),
        "hubbards": used,
        "potcar_symbols": [f"PBE {potentials[one.symbol]}" for one in elements],
    }


def _correct(entry: "ComputedEntry") -> None:
    from pymatgen.entries.compatibility import CompatibilityError

    if not _ANIONS & entry.composition.chemical_system_set:
        entry.data.setdefault("oxidation_states", {})  # guessing them takes seconds, for nothing
    with warnings.catch_warnings():
        # Where no oxidation states can be guessed, the most electronegative element is the anion.
        warnings.filterwarnings("ignore", "Failed to guess oxidation states")
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        try:
            _scheme().process_entry(entry, on_error="raise")
        except (CompatibilityError, KeyError) as error:  # KeyError: it does not say how it was run
            raise BadStructure(
                f"{entry.reduced_formula} does not fit Materials Project's scheme: {error}"
            ) from error


def _is_corrected(entry: "ComputedEntry") -> bool:
    """Correct an entry in place; say whether it belongs to the scheme."""
    try:
        _correct(entry)
    except BadStructure:
        return False
    return True


@cache
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility()
