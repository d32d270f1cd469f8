"""What a model sees in a crystal, as features next to matminer's own."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matminer.featurizers.base import BaseFeaturizer
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from ase_crystalformer.batching import in_batches
from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import mean_over_atoms
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import shared_model
from ase_crystalformer.structures import as_crystal

Row = list[float | str]

NAMED = 5
"""Rows whose errors a warning tells; of more, it tells how many there are."""


class CrystalformerFeaturizer(BaseFeaturizer):
    """Describe a crystal by what a trained crystal transformer makes of it.

    All rows of a table go through the model in batches, on one device and in one process: there is
    nothing to gain from ``set_n_jobs``. In a ``MultipleFeaturizer`` batches need
    ``iterate_over_entries=False``; otherwise each row is computed on its own.

    In scikit-learn it is a transformer of a list of structures, or of a table's one column of them.

    Features:
        "<model> embedding 000" and so on: features of the last layer, averaged over atoms. They do
            not depend on which cell describes the crystal, how it is turned, or the order of atoms.
        "<model> <property> (<unit>)": every property the model predicts.

    Args:
        model: A name (see ``list_models``), the path of a model, or a model. A potential has
            embeddings alone.
        device: ``"auto"`` takes a CUDA device if there is one.

    Example:
        >>> from ase_crystalformer import CrystalformerFeaturizer
        >>> featurizer = CrystalformerFeaturizer()
        >>> table = featurizer.featurize_dataframe(table, "structure")  # doctest: +SKIP
    """

    def __init__(
        self, model: str | Path | CrystalModel = "default-properties", *, device: str = "auto"
    ) -> None:
        self.model = model
        self.device = device

    def feature_labels(self) -> list[str]:
        """Name the features; the model is loaded for it, and not run."""
        model = self._ready()
        name = model.card.name
        embedding = [f"{name} embedding {channel:03d}" for channel in range(model.encoder.width)]
        return embedding + [f"{name} {target.name} ({target.unit})" for target in model.targets]

    def featurize(self, structure: Any) -> Row:
        """Compute the features of one structure of ASE, pymatgen or JARVIS.

        Raises:
            BadStructure: It cannot be computed.
        """
        return self.featurize_many([structure], pbar=False)[0]

    def featurize_many(
        self,
        entries: Any,
        ignore_errors: bool = False,
        return_errors: bool = False,
        pbar: bool | dict[str, Any] = True,
    ) -> list[Row]:
        """Compute the features of many structures, in batches.

        Args:
            entries: Structures, or rows of one structure each: a list, an array, a series, a table.
            ignore_errors: Give NaN for structures that cannot be computed, and go on.
            return_errors: Append what was wrong to every row, NaN where nothing was.
            pbar: Show a bar; a dictionary is passed to tqdm.

        Raises:
            BadStructure: A structure cannot be computed, and errors are not ignored.
            ValueError: Errors are to be returned, but not to be ignored.
        """
        if return_errors and not ignore_errors:
            raise ValueError(
                "return_errors needs ignore_errors=True: else the first error is raised."
            )
        structures = [_structure_of(entry) for entry in getattr(entries, "values", entries)]
        rows: list[Row] = [[] for _ in structures]
        look = {"desc": type(self).__name__, **(pbar if isinstance(pbar, dict) else {})}
        with tqdm(total=len(rows), disable=not pbar, **look) as bar:
            for number, features in self._each(structures):
                rows[number] = self._row(features, ignore_errors, return_errors)
                bar.update()
        return rows

    def featurize_wrapper(
        self, x: Any, return_errors: bool = False, ignore_errors: bool = False
    ) -> Row:
        """Compute one row for ``MultipleFeaturizer``; an interrupt is no bad structure."""
        return self.featurize_many([x], ignore_errors, return_errors, pbar=False)[0]

    def transform(self, X: Any) -> Float[ndarray, "structures features"]:
        """Compute features for scikit-learn: NaN, and a warning, where there are none.

        Args:
            X: Structures, as for ``featurize_many``.
        """
        rows = self.featurize_many(X, ignore_errors=True, return_errors=True, pbar=False)
        _warn_of({number: row[-1] for number, row in enumerate(rows) if isinstance(row[-1], str)})
        shape = len(rows), len(self.feature_labels())
        return np.array([row[:-1] for row in rows], dtype=np.float64).reshape(shape)

    def get_feature_names_out(self, input_features: Any = None) -> ndarray:
        """Name the features as scikit-learn asks; which column structures are in is no matter."""
        return np.array(self.feature_labels(), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True  # else a pipeline that ends here waits for it

    def precheck(self, structure: Any) -> bool:
        """Say whether the structure can be read and the model knows its elements."""
        try:
            self._ready().check_elements(torch.from_numpy(as_crystal(structure).species))
        except BadStructure:
            return False
        return True

    @property
    def n_jobs(self) -> int:
        """One: all batches run in this process. ``set_n_jobs`` is accepted and changes nothing."""
        return 1

    def citations(self) -> list[str]:
        """BibTeX of the method and of the data the model was trained on."""
        model = self._ready()
        return list(dict.fromkeys([model.encoder.citation, *model.card.citations]))

    def implementors(self) -> list[str]:
        """Name who wrote this."""
        return ["The ase_crystalformer developers"]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded model behind; a worker process loads its own."""
        state = dict(super().__getstate__())
        state.pop("_loaded", None)
        return state

    def _ready(self) -> CrystalModel:
        """Return the model, loaded when it is first needed or when a parameter was changed."""
        asked = (self.model, self.device)
        if getattr(self, "_loaded", (None, None))[0] != asked:
            _spare_threads_of_workers()
            self._loaded = (asked, shared_model(self.model, self.device))
        return self._loaded[1]

    def _each(
        self, structures: Sequence[Any]
    ) -> Iterator[tuple[int, list[float] | CrystalformerError]]:
        if not structures:
            return iter(())
        model = self._ready()

        def compute(graph: CrystalGraph) -> list[list[float] | CrystalformerError]:
            with torch.no_grad():
                rows = _features(model, graph.to(model.device, model.dtype))
            return [_finite(row) for row in rows.double().tolist()]

        return in_batches(structures, model.draw, compute, model.device)

    def _row(
        self, features: list[float] | CrystalformerError, ignore_errors: bool, return_errors: bool
    ) -> Row:
        """Return a row as matminer wants it, or raise."""
        if not isinstance(features, CrystalformerError):
            return [*features, float("nan")] if return_errors else [*features]
        if not ignore_errors:
            raise type(features)(f"{features} Rows like this are NaN with ignore_errors=True.")
        missing: Row = [float("nan")] * len(self.feature_labels())
        return [*missing, f"{type(features).__name__}: {features}"] if return_errors else missing


