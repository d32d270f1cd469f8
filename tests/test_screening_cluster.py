"""Work on many machines: every result arrives once, whatever dies."""

import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ase import Atoms
from ase.io.jsonio import encode
from candidates import write_candidates, write_models
from distributed.utils import get_ip
from killed_screening import SETTINGS

from ase_crystalformer.errors import BadRecipe, MissingExtra, UnknownName, UnseenElement
from ase_crystalformer.screening import cluster, screen
from ase_crystalformer.screening.cluster import make_cluster, read_cluster, workers
from ase_crystalformer.screening.settings import Settings
from ase_crystalformer.screening.store import Result
from ase_crystalformer.screening.work import WORK, Order

FOLDER = Path(__file__).parent
ORDER = Order("relax", Settings())
STRUCTURES = [(number, f"structure {number}") for number in range(40)]


@pytest.fixture(autouse=True)
def closed_network(monkeypatch):
    """Closed but for this machine itself, of whose address Dask asks by a datagram never sent."""
    connect = socket.socket.connect
    own = {"127.0.0.1", get_ip()}

    def refuse(self, address):
        if self.family == socket.AF_UNIX or self.type == socket.SOCK_DGRAM or address[0] in own:
            return connect(self, address)
        pytest.fail(f"This test calls {address}.")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def described(tmp_path):
    """A file that describes two workers as threads of this process."""
    path = tmp_path / "cluster.toml"
    path.write_text(
        'kind = "local"\njobs = 2\nat_once = 4\n[options]\nprocesses = false\n', encoding="utf-8"
    )
    return path


def done_by(described, work, monkeypatch):
    monkeypatch.setattr(cluster, "work_on", work)
    with workers(cluster=described) as reached:
        return list(reached.carry_out(ORDER, iter(STRUCTURES)))


@pytest.mark.slow  # four processes begin, each with its own torch
def test_a_worker_is_killed_and_every_result_arrives_once(tmp_path):
    models = write_models(tmp_path)
    sources = write_candidates(tmp_path / "candidates")
    out = tmp_path / "out"
    command = [sys.executable, FOLDER / "clustered_screening.py", tmp_path, out]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Restarting worker" in done.stderr  # it was killed
    found = pd.read_parquet(out / "candidates.parquet")
    alone = screen(sources, tmp_path / "alone", **models, **SETTINGS)
    expected = pd.read_parquet(alone.folder / "candidates.parquet")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-5)


def test_every_structure_is_worked_on_once(described, monkeypatch):
    def work(order, parcel):
        assert len(parcel) <= 4
        return [(number, Result(told={"text": text})) for number, text in parcel]

    found = done_by(described, work, monkeypatch)
    told = sorted((number, result.told["text"]) for number, result in found)
    assert told == STRUCTURES


def test_what_kills_its_workers_fails_alone(described, monkeypatch):
    def work(order, parcel):
        if any(number == 7 for number, _ in parcel):
            raise MemoryError("too large")
        return [(number, Result()) for number, _ in parcel]

    found = dict(done_by(described, work, monkeypatch))
    assert sorted(found) == list(range(40))
    failed = {
        number: one.told["reason"] for number, one in found.items() if one.outcome != "passed"
    }
    assert failed == {7: "MemoryError: too large"}


def test_errors_without_end_stop_the_run_and_fail_nobody(described, monkeypatch):
    def broken(order, stream):
        yield from (stop for stop in stream if 1 / 0)

    monkeypatch.setitem(WORK, "relax", broken)
    landed = []
    structures = [(number, encode(Atoms("Na"))) for number in range(40)]
    with workers(cluster=described) as reached, pytest.raises(ZeroDivisionError):
        landed.extend(reached.carry_out(ORDER, iter(structures)))
    assert landed == []


def test_an_order_that_cannot_be_carried_out_stops_the_run(described, monkeypatch):
    def work(order, parcel):
        raise UnseenElement("not here")

    with pytest.raises(UnseenElement, match="not here"):
        done_by(described, work, monkeypatch)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("kind = ", BadRecipe, "Invalid value"),
        ('kind = "slurm"', BadRecipe, "Give kind and jobs"),
        ('kind = "slurm"\njobs = 0', BadRecipe, "at least 1"),
        ('kind = "slurm"\njobs = "many"', BadRecipe, "jobs is unknown or of the wrong type"),
        ('kind = "slurm"\njobs = 2\nqueue = "long"', BadRecipe, "queue is unknown"),
        ('kind = "slurn"\njobs = 2', UnknownName, "Did you mean 'slurm'"),
    ],
)
def test_descriptions_are_checked(tmp_path, text, error, told):
    path = tmp_path / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=told):
        read_cluster(path)


@pytest.mark.parametrize(
    ("kind", "line"), [("slurm", "#SBATCH -t 01:30:00"), ("pbs", "#PBS -l walltime=01:30:00")]
)
def test_jobs_of_a_queue_ask_for_what_was_described(tmp_path, kind, line):
    path = tmp_path / "cluster.toml"
    options = 'cores = 8\nprocesses = 2\nmemory = "16GB"\nwalltime = "01:30:00"\n'
    path.write_text(f'kind = "{kind}"\njobs = 10\n[options]\n{options}', encoding="utf-8")
    with make_cluster(read_cluster(path)) as made:
        script = made.job_script()
    assert line in script
    assert "distributed.cli.dask_worker" in script or "dask worker" in script


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # half a cluster
def test_options_the_queue_does_not_know_are_refused():
    with pytest.raises(BadRecipe, match="options"):
        make_cluster({"kind": "slurm", "jobs": 1, "options": {"colour": "red"}})


def test_missing_dask_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"ase-crystalformer\[cluster\]"), workers():
        pass


def test_a_scheduler_and_a_cluster_are_one_too_many(tmp_path):
    with pytest.raises(BadRecipe, match="not both"):
        screen("a.cif", tmp_path, scheduler="tcp://here:1", cluster=tmp_path / "a.toml")
