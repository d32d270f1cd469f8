"""Every benchmark runs from its files to its plot, by command, and averages as a hand would."""

import gzip
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from assessed import labelled
from matplotlib.figure import Figure
from typer.testing import CliRunner

from ase_crystalformer.assessment import BENCHMARKS, forces, mlearn
from ase_crystalformer.assessment.calculators import candidate
from ase_crystalformer.assessment.run import assess, read_options
from ase_crystalformer.cli import app
from ase_crystalformer.cli.evaluate import BENCHMARKS as NAMED
from ase_crystalformer.data.potential import RUNS
from ase_crystalformer.errors import BadRecipe, MissingExtra


def frame(atoms, info, forces_too=False):
    """One frame as our data files hold it."""
    cell = " ".join(f"{x:.8f}" for x in atoms.cell.array.ravel())
    columns = "species:S:1:pos:R:3" + (":forces:R:3" if forces_too else "")
    lines = [
        str(len(atoms)),
        f'Lattice="{cell}" Properties={columns} {info} pbc="T T T"',
    ]
    for symbol, position in zip(atoms.symbols, atoms.positions, strict=True):
        numbers = [*position, *([0.1, 0.0, -0.1] if forces_too else [])]
        lines.append(" ".join([symbol, *(f"{x:.8f}" for x in numbers)]))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of the data sets of every benchmark, of metals EMT knows."""
    folder = tmp_path_factory.mktemp("data")
    copper, nickel = bulk("Cu", a=3.6), bulk("Ni", a=3.5)
    moving = 'energy=-1.0 stress="0 0 0 0 0 0 0 0 0.001"'
    sets = {
        "wbm_equilibrium": "material_id=wbm-{0} energy=0 formation_energy_per_atom=0",
        "mp_labelled": "material_id=mp-{0} structure_source=mp_2018 split=val energy_per_atom=0",
        "elasticity": "material_id=mp-{0} bulk_modulus_vrh=140 shear_modulus_vrh=50",
        "phonon_heat_capacity": "material_id=mp-{0} heat_capacity=24",
        "eos_all_electron": "config_id={0}-X/FCC volume=11.6 bulk_modulus=140 "
        "bulk_modulus_derivative=5",
    }
    for name, info in sets.items():
        frames = [frame(c, info.format(c.symbols[0])) for c in (copper, nickel)]
        write(folder, name, frames)
    for name in (*RUNS, "eos_vasp_pbe", "phonon_displacements"):
        info = f"element=Cu config_type=one config_id={{0}}/0 crystal=Cu space_group=F {moving}"
        frames = [frame(copper, info.format(n), True) for n in range(40)]
        write(folder, name, frames)
    return folder


def write(folder, name, frames):
    path = folder / f"{name}.extxyz.gz"
    path.write_bytes(gzip.compress("".join(frames).encode()))


QUICK = {
    "relaxation": {"steps": 20},
    "elasticity": {"fmax": 0.01},
    "heat-capacity": {"length": 4.0, "fmax": 0.01, "mesh": 10.0},
    "dynamics": {"picoseconds": 0.02, "length": 3.0},
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_from_its_files_to_its_plot(name, data, tmp_path):
    benchmark, chosen = BENCHMARKS[name], candidate("ase.calculators.emt:EMT")
    told = {"count": 6, "options": QUICK.get(name), "progress": False}
    report = assess(benchmark, chosen, data, tmp_path, **told)
    assert report.rows
    assert report.failed == {}
    assert any(one.value is not None for one in report.statistics)
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    again = assess(benchmark, chosen, data, tmp_path, **told)
    assert again.rows == report.rows
    assert {type(row) for row in again.rows.values()} == {benchmark.row}


def test_the_command_knows_every_benchmark():
    assert NAMED.split(", ") == list(BENCHMARKS)


def test_the_command_tells_tables_and_what_failed(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = ["evaluate", "ase.calculators.emt:EMT", "equation-of-state", "--data", str(data)]
    done = CliRunner().invoke(app, [*told, "--set", "points=5"])
    assert done.exit_code == 0, done.output
    assert "V0 error, median absolute" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["Cu", "Ni"]
    assert (tmp_path / "evaluation" / "equation-of-state" / "summary.json").is_file()
    for _ in range(2):  # a folder of that name, such as that of the results, is not in the way
        done = CliRunner().invoke(app, [*told, "--set", "points=5", "-o", "equation-of-state"])
        assert done.exit_code == 0, done.output
    (tmp_path / "broken.py").write_text(
        "class Broken:\n    def get_potential_energy(self, atoms):\n        return atoms.broken\n"
    )
    told[1] = "broken:Broken"
    done = CliRunner().invoke(app, [*told, "-o", "other"])
    assert done.exit_code == 1
    assert "2 of 2 crystals failed." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["elasticity"], "--data"),
        (["elasticity", "--data", ".", "--set", "steps"], "KEY=VALUE"),
        (["elasticity", "--data", ".", "--set", "stepz=1"], "stepz"),
        (["elasticity", "--data", "."], "elasticity.extxyz.gz"),
        (["elasticity", "--data", ".", "--split", "val"], "--split"),
        (["elasticity", "--data", ".", "--set", "strain=0"], "greater than 0"),
        (["elasticity", "--data", ".", "-o", "a_file"], "a_file' is a file"),
        (["elasticity", "--data", ".", "--seed", "-1"], "--seed"),
        (["mine.extxyz", "-o", "a_file"], "a_file' is a file"),
        (["mine.extxyz", "--count", "3"], "--count"),
        (["mine.extxyz", "--set", "steps=3"], "--set"),
        (["mine.extxyz", "--data", "."], "--data"),
        (["mine.extxyz", "--seed", "1"], "--seed"),
    ],
)
def test_misuse_of_a_benchmark_is_told(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    done = CliRunner().invoke(app, ["evaluate", "ase.calculators.emt:EMT", *arguments])
    assert done.exit_code in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("relaxtion", "Did you mean relaxation or relaxation-mp?"),
        ("elasticty", "Did you mean elasticity?"),
        ("matbench-mp-gab", "Did you mean matbench-mp-gap"),
        ("zzz", f"Benchmarks: {NAMED}. For data sets: crystalformer data list"),
    ],
)
def test_a_name_with_a_slip_is_told_in_a_line(given, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--data", "."]):
        done = CliRunner().invoke(app, ["evaluate", "default", given, *more])
        assert done.exit_code == 2
        assert f"file or data set named '{given}'. {told}" in done.stderr
        assert len(done.stderr) < 250


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_number_among_the_options_has_a_range(name):
    benchmark = BENCHMARKS[name]
    for field in fields(benchmark.options):
        if not isinstance(field.default, bool):
            many = isinstance(field.default, tuple)
            for wrong in (-1, float("nan")):
                with pytest.raises(BadRecipe, match=f"{name}: {field.name}"):
                    read_options(benchmark, {field.name: [wrong] if many else wrong})


def test_oxides_can_be_left_out(data):
    eos = BENCHMARKS["equation-of-state"]
    oxide = bulk("MgO", "rocksalt", a=4.2)
    info = "config_id=Mg-XO/XO volume=18.5 bulk_modulus=150 bulk_modulus_derivative=4"
    folder = data / "with oxides"
    folder.mkdir()
    pure = frame(bulk("Cu", a=3.6), info.replace("Mg-XO/XO", "Cu-X/FCC"))
    write(folder, "eos_all_electron", [pure, frame(oxide, info)])
    found = [
        [c.id for c in eos.crystals(folder, eos.options(oxides=oxides))] for oxides in (True, False)
    ]
    assert found == [["Cu-X/FCC", "Mg-XO/XO"], ["Cu-X/FCC"]]


def test_a_missing_library_stops_the_benchmark_at_once(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ase-crystalformer\[phonons\]'"):
        assess(
            BENCHMARKS["heat-capacity"],
            candidate("ase.calculators.emt:EMT"),
            data,
            tmp_path,
            options={"fmax": 1.0},
            progress=False,
        )


# ------------------------------------------------------------------------- forces and mlearn


def test_force_errors_are_averaged_over_components_of_each_set_and_element(rng):
    atoms = bulk("CuAu", "cesiumchloride", a=3.2)
    atoms.rattle(0.1, seed=1)
    label, stress = rng.normal(size=(2, 3)), np.diag([0.01, 0.0, -0.02])
    crystal = replace(labelled(atoms, "x", forces=label, stress=stress), source="here")
    row = forces.measure(EMT(), crystal, forces.Options())
    atoms.calc = EMT()
    error = atoms.get_forces() - label
    by = {(one.group, one.name): one for one in forces.summarise([row, row])}
    assert by["here", "force MAE"].value == pytest.approx(np.abs(error).mean())
    assert by["here", "force RMSE"].value == pytest.approx((error**2).mean() ** 0.5)
    assert by["Au", "force MAE"].value == pytest.approx(np.abs(error[1]).mean())
    assert by["Cu", "force, mean of labels"].value == pytest.approx(np.abs(label[0]).mean())
    assert by["Cu", "force MAE"].n == 6
    assert by["Cu", "stress MAE"] == replace(by["here", "stress MAE"], group="Cu")
    difference = atoms.get_stress(voigt=False) - stress
    assert by["here", "stress MAE"].value == pytest.approx(1000 * np.abs(difference).mean())


def test_force_errors_relative_to_forces_are_averaged_over_sets():
    def row(source, absolute, label):
        sums = forces.Deviation(absolute=absolute, squared=1.0, label=label, n=3)
        return forces.Row(source=source, elements=["Cu"], forces={"Cu": sums}, stress=None)

    small, large = row("small", 1.0, 2.0), [row("large", 10.0, 80.0), row("large", 30.0, 120.0)]
    [ratio] = [
        one
        for one in forces.summarise([small, *large, row(forces.NEAR_REST, 9.0, 0.1)])
        if one.group == "all"
    ]
    assert (ratio.value, ratio.n) == (pytest.approx((1 / 2 + 40 / 200) / 2), 2)
    assert forces.summarise([])[0].value is None


def test_forces_that_symmetry_forbids_are_not_counted():
    atoms = bulk("Cu", a=3.7)
    labels = {"forces": np.zeros((1, 3)), "stress": np.zeros((3, 3))}
    crystal = replace(labelled(atoms, "x", **labels), source=forces.FORCELESS)
    row = forces.measure(EMT(), crystal, forces.Options())
    by = {(one.group, one.name): one for one in forces.summarise([row])}
    assert by["Cu", "force MAE"].value is None
    assert by["Cu", "stress MAE"].value > 0


@pytest.mark.parametrize("by_element", [{}, {"Cu": forces.Deviation(n=3)}])
def test_forces_that_are_all_zero_or_none_can_be_drawn(by_element):
    row = forces.Row(source="here", elements=["Cu"], forces=by_element, stress=None)
    figure = Figure()
    forces.draw(figure, [row])
    figure.draw_without_rendering()
    assert len(figure.axes) == 2


def test_a_constant_of_energy_is_no_error(rng):
    def rows(shift, count):
        return [
            mlearn.Row(
                element="Cu",
                energy=float(e),
                energy_label=float(e + shift + 0.001 * (-1) ** n),
                forces=forces.Deviation.of(np.zeros(3), np.ones(3)),
                stress=None,
            )
            for n, e in enumerate(rng.normal(size=count))
        ]

    found = {one.name: one.value for one in mlearn.summarise(rows(7.0, 10))}
    assert found["energy MAE"] == pytest.approx(1.0)
    assert found["energy RMSE"] == pytest.approx(1.0)
    assert found["force MAE"] == 1.0
    assert found["stress MAE"] is None
    few = {one.name: one.value for one in mlearn.summarise(rows(7.0, 2))}
    assert few["energy MAE"] is None


def test_held_out_frames_follow_the_seed_of_the_training(data):
    told = [
        {c.id for c in mlearn.MLEARN.crystals(data, mlearn.Options(split_seed=seed))}
        for seed in (0, 0, 3)
    ]
    assert told[0] == told[1]
    assert told[0] != told[2]
    assert len(told[0]) == 2
