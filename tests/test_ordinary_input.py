"""Files and objects as users have them: labelled, disordered, constrained, damaged, misnamed."""

import json
import multiprocessing

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write
from command import run
from pandas import DataFrame
from pymatgen.core import Lattice, Structure

from ase_crystalformer import CrystalformerCalculator, predict, relax
from ase_crystalformer.data.frames import read_frames
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadModelFile, BadRecipe, BadStructure, UnknownName
from ase_crystalformer.pretrained import describe
from ase_crystalformer.structure_files import expand, read_structures
from ase_crystalformer.structures import as_crystal

FRAME = """\
1
Lattice="3.6 0 0 0 3.6 0 0 0 3.6" Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} {more}
Cu {x} 0 0 0 0 0
"""

DISORDERED = """\
data_CuAu
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 3
_cell_length_b 3
_cell_length_c 3
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu Cu0 0 0 0 0.5
Au Au0 0 0 0 0.5
"""


@pytest.mark.parametrize("verb", ["predict", "relax"])
def test_labels_that_came_with_a_file_give_way_to_what_is_computed(verb, tmp_path):
    (tmp_path / "labelled.extxyz").write_text(FRAME.format(energy=-3, x=0, more=""))
    noted = bulk("Cu")
    noted.info["energy"], noted.arrays["forces"] = -7.0, np.ones((1, 3))
    write(tmp_path / "noted.traj", noted)
    sources = [str(tmp_path / "labelled.extxyz"), str(tmp_path / "noted.traj")]
    out = tmp_path / "out.extxyz"
    run(verb, *sources, "-m", "default", "-o", out)
    for frame in read(out, ":"):
        known = {**frame.info, **(frame.calc.results if frame.calc else {})}
        alone = frame.copy()
        alone.calc = CrystalformerCalculator()
        assert known["energy"] == pytest.approx(alone.get_potential_energy(), abs=1e-4)


def test_a_frame_that_cannot_be_read_leaves_the_others(tmp_path, caplog):
    frames = [FRAME.format(energy=-3, x=x, more="") for x in ("0", "1", "******", "2")]
    (tmp_path / "md.extxyz").write_text("".join(frames))
    found = list(read_frames([tmp_path / "md.extxyz"], group="own"))
    assert [frame.positions[0, 0] for frame in found] == [0, 1, 2]
    assert "md 2: BadStructure: ASE cannot read it" in caplog.text


def test_trajectories_called_after_poscars_are_read(tmp_path):
    write(tmp_path / "POSCAR", bulk("Cu"), format="vasp")
    ways = tmp_path / "ways"
    out = tmp_path / "out.extxyz"
    run("relax", tmp_path / "POSCAR", "--trajectories", ways, "--steps", 1, "-o", out)
    [path] = ways.iterdir()
    assert read(path, ":")[0].get_chemical_formula() == "Cu"
    other = path.rename(ways / "CONTCAR-1.traj")
    assert next(read_structures([other])).error is None
    assert next(read_frames([other], group="own")).labels["energy"]


def test_disordered_crystals_are_refused_however_they_come(tmp_path):
    path = tmp_path / "CuAu.cif"
    path.write_text(DISORDERED)
    atoms = read(path)
    for refused in (atoms, atoms.repeat(2)):
        with pytest.raises(BadStructure, match=r"Site 0 is disordered .*Cu.*Au"):
            as_crystal(refused)
    [error] = predict([atoms], progress=False)["error"]
    assert "disordered" in error
    made = atoms.repeat((2, 1, 1))
    made.symbols = "CuAu"
    assert len(as_crystal(made).species) == 2


