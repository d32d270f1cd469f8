"""Jobs of jobflow do what their names say, and flow into one another."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from jobflow import Flow, run_locally
from pymatgen.io.ase import AseAtomsAdaptor

from ase_crystalformer import makers
from ase_crystalformer.assessment import elasticity, relaxing
from ase_crystalformer.errors import BadStructure, MissingExtra
from ase_crystalformer.makers import jobs

# jobflow 0.4 changes folders with a function that monty will drop.
pytestmark = pytest.mark.filterwarnings("ignore:cd is deprecated:FutureWarning")


@pytest.fixture
def copper():
    return AseAtomsAdaptor.get_structure(bulk("Cu", a=3.62))


def output(flow, tmp_path, monkeypatch):
    """Run a job or flow and return what it leaves."""
    monkeypatch.chdir(tmp_path)
    responses = run_locally(flow, ensure_success=True, log=False)
    return responses[flow.output.uuid][1].output


def test_a_static_job_computes_what_the_calculator_does(copper, tmp_path, monkeypatch):
    found = output(makers.StaticMaker(calculator="emt").make(copper), tmp_path, monkeypatch)
    atoms = bulk("Cu", a=3.62)
    atoms.calc = EMT()
    assert found.energy == pytest.approx(atoms.get_potential_energy())
    assert np.allclose(found.stress, atoms.get_stress(voigt=False))
    assert found.converged is None


def test_jobs_flow_into_one_another(copper, tmp_path, monkeypatch):
    relaxing = makers.RelaxMaker(calculator="emt").make(copper)
    computing = makers.StaticMaker(calculator="emt").make(relaxing.output.structure)
    flow = Flow([relaxing, computing], output=computing.output)
    found = output(flow, tmp_path, monkeypatch)
    assert np.abs(found.stress).max() * found.structure.volume < 0.005
    assert found.structure.volume < copper.volume


def test_the_bulk_modulus_is_that_of_both_ways(copper, tmp_path, monkeypatch):
    one = makers.EquationOfStateMaker(calculator="emt", width=0.03).make(copper)
    other = makers.ElasticMaker(calculator="emt").make(copper)
    curve, elasticity = (output(flow, tmp_path, monkeypatch) for flow in (one, other))
    assert elasticity.bulk_modulus == pytest.approx(curve.bulk_modulus, rel=0.01)
    assert elasticity.stable
    assert curve.converged
    assert elasticity.converged
    assert [job.name for job in one.jobs] == ["relax", "equation of state"]


def test_hot_phonons_have_the_heat_of_dulong_and_petit(copper, tmp_path, monkeypatch):
    maker = makers.PhononMaker(calculator="emt", temperature=3000.0, length=5.0, relax_maker=None)
    found = output(maker.make(copper), tmp_path, monkeypatch)
    assert found.heat_capacity == pytest.approx(3 * 8.31446, rel=0.005)
    assert np.shape(found.force_constants)[-2:] == (3, 3)


@pytest.mark.parametrize(
    "kind", [makers.EquationOfStateMaker, makers.ElasticMaker, makers.PhononMaker]
)
def test_no_property_is_told_of_a_structure_that_still_moves(kind, copper, tmp_path, monkeypatch):
    hasty = makers.RelaxMaker(fmax=1e-6, steps=1)
    flow = kind(calculator="emt", relax_maker=hasty).make(copper)
    monkeypatch.chdir(tmp_path)
    told = run_locally(flow, log=False)
    assert told[flow.jobs[0].uuid][1].output.converged is False
    assert flow.output.uuid not in told
    with pytest.raises(BadStructure, match="Cu was still moving"):
        kind.measured.original(kind(calculator="emt"), copper, converged=False)


@pytest.mark.parametrize("kind", [makers.EquationOfStateMaker, makers.ElasticMaker])
def test_atoms_that_do_not_come_to_rest_under_strain_are_told(kind, tmp_path, monkeypatch):
    def hasty(*told, steps, **options):
        return relaxing.relax_in_place(*told, steps=min(steps, 1), **options)

    monkeypatch.setattr(elasticity, "relax_in_place", hasty)
    monkeypatch.setattr(jobs, "relax_in_place", hasty)
    moving = bulk("Cu", a=3.6, cubic=True)
    moving.rattle(0.05, seed=0)
    structure = AseAtomsAdaptor.get_structure(moving)
    maker = kind(calculator="emt", relax_maker=None)
    assert output(maker.make(structure), tmp_path, monkeypatch).converged is False


def test_a_maker_says_which_potential(tmp_path, monkeypatch, rocksalt):
    structure = AseAtomsAdaptor.get_structure(rocksalt)
    found = output(makers.StaticMaker(dtype="float32").make(structure), tmp_path, monkeypatch)
    assert found.calculator == "default"
    assert np.allclose(found.forces, 0, atol=1e-3)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jobflow.core.flow", None)
    with pytest.raises(MissingExtra, match=r"ase-crystalformer\[jobflow\]"):
        runpy.run_path(str(Path(makers.__file__).with_name("jobs.py")))
