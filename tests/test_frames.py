"""A user's own frames: found wherever they lie, read once, and held out in whole runs."""

import gzip
import logging
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.frames import files_of, read_frames, set_aside
from ase_crystalformer.data.vasprun import read_vasprun
from ase_crystalformer.errors import BadStructure, MissingData

VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray>
  <varray name="weights"><v>1</v></varray></kpoints>
 <parameters><i type="int" name="NELM">{allowed}</i></parameters>
 <atominfo><atoms>1</atoms><types>1</types><array name="atoms"><set>
  <rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis">{cell}</varray></crystal>
  <varray name="positions"><v>0 0 0</v></varray></structure>
{calculations}
{end}"""

CELL = "<v>0 1.8 1.8</v><v>1.8 0 1.8</v><v>1.8 1.8 0</v>"


def calculation(energy, steps, force=0.25):
    """One ionic step of VASP: its stress of 10 kbar is a pressure, so negative for ASE."""
    steps = "<scstep><energy/></scstep>" * (steps - 1) + (
        f"<scstep><energy><i name='e_fr_energy'>{energy}</i>"
        f"<i name='e_0_energy'>{energy + 0.125}</i></energy></scstep>"
    )
    return (
        f"<calculation>{steps}<structure><crystal><varray name='basis'>{CELL}</varray></crystal>"
        f"<varray name='positions'><v>0 0 {0.01 * steps.count('scstep')}</v></varray></structure>"
        f"<varray name='forces'><v>0 0 {force}</v></varray>"
        "<varray name='stress'><v>10 0 0</v><v>0 10 0</v><v>0 0 10</v></varray>"
        f"<energy><i name='e_fr_energy'>{energy}</i></energy></calculation>"
    )


def vasprun(path, *calculations, allowed=5, end="</modeling>"):
    text = VASPRUN.format(allowed=allowed, cell=CELL, calculations="\n".join(calculations), end=end)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    )
    return path


def labelled(seed, **results):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    else:
        atoms.calc = EMT()
        atoms.get_stress()
    return atoms


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_vasp_frames_have_energy_without_smearing_forces_and_ase_stress(tmp_path, suffix):
    path = vasprun(tmp_path / f"vasprun.xml{suffix}", calculation(-3.0, 2))
    [frame] = read_frames([path], group="own")
    assert frame.labels["energy"] == pytest.approx(-2.875)
    assert np.allclose(frame.labels["forces"], [[0, 0, 0.25]])
    assert np.allclose(frame.labels["stress"], -0.00624151 * np.eye(3), atol=1e-8)
    assert (frame.group, frame.source, frame.id) == ("own", "own", f"{path}#0")


def test_electrons_that_did_not_converge_are_named(tmp_path, caplog):
    path = vasprun(tmp_path / "vasprun.xml", calculation(-3, 4), calculation(-3.1, 5))
    assert [frame.id for frame in read_frames([path], group="own")] == [f"{path}#0"]
    assert "vasprun 1" in caplog.text
    assert "NELM = 5" in caplog.text
    vasprun(path, calculation(-3, 4), calculation(-3.1, 5), allowed=6)
    assert len(list(read_frames([path], group="own"))) == 2


def test_a_job_that_was_cut_off_gives_its_whole_steps(tmp_path):
    path = vasprun(tmp_path / "vasprun.xml", calculation(-3, 2), "<calculation><scstep>", end="")
    assert [problem for _, problem in read_vasprun(path)] == [None]
    path.write_text("<modeling>")
    with pytest.raises(BadStructure, match="cut off before its first step"):
        list(read_vasprun(path))


def test_every_kind_of_file_is_read_and_a_broken_one_named(tmp_path, caplog):
    write(tmp_path / "a.extxyz", [labelled(0), labelled(1)])
    write(tmp_path / "deep.traj", labelled(2))
    with connect(tmp_path / "b.db") as database:
        database.write(labelled(3))
    vasprun(tmp_path / "relax" / "vasprun.xml", calculation(-3, 2))
    (tmp_path / "broken.extxyz").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("not for reading")
    frames = list(read_frames([tmp_path], group="own"))
    assert len(frames) == 5
    assert "broken.extxyz" in caplog.text
    assert all(frame.labels["forces"].shape == (frame.atoms, 3) for frame in frames)
    assert len(list(read_frames([f"{tmp_path}/*.extxyz"], group="own"))) == 2
    with pytest.raises(MissingData, match="nothing"):
        list(read_frames([tmp_path / "nothing"], group="own"))


def test_what_was_never_written_to_its_end_is_passed_by(tmp_path):
    write(tmp_path / "a.extxyz", labelled(0))
    write(tmp_path / ".partial-a.extxyz", labelled(1))
    assert files_of([tmp_path]) == files_of([f"{tmp_path}/*"]) == [tmp_path / "a.extxyz"]
    with pytest.raises(MissingData, match="no folder or glob"):
        files_of([f"{tmp_path}/.*"])
    assert len(files_of([tmp_path / ".partial-a.extxyz"])) == 1


def test_a_file_is_read_once(tmp_path):
    write(tmp_path / "a.extxyz", labelled(0))
    assert len(files_of([tmp_path, tmp_path / "a.extxyz", f"{tmp_path}/*"])) == 1


def test_what_cannot_be_learned_from_is_named(tmp_path, caplog):
    twin, bare, failed = labelled(0), bulk("Cu"), labelled(1)
    twin.calc = SinglePointCalculator(twin, energy=labelled(0).get_potential_energy() + 0.5)
    failed.info["converged"] = False
    stress_only = labelled(2, stress=np.zeros(6))
    write(tmp_path / "a.extxyz", [labelled(0), twin, bare, failed, stress_only])
    with caplog.at_level(logging.WARNING):
        frames = list(read_frames([tmp_path], group="own"))
    assert [frame.id.rpartition("#")[2] for frame in frames] == ["0", "4"]
    assert set(frames[1].labels) == {"stress"}
    for told in ("The same frame as", "energies differ by 0.5 eV", "neither energy nor forces"):
        assert told in caplog.text
    assert "did not converge" in caplog.text


def fake(file, number):
    """Two copper atoms with a name."""
    return LabelledCrystal(
        species=np.array([29, 29]),
        positions=np.zeros((2, 3)),
        cell=np.eye(3),
        periodic=np.ones(3, dtype=bool),
        labels={},
        id=f"{file}#{number}",
        source="own",
        group="own",
    )


def parts(frames, fraction=0.1, seed=0):
    """Where each frame goes, by name."""
    return {frame.id: frame.split for frame in set_aside(frames, fraction, seed)}


def test_a_stretch_of_every_long_run_is_held_out():
    told = parts([fake(file, number) for file in "ab" for number in range(40)])
    for file in "ab":
        out = [number for number in range(40) if told[f"{file}#{number}"] == "val"]
        assert len(out) == 4
        assert out == list(range(out[0], out[0] + 4))
    assert parts([fake("a", number) for number in range(40)], seed=1) != parts(
        [fake("a", number) for number in range(40)]
    )


def test_short_runs_are_held_out_whole():
    told = parts([fake(file, number) for file in "abcdefghijklmnopqrst" for number in range(3)])
    out = sorted(name for name, part in told.items() if part == "val")
    assert len(out) == 6
    assert len({name[0] for name in out}) == 2


def test_few_frames_leave_one_to_measure_and_one_to_learn():
    for count in (2, 3, 9):
        told = parts([fake("a", number) for number in range(count)])
        assert sorted(told.values()).count("val") == 1
    assert parts([fake("a", 0)]) == {"a#0": "train"}
    assert set(parts([fake("a", number) for number in range(30)], fraction=0.0).values()) == {
        "train"
    }


def test_the_parts_a_file_names_are_kept(tmp_path):
    frames = [labelled(number) for number in range(3)]
    frames[1].info["split"] = "val"
    write(tmp_path / "a.extxyz", frames)
    read = set_aside(list(read_frames([tmp_path], group="own")), 0.5, 0)
    assert [frame.split for frame in read] == ["train", "val", "train"]
    free = [replace(frame, split=None) for frame in read]
    assert sorted(frame.split for frame in set_aside(free, 0.5, 0)) == ["train", "val", "val"]


def test_a_part_nobody_knows_is_not_trained_on(tmp_path, caplog):
    frames = [labelled(seed) for seed in range(3)]
    for atoms, split in zip(frames, ("train", "valid", "val"), strict=True):
        atoms.info["split"] = split
    write(tmp_path / "mine.extxyz", frames)
    found = set_aside(list(read_frames([tmp_path], group="own")), 0.1, seed=0)
    assert [frame.split for frame in found] == ["train", "val"]
    assert "Its split is 'valid'" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.db", b"no data base" * 100),
        ("a.extxyz.gz", gzip.compress(b"2\nx\n" * 1000, mtime=0)[:40]),
        ("vasprun.xml.gz", gzip.compress(b"<modeling>" * 1000, mtime=0)[:30]),
        ("vasprun.xml.gz", b"not gzip'd"),
        ("vasprun.xml", b"<modeling><scstep></scstep></modeling>"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(name, content, tmp_path, caplog):
    (tmp_path / name).write_bytes(content)
    write(tmp_path / "sound.extxyz", labelled(0))
    assert len(list(read_frames([tmp_path], group="own"))) == 1
    assert f"{name} cannot be read" in caplog.text
