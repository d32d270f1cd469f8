"""The table of known numbers: what is off has a name."""

import pytest
from ase import Atoms

from ase_crystalformer.errors import CrystalformerError
from benchmarks.anchors import LAYERED, STABLE, cubic, hull, layers, relaxed


def test_every_crystal_has_a_row():
    assert [line.split()[1] for line in layers()[2:]] == list(LAYERED)
    rows = [line.split() for line in hull()[2:]]
    assert [row[1] for row in rows] == list(STABLE)
    assert dict(zip(STABLE, (row[5] for row in rows), strict=True))["CsCl"] == "Cl2+Cs"


def test_lattice_constants_are_those_of_the_conventional_cell():
    [row] = [line.split() for line in cubic() if line.startswith("| MgO")]
    assert float(row[5]) == pytest.approx(4.25, abs=0.1)
    assert float(row[9]) == pytest.approx(100 * (float(row[5]) / 4.25 - 1), abs=0.2)


def test_what_does_not_come_to_rest_is_named():
    molecule = Atoms("CO", [(0, 0, 0), (0, 0, 1.1)], cell=[4, 4, 4], pbc=True)
    on_top = Atoms("C2", [(0, 0, 0), (0, 0, 0.001)], cell=[4, 4, 4], pbc=True)
    with pytest.raises(CrystalformerError, match="twins did not come to rest"):
        relaxed({"molecule": molecule, "twins": on_top})
