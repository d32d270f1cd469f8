"""The same work on many machines: Dask workers, on a scheduler there is or a cluster begun here."""

import tomllib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadRecipe, CrystalformerError, MissingExtra, unknown_name
from ase_crystalformer.screening.store import Result
from ase_crystalformer.screening.work import Breakdowns, Numbered, Order, attempt

if TYPE_CHECKING:
    from distributed import Client

AT_ONCE = 16
"""Structures that a worker takes at a time; what is lost where it dies."""

AHEAD = 2
"""Such parcels in flight per thread of the workers, so that none of them waits."""

KINDS = {
    "local": ("distributed", "LocalCluster"),
    "slurm": ("dask_jobqueue", "SLURMCluster"),
    "pbs": ("dask_jobqueue", "PBSCluster"),
    "sge": ("dask_jobqueue", "SGECluster"),
    "lsf": ("dask_jobqueue", "LSFCluster"),
}


class Workers:
    """Work given to the workers of a Dask scheduler, a few structures at a time.

    Dask gives the parcels of a worker that dies to others. A parcel on which several workers died,
    or in which something breaks that should not, is cut into its structures, and the one that
    kills fails by name; many in a row end the work, and none of them fails. Results are handed on
    here, once each, whatever was computed twice.
    """

    def __init__(self, client: "Client", at_once: int = AT_ONCE) -> None:
        self.client = client
        self.at_once = at_once

    def carry_out(
        self, order: Order, structures: Iterable[Numbered]
    ) -> Iterator[tuple[int, Result]]:
        """Work through a stream of structures; yield number and result as they are ready.

        Raises:
            CrystalformerError: The order itself cannot be carried out.
        """
        yield from _Flight(self.client, order, _parcels(structures, self.at_once)).land()


class _Flight:
    """Parcels on their way, never more than keep the workers busy."""

    def __init__(self, client: "Client", order: Order, parcels: Iterator[list[Numbered]]) -> None:
        from distributed import as_completed

        self.client, self.order, self.parcels = client, order, parcels
        self.flying: dict[Any, list[Numbered]] = {}
        self.queue = as_completed()
        self.broken = Breakdowns()

    def land(self) -> Iterator[tuple[int, Result]]:
        self._fill()
        for future in self.queue:
            yield from self._unpack(self.flying.pop(future), future)
            self._fill()
        yield from self.broken.forgiven()

    def _fill(self) -> None:
        room = AHEAD * max(1, sum(self.client.nthreads().values())) - len(self.flying)
        for parcel in islice(self.parcels, max(0, room)):
            self._send(parcel)

    def _send(self, parcel: list[Numbered]) -> None:
        future = self.client.submit(work_on, tuple(self.order), parcel, pure=False)
        self.flying[future] = parcel
        self.queue.add(future)

    def _unpack(self, parcel: list[Numbered], future: Any) -> Iterator[tuple[int, Result]]:
        error = future.exception()
        if error is None:
            yield from (*self.broken.forgiven(), *future.result())
        elif isinstance(error, CrystalformerError):
            raise error
        elif len(parcel) > 1:
            for item in parcel:
                self._send([item])
        else:
            self.broken.note(parcel[0][0], error)


def work_on(order: tuple[Any, ...], parcel: list[Numbered]) -> list[tuple[int, Result]]:
    """What a worker does with a parcel; whoever sent it judges what breaks."""
    return attempt(Order(*order), parcel)


def _parcels(structures: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    stream = iter(structures)
    while parcel := list(islice(stream, size)):
        yield parcel


@contextmanager
def workers(*, scheduler: str | None = None, cluster: Path | None = None) -> Iterator[Workers]:
    """Reach workers, and let them go in the end.

    Args:
        scheduler: Address of a Dask scheduler that runs, e.g. ``tcp://node:8786``.
        cluster: A TOML file: ``kind`` (local, slurm, pbs, sge or lsf), ``jobs``, optionally
            ``at_once``, and a table ``[options]`` for the class of dask-jobqueue, e.g. ``cores``,
            ``memory``, ``walltime``, ``queue``, ``account``.

    Raises:
        BadRecipe: The file is wrong, or no scheduler answers.
        MissingExtra: Dask is not installed.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise _missing(error) from error
    with ExitStack() as stack:
        at_once = AT_ONCE
        target: Any = scheduler
        if cluster is not None:
            told = read_cluster(cluster)
            at_once = told.pop("at_once", AT_ONCE)
            target = stack.enter_context(start_cluster(told))
        try:
            client = stack.enter_context(Client(target))
        except (OSError, ValueError) as error:
            raise BadRecipe(
                f"No Dask scheduler answers at {scheduler!r} ({error}). Start one with `dask "
                "scheduler`, and give the address it prints."
            ) from error
        yield Workers(client, at_once)


def read_cluster(path: Path) -> dict[str, Any]:
    """Read how to begin a cluster.

    Raises:
        BadRecipe: It is no TOML, or an entry is missing, unknown or of the wrong type.
        UnknownName: There is no such kind of cluster.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{path}: {error}.") from error
    types = {"kind": str, "jobs": int, "at_once": int, "options": dict}
    wrong = [key for key, value in told.items() if not isinstance(value, types.get(key, ()))]
    if wrong or not {"kind", "jobs"} <= told.keys():
        raise BadRecipe(
            f"{path} holds {', '.join(told) or 'nothing'}"
            + (f"; {', '.join(wrong)} is unknown or of the wrong type" if wrong else "")
            + ". Give kind and jobs, e.g. kind = 'slurm', jobs = 10; at_once (a number) and a "
            "table [options] may follow."
        )
    if min(told["jobs"], told.get("at_once", 1)) < 1:
        raise BadRecipe(f"{path}: jobs and at_once must be at least 1.")
    if told["kind"] not in KINDS:
        raise unknown_name("kind of cluster", told["kind"], KINDS)
    return told


@contextmanager
def start_cluster(told: dict[str, Any]) -> Iterator[Any]:
    """Begin a cluster as ``read_cluster`` read it, and end it."""
    with make_cluster(told) as cluster:
        if told["kind"] != "local":
            cluster.scale(jobs=told["jobs"])
        yield cluster


def make_cluster(told: dict[str, Any]) -> Any:
    """Make the Dask cluster of a description, no jobs submitted yet.

    Raises:
        MissingExtra: Dask or dask-jobqueue is not installed.
        BadRecipe: The class takes no such options.
    """
    from importlib import import_module

    module, name = KINDS[told["kind"]]
    options = dict(told.get("options", {}))
    if told["kind"] == "local":
        options = {"threads_per_worker": 1, "dashboard_address": None, **options}
        options["n_workers"] = told["jobs"]
    try:
        return getattr(import_module(module), name)(**options)
    except ImportError as error:
        raise _missing(error) from error
    except (TypeError, ValueError) as error:
        raise BadRecipe(f"{name}: {error}. Correct the table [options].") from error


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"Many machines need {error.name}: pip install 'ase-crystalformer[cluster]'."
    )
