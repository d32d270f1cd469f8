"""The featurizer keeps matminer's contract, and features belong to crystals, not to cells."""

from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from matminer.featurizers.base import BaseFeaturizer, MultipleFeaturizer
from matminer.featurizers.structure import DensityFeatures
from pymatgen.core import Structure
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ase_crystalformer.errors import BadStructure, UnknownName, UnseenElement
from ase_crystalformer.featurizer import CrystalformerFeaturizer
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.prediction import predict
from ase_crystalformer.targets import TARGETS

SMALL = {"width": 32, "heads": 4, "blocks": 2, "cutoff": 5.0, "basis": 12, "basis_radius": 5.0}
KNOWN = (8, 11, 14, 17, 22, 29, 30, 38)
LABELS = [f"small embedding {channel:03d}" for channel in range(32)]
LABELS += ["small band_gap (eV)", "small bulk_modulus (GPa)"]
BAD = Structure([[4, 0, 0], [0, 4, 0], [0, 0, 4]], ["Na", "Na"], [[0, 0, 0], [0, 0, 0]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    targets = [TARGETS["band_gap"], TARGETS["bulk_modulus"]]
    card = Card(name="small", elements=KNOWN, citations=("@article{data}",))
    return CrystalModel("crystalformer", SMALL, targets=targets, card=card)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return str(model.save(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture
def featurizer(saved):
    return CrystalformerFeaturizer(saved, device="cpu")


def as_structure(atoms):
    return Structure(atoms.cell.array, list(atoms.symbols), atoms.get_scaled_positions())


@pytest.fixture
def structures(rocksalt, diamond, fcc, wurtzite):
    return [as_structure(atoms) for atoms in (rocksalt, diamond, fcc, wurtzite)]


@pytest.fixture
def table(structures):
    return pd.DataFrame({"structure": structures}, index=[7, 3, 5, 1])


# --------------------------------------------------------------------------------- features


def test_labels_name_model_channel_and_unit(featurizer):
    assert featurizer.feature_labels() == LABELS


def test_a_row_has_a_number_for_every_label(featurizer, wurtzite):
    row = featurizer.featurize(wurtzite)
    assert len(row) == len(LABELS)
    assert np.isfinite(row).all()


def test_libraries_agree(featurizer, wurtzite):
    np.testing.assert_allclose(
        featurizer.featurize(as_structure(wurtzite)), featurizer.featurize(wurtzite), rtol=1e-4
    )


def test_any_cell_of_a_crystal_gives_the_same(featurizer, wurtzite):
    supercell = make_supercell(wurtzite, [[1, 1, 0], [0, 1, 0], [0, 1, 2]])
    supercell.rotate(40, (1, 2, 3), rotate_cell=True)
    expected = featurizer.featurize(wurtzite)
    np.testing.assert_allclose(featurizer.featurize(supercell), expected, rtol=1e-3, atol=1e-5)


def test_different_crystals_differ(featurizer, structures):
    rows = np.array(featurizer.featurize_many(structures, pbar=False))
    for first in range(len(rows)):
        for second in range(first):
            assert np.abs(rows[first, :32] - rows[second, :32]).max() > 1e-2


def test_predicted_properties_are_those_of_predict(featurizer, structures, saved):
    rows = np.array(featurizer.featurize_many(structures, pbar=False))
    expected = predict(structures, model=saved, device="cpu", progress=False)
    np.testing.assert_allclose(rows[:, 32:], expected.drop(columns="error"), rtol=1e-4)


def test_one_by_one_is_the_same_as_together(featurizer, structures):
    together = featurizer.featurize_many(structures, pbar=False)
    one_by_one = [featurizer.featurize(structure) for structure in structures]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-3, atol=1e-6)


def test_a_potential_gives_embeddings(wurtzite):
    potential = CrystalModel("crystalformer", SMALL, energy_scale="mp", card=Card(name="pot"))
    featurizer = CrystalformerFeaturizer(potential, device="cpu")
    assert featurizer.feature_labels() == [f"pot embedding {channel:03d}" for channel in range(32)]
    assert len(featurizer.featurize(wurtzite)) == 32


# ---------------------------------------------------------------------------- many structures


@pytest.mark.parametrize("container", [list, tuple, pd.Series])
def test_structures_come_in_any_container(container, featurizer, structures):
    rows = featurizer.featurize_many(container(structures), pbar=False)
    np.testing.assert_allclose(rows, featurizer.featurize_many(structures, pbar=False))


@pytest.mark.parametrize("container", [list, pd.DataFrame])
def test_structures_come_in_rows_of_one(container, featurizer, structures):
    entries = container([(structure,) for structure in structures])
    rows = featurizer.featurize_many(entries, pbar=False)
    np.testing.assert_allclose(rows, featurizer.featurize_many(structures, pbar=False))


def test_no_structures_give_no_rows(featurizer):
    assert featurizer.featurize_many([]) == []


def test_two_columns_are_refused(featurizer, rocksalt):
    with pytest.raises(ValueError, match="2 entries"):
        featurizer.featurize_many([(rocksalt, rocksalt)], pbar=False)


def test_a_bar_is_shown_only_when_asked(featurizer, structures, capsys):
    featurizer.featurize_many(structures, pbar=False)
    assert capsys.readouterr() == ("", "")
    featurizer.featurize_many(structures, pbar={"desc": "rocks"})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rocks" in shown.err


def test_a_table_keeps_its_index_and_columns(featurizer, table, structures):
    done = featurizer.featurize_dataframe(table, "structure", pbar=False)
    assert done.index.tolist() == [7, 3, 5, 1]
    assert done.columns.tolist() == ["structure", *LABELS]
    np.testing.assert_allclose(
        done[LABELS], featurizer.featurize_many(structures, pbar=False), rtol=1e-6
    )


# -------------------------------------------------------------------------------- failures


@pytest.fixture
def flawed(table):
    rows = [*table["structure"], BAD, None, as_structure(Atoms("W", cell=[3] * 3, pbc=True))]
    return pd.DataFrame({"structure": rows})


def test_a_bad_row_is_nan_and_says_why(featurizer, flawed):
    done = featurizer.featurize_dataframe(
        flawed, "structure", ignore_errors=True, return_errors=True, pbar=False
    )
    errors = done["CrystalformerFeaturizer Exceptions"]
    assert done[LABELS].isna().all(axis=1).tolist() == [False] * 4 + [True] * 3
    assert errors.isna().tolist() == [True] * 4 + [False] * 3
    assert errors[6].startswith("UnseenElement")
    assert "W" in errors[6]


def test_a_bad_row_is_raised_unless_ignored(featurizer, flawed):
    with pytest.raises(BadStructure, match="ignore_errors=True"):
        featurizer.featurize_dataframe(flawed, "structure", pbar=False)


def test_errors_are_returned_only_where_ignored(featurizer, structures):
    with pytest.raises(ValueError, match="ignore_errors"):
        featurizer.featurize_many(structures, return_errors=True)


def test_a_structure_is_judged_before_it_is_computed(featurizer, structures):
    assert featurizer.precheck(structures[0])
    assert not featurizer.precheck(None)
    tungsten = Atoms("W", cell=[3] * 3, pbc=True)
    assert not featurizer.precheck(tungsten)
    with pytest.raises(UnseenElement, match="W"):
        featurizer.featurize(tungsten)


def test_a_model_that_is_not_there_is_named_when_needed():
    featurizer = CrystalformerFeaturizer("nowhere")
    with pytest.raises(UnknownName, match="nowhere"):
        featurizer.feature_labels()


# ------------------------------------------------------------------------------ good company


@pytest.mark.parametrize("iterate_over_entries", [True, False])
def test_it_works_beside_other_featurizers(iterate_over_entries, featurizer, flawed):
    both = MultipleFeaturizer([DensityFeatures(["density"]), featurizer], iterate_over_entries)
    both.set_n_jobs(1)
    sound = flawed.drop(index=5)  # matminer's own cannot take None
    done = both.featurize_dataframe(sound, "structure", ignore_errors=True, pbar=False)
    assert done.columns.tolist() == ["structure", "density", *LABELS]
    assert done[LABELS].isna().all(axis=1).tolist() == [False] * 4 + [True] * 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # matminer forks, and so do we
def test_it_works_in_processes_matminer_forks(featurizer, table, structures):
    expected = featurizer.featurize_many(structures, pbar=False)
    both = MultipleFeaturizer([featurizer])
    both.set_n_jobs(2)
    done = both.featurize_dataframe(table, "structure", pbar=False)
    np.testing.assert_allclose(done[LABELS], expected, rtol=1e-3, atol=1e-6)


def threads_when_ready(featurizer):
    featurizer.feature_labels()
    return torch.get_num_threads()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_does_not_wait_for_its_parents_threads(featurizer, two_threads):
    assert threads_when_ready(featurizer) == 2
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(threads_when_ready, (featurizer,)) == 1


def test_jobs_are_accepted_and_stay_one(featurizer):
    assert isinstance(featurizer, BaseFeaturizer)
    featurizer.set_n_jobs(8)
    assert featurizer.n_jobs == 1


def test_an_interrupt_is_no_bad_structure(featurizer, structures, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_crystalformer.featurizer.in_batches", interrupt)
    both = MultipleFeaturizer([featurizer])
    both.set_n_jobs(1)
    with pytest.raises(KeyboardInterrupt):
        both.featurizers[0].featurize_wrapper((structures[0],), ignore_errors=True)


def test_it_is_a_step_of_a_pipeline(featurizer, structures):
    scaled = make_pipeline(featurizer, StandardScaler()).fit_transform(structures)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)


def test_a_clone_has_the_same_parameters(featurizer, saved, wurtzite):
    featurizer.featurize(wurtzite)
    copy = clone(featurizer)
    assert copy.get_params() == {"model": saved, "device": "cpu"}
    np.testing.assert_allclose(copy.featurize(wurtzite), featurizer.featurize(wurtzite))


def test_another_model_is_loaded_when_it_is_set(featurizer, saved):
    featurizer.feature_labels()
    featurizer.set_params(model="nowhere")
    with pytest.raises(UnknownName):
        featurizer.feature_labels()
    featurizer.set_params(model=saved)
    assert featurizer.feature_labels() == LABELS


def test_a_pickle_leaves_the_weights_behind(featurizer, wurtzite):
    expected = featurizer.featurize(wurtzite)
    packed = ForkingPickler.dumps(featurizer)
    assert len(packed) < 1000
    np.testing.assert_allclose(ForkingPickler.loads(packed).featurize(wurtzite), expected)


def test_it_says_whom_to_cite(featurizer):
    citations = featurizer.citations()
    assert citations[-1] == "@article{data}"
    assert all(citation.startswith("@") for citation in citations)
    assert featurizer.implementors()
