"""What shipped models learn from: nothing reserved, nothing held out, one energy scale a group."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data.duplicates import Duplicates
from ase_crystalformer.data.mixtures import potential, properties
from ase_crystalformer.data.potential import at_rest
from ase_crystalformer.data.properties import (
    MEGNET_MINUS_MATBENCH,
    MODULI,
    PROPERTIES,
    SANE_MODULI,
    on_megnet_scale,
    reserved_ids,
)
from ase_crystalformer.data.readers import load

SAMPLES = Path(__file__).parent / "samples"

#: Sources whose energies, if they have any, stand on Materials Project's scale.
ON_SCALE = {
    *("mp_labelled", "mp_near_rest", "mp_perturbed_sevennet"),
    *("close_pairs", "compressed", "elements", "isolated_atoms"),
}

#: A seed that sets one crystal of the equations of state aside.
HOLDS_OUT_A_CRYSTAL = 2


def frames_of(path):
    """Text of each frame of a file."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    while lines:
        size = int(lines[0]) + 2
        yield "".join(lines[:size])
        lines = lines[size:]


@pytest.fixture(scope="module")
def mixture():
    return list(properties(SAMPLES))


@pytest.fixture(scope="module")
def frames():
    return list(potential(SAMPLES))


@pytest.fixture(scope="module")
def official():
    return {row.id: row for row in load("mp_labelled", SAMPLES)}


def test_each_crystal_is_there_once(mixture):
    assert len({row.id for row in mixture}) == len(mixture)
    assert {row.source for row in mixture} == {
        "mp_labelled",
        "matbench_mp_joined",
        "matbench_log_kgvrh",
    }


def test_all_rows_are_on_one_scale_and_in_a_part(mixture):
    assert {row.group for row in mixture} == {"mp"}
    assert {row.split for row in mixture} == {"train", "val"}
    assert {name for row in mixture for name in row.labels} == set(PROPERTIES)


def test_validation_is_the_official_split(mixture, official):
    held_out = {row.id for row in mixture if row.split == "val"}
    assert held_out == {row.id for row in official.values() if row.split == "val"}


def test_nothing_learned_from_looks_like_a_validation_crystal(mixture, official):
    seen = Duplicates(row for row in mixture if row.split == "val")
    foreign = [row for row in mixture if row.split == "train" and official.get(row.id) is None]
    assert foreign
    assert not [row.id for row in foreign if row in seen]
    assert "mp-1071504" not in {row.id for row in mixture}


def test_no_modulus_of_a_reserved_crystal(mixture):
    reserved = reserved_ids(SAMPLES)
    measured = {row.id for row in load("matbench_log_kgvrh", SAMPLES)}
    assert len(reserved & measured) > 5, "the samples must offer what is forbidden"
    with_moduli = {row.id for row in mixture if row.labels.keys() & set(MODULI)}
    assert with_moduli
    assert not with_moduli & reserved


