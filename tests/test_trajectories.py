"""Ways of relaxations: what ASE reads of them, and that they are not walked twice."""

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.gui.images import Images
from ase.io import read
from factories import calibrated_potential, tiny_potential
from typer.testing import CliRunner

from ase_crystalformer import CrystalformerCalculator, CrystalModel, relax
from ase_crystalformer.cli import app
from ase_crystalformer.cli.relax import _paths
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.relaxation import relax_each
from ase_crystalformer.structure_files import NamedStructure

OPTIONS = {"fmax": 0.002, "steps": 6, "dtype": "float64", "progress": False}


@pytest.fixture
def count(monkeypatch):
    """How many batches the potential computes."""
    batches = []
    energy = CrystalModel.energy

    def counted(self, graph, *arguments, **options):
        batches.append(graph.crystals)
        return energy(self, graph, *arguments, **options)

    monkeypatch.setattr(CrystalModel, "energy", counted)
    return batches


def squeezed(atoms, by=0.86, seed=0):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * by, scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def test_every_step_is_there_as_the_calculator_sees_it(rocksalt, slab, tmp_path):
    starts = [squeezed(rocksalt), squeezed(slab, by=0.9)]
    found = relax(starts, model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000.traj", "000001.traj"]
    for number, (start, end) in enumerate(zip(starts, found, strict=True)):
        frames = read(tmp_path / f"{number:06d}.traj", ":")
        assert len(frames) == end.steps + 1 > 3
        np.testing.assert_allclose(frames[0].positions, start.positions, atol=1e-12)
        np.testing.assert_allclose(frames[0].cell, start.cell, atol=1e-12)
        np.testing.assert_allclose(frames[-1].positions, end.atoms.positions, atol=1e-12)
        np.testing.assert_allclose(frames[-1].cell, end.atoms.cell, atol=1e-12)
        for frame in (frames[0], frames[2], frames[-1]):
            kept, atoms = frame.calc.results, frame.copy()
            atoms.calc = CrystalformerCalculator(
                tiny_potential(), property_model=None, dtype="float64"
            )
            assert kept["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(kept["forces"], atoms.get_forces(), atol=1e-8)
            assert ("stress" in kept) == bool(atoms.pbc.all())
            if atoms.pbc.all():
                np.testing.assert_allclose(kept["stress"], atoms.get_stress(), atol=1e-9)


def test_the_viewer_of_ase_opens_them(rocksalt, tmp_path):
    [one] = relax([squeezed(rocksalt)], model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    shown = Images()
    shown.read([str(tmp_path / "000000.traj")])
    assert len(shown) == one.steps + 1
    assert shown.get_energy(shown[-1]) == pytest.approx(one.energy)


def test_what_is_there_is_not_relaxed_again(rocksalt, wurtzite, fcc, tmp_path, count):
    structures = [squeezed(rocksalt), wurtzite, squeezed(fcc)]
    structures[1].set_constraint(FixAtoms([0]))
    structures[1].arrays["site"] = np.arange(4)
    model = calibrated_potential()
    before = relax(structures, model=model, trajectory=tmp_path, **OPTIONS)
    (tmp_path / "000002.traj").unlink()
    count.clear()
    after = relax(structures, model=model, trajectory=tmp_path, **OPTIONS)
    assert set(count) == {1}, "more than one structure was computed"
    assert len(count) == before[2].steps + 1
    for one, other in zip(before, after, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-12)
        assert (one.steps, one.converged) == (other.steps, other.converged)
        assert one.fmax == pytest.approx(other.fmax, abs=1e-12)
        np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=1e-12)
        np.testing.assert_allclose(one.atoms.cell, other.atoms.cell, atol=1e-12)
        np.testing.assert_allclose(one.stress, other.stress, atol=1e-12)
        np.testing.assert_allclose(one.atoms.get_forces(), other.atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(one.novelty, other.novelty)
        assert one.energy_uncertainty == pytest.approx(other.energy_uncertainty)
        assert isinstance(other.atoms.calc, SinglePointCalculator)
    assert after[1].atoms.arrays["site"].tolist() == [0, 1, 2, 3]
    assert "novelty" in after[1].atoms.calc.results


@pytest.mark.parametrize(
    "changed", [{"fmax": 0.01}, {"relax_cell": False}, {"optimiser": "lbfgs"}, {"dtype": "float32"}]
)
def test_other_settings_are_another_relaxation(rocksalt, tmp_path, count, changed):
    relax([squeezed(rocksalt)], model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    count.clear()
    options = OPTIONS | changed
    [one] = relax([squeezed(rocksalt)], model=tiny_potential(), trajectory=tmp_path, **options)
    assert len(count) == one.steps + 1


def test_other_starts_weights_and_constraints_are_another_relaxation(rocksalt, tmp_path, count):
    start = squeezed(rocksalt)
    relax([start], model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    held = start.copy()
    held.set_constraint(FixAtoms([0]))
    other = tiny_potential()
    other.head.reference[11] = -1.0
    for atoms, model in (
        (squeezed(rocksalt, seed=1), tiny_potential()),
        (held, tiny_potential()),
        (start, other),
    ):
        count.clear()
        [one] = relax([atoms], model=model, trajectory=tmp_path, **OPTIONS)
        assert len(count) == one.steps + 1


def test_half_a_file_is_no_trajectory(rocksalt, tmp_path, count):
    start = squeezed(rocksalt)
    [before] = relax([start], model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    path = tmp_path / "000000.traj"
    path.write_bytes(path.read_bytes()[:200])
    count.clear()
    [after] = relax([start], model=tiny_potential(), trajectory=tmp_path, **OPTIONS)
    assert len(count) == after.steps + 1
    assert after.energy == pytest.approx(before.energy)
    assert len(read(path, ":")) == after.steps + 1


def test_a_failure_is_tried_again_and_bad_input_leaves_no_file(rocksalt, tmp_path):
    strange = rocksalt.copy()
    strange.symbols[0] = "W"
    paths = [tmp_path / "deep" / "salt.traj", tmp_path / "deep" / "strange.traj"]
    good, bad = relax(
        [squeezed(rocksalt), strange], model=tiny_potential(), trajectory=paths, **OPTIONS
    )
    assert good.error is None
    assert "W" in bad.error
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["salt.traj"]


def test_the_command_goes_on_where_it_was(rocksalt, fcc, tmp_path, count):
    tiny_potential().save(tmp_path / "model")
    (tmp_path / "in").mkdir()
    squeezed(rocksalt).write(tmp_path / "in" / "salt.extxyz")
    squeezed(fcc).write(tmp_path / "in" / "copper.extxyz")
    ways = tmp_path / "ways"
    command = ["relax", str(tmp_path / "in"), "-m", str(tmp_path / "model"), "--steps", "4"]
    command += ["-o", str(tmp_path / "out.extxyz"), "--trajectories", str(ways)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    names = sorted(path.name for path in ways.iterdir())
    assert [name[:14] for name in names] == ["in_copper.extx", "in_salt.extxyz"]
    assert len(read(ways / names[1], ":")) > 2
    before = read(tmp_path / "out.extxyz", ":")
    count.clear()
    again = CliRunner().invoke(app, command)
    assert count == []
    assert again.stdout == first.stdout
    files = [str(tmp_path / "in" / name) for name in ("salt.extxyz", "copper.extxyz")]
    turned = CliRunner().invoke(app, ["relax", *files, *command[2:]])
    assert count == [], "another order made relaxations anew"
    assert turned.stdout.splitlines() == [first.stdout.splitlines()[n] for n in (0, 2, 1)]
    assert sorted(path.name for path in ways.iterdir()) == names
    CliRunner().invoke(app, command)
    for one, other in zip(before, read(tmp_path / "out.extxyz", ":"), strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
        np.testing.assert_allclose(one.positions, other.positions)


def test_files_are_called_by_names_that_differ(tmp_path):
    names = [
        "a/b.cif",
        "a_b.cif",
        "A_b.cif",
        "../b.cif",
        "b.cif#1",
        "b.cif~2",
        f"{'ö/' * 400}b.cif",
    ]
    found = _paths(tmp_path, [NamedStructure(name, None, None) for name in names])
    assert len({str(path).lower() for path in found}) == len(names)
    assert not any(path.name.startswith(".") for path in found)
    for path in found:
        assert path.parent == tmp_path
        path.with_name(f".partial-{path.name}").touch()


def test_paths_that_cannot_be_are_told_before_anything_starts(rocksalt, tmp_path, count):
    file, folder = tmp_path / "way.traj", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    wrong = {
        "1 paths for 2 structures": [file],
        "3 paths for 2 structures": [file, folder / "b", folder / "c"],
        "way.traj twice": [file, file],
        "folder is a folder": [file, folder],
        "way.traj is a file": file,
        "traj is a file, and": str(file / "deep"),
        "way.traj is a file, ": [file, file / "other"],
    }
    for told, trajectory in wrong.items():
        with pytest.raises(BadRecipe, match=f"{told}.*one path per structure"):
            relax([rocksalt, rocksalt], model="no model", trajectory=trajectory, **OPTIONS)
    assert count == []
    assert [path.name for path in folder.iterdir()] == []


def test_what_has_no_path_in_a_stream_fails_and_the_rest_is_done(rocksalt, tmp_path):
    options = {key: value for key, value in OPTIONS.items() if key != "progress"}
    stream = (atoms for atoms in [squeezed(rocksalt), squeezed(rocksalt)])
    paths = [str(tmp_path / "one.traj")]
    found = dict(relax_each(stream, model=tiny_potential(), trajectory=paths, **options))
    assert found[0].error is None
    assert "1 paths for more than 1 structures" in found[1].error