def _spare_threads_of_workers() -> None:
    """Compute on one thread in a process that another has forked, as matminer's do.

    OpenMP waits for ever in a child for the threads its parent had; and workers share the cores.
    """
    if parent_process() is not None:
        torch.set_num_threads(1)


def _warn_of(errors: Mapping[int, str]) -> None:
    """Warn once of all rows that are NaN: which they are, and why."""
    if errors:
        told = [f"row {number} ({error})" for number, error in [*errors.items()][:NAMED]]
        told += [f"and {len(errors) - NAMED} more"] if len(errors) > NAMED else []
        warnings.warn(
            f"Features are NaN where a structure cannot be computed: {', '.join(told)}. Leave such "
            "rows out, or let a step behind take NaN.",
            stacklevel=4,  # scikit-learn wraps ``transform``
        )


def _structure_of(entry: Any) -> Any:
    """Unwrap a structure from a row of one column."""
    if not isinstance(entry, (tuple, list)) and not hasattr(entry, "dtype"):
        return entry
    if len(entry) != 1:
        raise ValueError(f"A row holds {len(entry)} entries; this featurizer takes one structure.")
    return entry[0]


def _features(model: CrystalModel, graph: CrystalGraph) -> Float[Tensor, "crystals features"]:
    """Embedding and properties of every crystal, from one pass through the encoder."""
    atoms = model.encoder(graph)
    columns = [mean_over_atoms(atoms.invariant, graph)]
    if model.targets:
        raw = model.head(atoms, graph)
        columns += [target.decode(raw[target.name])[:, None] for target in model.targets]
    return torch.cat(columns, dim=1)


def _finite(row: list[float]) -> list[float] | CrystalformerError:
    if all(value - value == 0 for value in row):
        return row
    return BadStructure(
        "The model gives features that are not finite. The structure is far from anything it "
        "knows; check distances between atoms and the cell."
    )