def test_atoms_that_pymatgen_fixes_stay(tmp_path):
    crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
    crystal.translate_sites([0], [0.03, 0, 0])
    crystal.add_site_property("selective_dynamics", [[False] * 3] + [[True] * 3] * 3)
    crystal.add_site_property("magmom", [1.0] * 4)
    (tmp_path / "Cu.json").write_text(json.dumps(crystal.as_dict()))
    read_back = next(read_structures([tmp_path / "Cu.json"])).atoms
    for start in (crystal, read_back):
        [result] = relax([start], relax_cell=False, fmax=0.02, progress=False)
        assert result.converged
        moved = np.linalg.norm(result.atoms.positions - crystal.cart_coords, axis=1)
        assert moved[0] == 0
        assert moved[1:].min() > 1e-3
        assert isinstance(result.atoms.constraints[0], FixAtoms)
        assert result.atoms.get_initial_magnetic_moments().tolist() == [1.0] * 4


def test_a_table_or_a_dictionary_is_no_list_of_structures():
    table = DataFrame({"structure": [bulk("Cu")] * 3, "y": [1, 2, 3]})
    for given in (table, {"a": bulk("Cu")}):
        for asked in (predict, relax):
            with pytest.raises(BadStructure, match=r"no list of structures\. Give its column"):
                asked(given, progress=False)
    assert predict(table["structure"], ["band_gap"], progress=False)["error"].isna().all()


def test_one_trajectory_is_a_file(tmp_path):
    relax(bulk("Cu", a=3.7), trajectory=tmp_path / "one.traj", progress=False)
    assert len(read(tmp_path / "one.traj", ":")) > 1
    with pytest.raises(BadRecipe, match=r"two\.traj is a file.*one path per structure"):
        relax([bulk("Cu"), bulk("Al")], trajectory=str(tmp_path / "two.traj"), progress=False)


@pytest.mark.parametrize("limits", [{"fmax": -1.0}, {"fmax": float("nan")}, {"steps": -1}])
def test_limits_that_cannot_be_reached_are_refused(limits):
    with pytest.raises(ValueError, match=f"{next(iter(limits))} is .*; give a"):
        relax(bulk("Cu"), progress=False, **limits)


def test_a_file_of_no_name_is_no_folder_and_a_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu"))
    assert [problem for _, problem in expand([""])] == [
        "The name of this file is empty. Was a variable not set?"
    ]
    assert len(list(expand(["Cu.cif", tmp_path / "Cu.cif", "."]))) == 1


def test_entries_and_named_structures_are_read_from_json(tmp_path):
    crystal = Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]]).as_dict()
    for told, names in (
        ({"energy": -3.0, "structure": crystal}, ["x.json"]),
        ({"first": crystal, "second": crystal}, ["x.json#first", "x.json#second"]),
    ):
        (tmp_path / "x.json").write_text(json.dumps(told))
        found = list(read_structures([tmp_path / "x.json"]))
        assert [item.name.rpartition("/")[2] for item in found] == names
        assert all(item.error is None for item in found)


def test_what_cannot_be_judged_is_named(tmp_path):
    (tmp_path / "bad.cif").write_text("nothing")
    told = run("evaluate", "default", tmp_path / "bad.cif", "--split", "all", code=1)
    assert "bad.cif holds no labelled crystal" in told.output
    with pytest.raises(UnknownName, match="no split named 'bogus'"):
        PackedCrystals.where(object(), "bogus")


def test_a_damaged_card_is_a_bad_model_file(tmp_path):
    (tmp_path / "mine.json").write_text('{"format": 1}')
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(BadModelFile, match=r"mine\.json"):
        describe(tmp_path / "mine")


def test_the_list_of_models_fits_a_line():
    told = run("models").output
    assert max(map(len, told.splitlines())) < 250
    assert "forces" in told


def energy_of(_: int) -> float:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = CrystalformerCalculator()
    return float(atoms.get_potential_energy())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_compute_after_their_parent_has(more_threads):
    expected = energy_of(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.map_async(energy_of, [1]).get(timeout=60)
    assert found == [pytest.approx(expected, abs=1e-4)]


@pytest.fixture
def more_threads():
    """Compute on two threads, as most users do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_shares_of_one_site_are_no_matter_where_there_is_no_cif():
    atoms = Atoms("Cu", cell=[3, 3, 3], pbc=True, info={"occupancy": {"0": {"Cu": 0.5, "Au": 0.5}}})
    assert len(as_crystal(atoms).species) == 1