def test_a_twin_of_a_reserved_crystal_keeps_no_modulus_either(tmp_path, mixture):
    """The same crystal, reserved under another name."""
    chosen = next(row for row in mixture if row.labels.keys() & set(MODULI))
    for path in SAMPLES.glob("m*.extxyz.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    known = list(frames_of(SAMPLES / "mp_labelled.extxyz.gz"))
    name = f"material_id={chosen.id} "
    twin = next(text for text in known if name in text).replace(name, "material_id=disguised ")
    (tmp_path / "mp_labelled.extxyz.gz").write_bytes(
        gzip.compress("".join([*known, twin]).encode())
    )
    (tmp_path / "reserved_ids.txt").write_text("disguised\n")
    after = {row.id: row.labels for row in properties(tmp_path)}
    assert after[chosen.id]
    assert not after[chosen.id].keys() & set(MODULI)


def test_moduli_of_matbench_join_the_crystals_of_mp_labelled(mixture, official):
    joined = [
        row
        for row in mixture
        if row.source == "mp_labelled"
        and "bulk_modulus" in row.labels
        and "bulk_modulus" not in official[row.id].labels
    ]
    assert joined
    for row in joined:
        assert all(SANE_MODULI[0] <= row.labels[name] <= SANE_MODULI[1] for name in MODULI)


def test_doubtful_joins_are_left_out(mixture):
    doubtful = {
        row.id
        for name in ("matbench_mp_joined", "matbench_log_kgvrh")
        for row in load(name, SAMPLES)
        if row.info["join"] not in {"verified", "unique"}
    }
    foreign = {row.id for row in mixture if row.source != "mp_labelled"}
    assert len(doubtful) > 5
    assert not doubtful & foreign


def test_matbench_energies_move_by_their_elements():
    shifts = []
    for row in load("matbench_mp_joined", SAMPLES):
        if "formation_energy_per_atom" not in row.labels:
            continue
        moved = on_megnet_scale(row)
        per_element = [MEGNET_MINUS_MATBENCH.get(z, 0.0) for z in row.species.tolist()]
        shift = moved.labels["formation_energy_per_atom"] - row.labels["formation_energy_per_atom"]
        assert shift == pytest.approx(np.mean(per_element), abs=1e-12)
        assert (moved.group, row.group) == ("mp", "matbench")
        shifts.append(shift)
    assert min(shifts) < -1e-3
    assert max(shifts) == 0


def test_properties_come_in_the_same_order_every_time(mixture):
    assert [row.id for row in properties(SAMPLES)] == [row.id for row in mixture]


def test_every_energy_scale_is_a_group(frames):
    groups = {row.source: row.group for row in frames}
    on_scale = {name for name, group in groups.items() if group == "mp"}
    assert on_scale <= ON_SCALE
    assert len(on_scale) >= 5
    others = [group for source, group in groups.items() if source not in on_scale]
    assert len(set(others)) == len(others) == 9


def test_a_second_teacher_is_heard_only_where_the_better_one_is_silent(frames):
    first, second = (
        {(row.info["material_id"], row.cell.tobytes()) for row in frames if row.source == name}
        for name in ("mp_perturbed_sevennet", "mp_perturbed_chgnet")
    )
    every = list(load("mp_perturbed_chgnet", SAMPLES))
    assert 0 < len(second) < len(every)
    assert not first & second


def test_frames_follow_their_parent_crystal(frames, official):
    children = [row for row in frames if row.source == "mp_perturbed_sevennet"]
    followed = [row for row in children if row.info["material_id"] in official]
    assert Counter(row.split for row in followed) == {"val": 6, "train": 6}
    for row in followed:
        assert row.split == official[row.info["material_id"]].split


def test_all_volumes_of_a_crystal_are_in_one_part():
    frames = list(potential(SAMPLES, seed=HOLDS_OUT_A_CRYSTAL))
    volumes = [row for row in frames if row.source == "eos_vasp_pbe"]
    assert len({(row.info["config_id"], row.split) for row in volumes}) == 3
    assert {row.split for row in volumes} == {"train", "val"}


def test_only_few_old_training_cells_are_at_rest(official):
    rows = [row for row in official.values() if "energy_per_atom" in row.labels]
    rest = Counter()
    for row in rows:
        labels = at_rest(row).labels
        assert labels["energy"] == pytest.approx(row.labels["energy_per_atom"] * row.atoms)
        rest[row.split, row.info["structure_source"], "forces" in labels] += 1
        if "forces" in labels:
            assert not labels["forces"].any()
            assert not labels["stress"].any()
    assert {key[:2] for key in rest if key[2]} == {("train", "mp_2018")}
    assert 0 < rest["train", "mp_2018", True] < 0.3 * rest["train", "mp_2018", False]
    assert len(rest) > 2


def test_collisions_are_left_out(frames):
    strongest = max(
        np.abs(row.labels["forces"]).max()
        for row in frames
        if "forces" in row.labels and row.source != "close_pairs"
    )
    assert strongest <= 50
    everything = list(potential(SAMPLES, largest_force=1e3))
    assert len(everything) == len(frames) + 4


def test_frames_come_in_the_same_order_and_parts_every_time(frames):
    assert [(row.id, row.split) for row in potential(SAMPLES)] == [
        (row.id, row.split) for row in frames
    ]


def test_the_seed_chooses_what_is_held_out(frames):
    other = [(row.id, row.split) for row in potential(SAMPLES, seed=1)]
    assert other != [(row.id, row.split) for row in frames]


def test_one_frame_in_twenty_of_a_run_is_held_out(frames):
    strains = Counter(row.split for row in frames if row.id.startswith("Li/Elastic"))
    assert strains == {"train": 19, "val": 1}
