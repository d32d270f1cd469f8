"""What every test may count on: no network, fixed seeds, one thread, a few crystals."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100, molecule
from hypothesis import HealthCheck, settings

# A slow or busy machine is no failure, and a failure must come back on the next run.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Leave the other cores to the other tests."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def closed_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that calls out; sockets between processes of this machine stay open."""
    if request.node.get_closest_marker("online"):
        return
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        pytest.fail(f"This test calls {address}. Mark it online, or keep it at home.")

    def refuse_name(host: object, *args: object, **kwargs: object) -> None:
        pytest.fail(f"This test looks for {host}. Mark it online, or keep it at home.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_name)


@pytest.fixture(autouse=True)
def seed() -> Iterator[int]:
    """Start every test from the same random state, and give it back."""
    number = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        random.seed(number)
        yield number


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers for NumPy."""
    return np.random.default_rng(seed)


@pytest.fixture
def dtype() -> torch.dtype:
    """What physics is tested in."""
    return torch.float64


@pytest.fixture
def rocksalt() -> Atoms:
    """NaCl, primitive: two atoms, each at a centre of inversion."""
    return bulk("NaCl", "rocksalt", a=5.64)


@pytest.fixture
def diamond() -> Atoms:
    """Silicon, primitive: a skewed cell, forces that vanish by symmetry."""
    return bulk("Si", "diamond", a=5.43)


@pytest.fixture
def fcc() -> Atoms:
    """Copper, primitive: one atom, all of its neighbours its own images."""
    return bulk("Cu", "fcc", a=3.61)


@pytest.fixture
def wurtzite(seed: int) -> Atoms:
    """ZnO with every atom moved and the cell sheared: no symmetry left."""
    crystal = bulk("ZnO", "wurtzite", a=3.25, c=5.21)
    crystal.rattle(0.1, seed=seed)
    strain = np.array([[0.01, 0.02, -0.01], [0.0, -0.02, 0.03], [0.0, 0.0, 0.01]])
    crystal.set_cell(crystal.cell @ (np.eye(3) + strain), scale_atoms=True)
    return crystal


@pytest.fixture
def perovskite() -> Atoms:
    """SrTiO3, cubic: three elements."""
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=sites, cell=[3.905] * 3, pbc=True)


@pytest.fixture
def left_handed(perovskite: Atoms, seed: int) -> Atoms:
    """The perovskite, its atoms moved, described by a cell of negative determinant."""
    perovskite.rattle(0.1, seed=seed)
    perovskite.set_cell(perovskite.cell[[1, 0, 2]])
    return perovskite


@pytest.fixture
def slab() -> Atoms:
    """Aluminium, three layers: periodic along two directions, and no third cell vector."""
    layers = fcc100("Al", (2, 1, 3), a=4.05, periodic=False)
    layers.set_cell([*layers.cell[:2], np.zeros(3)])
    layers.pbc = (True, True, False)
    return layers


@pytest.fixture
def water() -> Atoms:
    """A molecule: periodic nowhere, no cell."""
    return molecule("H2O")


@pytest.fixture
def crystals(
    rocksalt: Atoms, diamond: Atoms, wurtzite: Atoms, perovskite: Atoms, slab: Atoms, water: Atoms
) -> list[Atoms]:
    """A batch that mixes sizes, elements and periodicities."""
    return [rocksalt, diamond, wurtzite, perovskite, slab, water]


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two small models with random weights, named as the bundled ones."""
    from command import save_small_models  # late: the package is not to be imported unchecked

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        save_small_models(folder)
    return folder


@pytest.fixture
def folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_weights: Path,
    rocksalt: Atoms,
    diamond: Atoms,
    fcc: Atoms,
    wurtzite: Atoms,
) -> Path:
    """Run the command here: four crystals, two files that cannot be computed."""
    from command import write_structures

    monkeypatch.setattr("ase_crystalformer.pretrained.WEIGHTS", small_weights)
    monkeypatch.chdir(tmp_path)
    write_structures(rocksalt, diamond, fcc, wurtzite)
    return tmp_path


@pytest.fixture(scope="module")
def properties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed set of small crystals with properties."""
    from small_runs import TARGETS, crystals_with_properties, packed_set

    folder = tmp_path_factory.mktemp("packed") / "properties"
    packed_set(crystals_with_properties(), folder, *TARGETS)
    return folder


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed set of crystals with energies and forces, on two scales."""
    from small_runs import crystals_with_forces, packed_set

    folder = tmp_path_factory.mktemp("packed") / "potential"
    packed_set(crystals_with_forces(), folder, "energy")
    return folder
