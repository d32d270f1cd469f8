"""Any potential as an ASE calculator: a model, one of ASE's, or a factory named by its module."""

import inspect
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ase.calculators.calculator import get_calculator_class, names

from ase_crystalformer.errors import MissingExtra, UnknownName
from ase_crystalformer.pretrained import Precision

#: ``package.module:factory``
FACTORY = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A potential that is measured.

    Attributes:
        calculator: Of ASE.
        identity: What says which it is; results of two are never mixed.
    """

    calculator: Any
    identity: dict[str, str]


def load_calculator(
    name: str = "default", *, device: str = "auto", dtype: Precision = "float32"
) -> Any:
    """Return a potential as an ASE calculator.

    Args:
        name: A model of this package by name or path; a calculator of ASE's that needs no settings
            by its name, such as ``emt``; or ``package.module:factory`` for whatever calculator that
            callable returns.
        device: For models of this package.
        dtype: For models of this package; ``"float64"`` where forces are differentiated
            numerically, as for elastic constants and phonons.

    Raises:
        UnknownName: There is no such model, module or factory, or it makes no calculator.
        MissingExtra: The package of a calculator of ASE's is not installed.
        NoForces: The model is no potential.

    Example:
        >>> from ase_crystalformer import load_calculator
        >>> calculator = load_calculator("emt")
    """
    return candidate(name, device=device, dtype=dtype).calculator


def candidate(name: str, *, device: str = "auto", dtype: Precision = "float32") -> Candidate:
    """Build a calculator from its name, and say which it is.

    Args:
        name: As of ``load_calculator``.
        device: For models of this package.
        dtype: For models of this package.

    Raises:
        UnknownName: There is no such model, module or factory, or it makes no calculator.
        MissingExtra: The package of a calculator of ASE's is not installed.
        NoForces: The model is no potential.
    """
    if FACTORY.fullmatch(name):
        return Candidate(calculator=_made_by(name), identity={"model": name})
    if name in names:
        return Candidate(calculator=_of_ase(name), identity={"model": name})
    from ase_crystalformer.calculator import CrystalformerCalculator

    calculator = CrystalformerCalculator(name, property_model=None, device=device, dtype=dtype)
    told = calculator.parameters
    identity = {"model": name, "sha256": told["sha256"], "dtype": dtype}
    return Candidate(calculator=calculator, identity=identity)


def _of_ase(name: str) -> Any:
    """Make a calculator that ASE knows by name."""
    try:
        kind = get_calculator_class(name)
    except ImportError as error:
        raise MissingExtra(
            f"{name!r} is a calculator of ASE's whose package {error.name or name!r} is not "
            f"installed ({error}). Install it, or name another calculator."
        ) from error
    try:
        return kind()
    except Exception as error:  # each of them in its own way
        reason = str(error) or type(error).__name__
        raise UnknownName(
            f"{name!r} is a calculator of ASE's that cannot be made without settings ({reason}). "
            "Write a function that returns it with yours, and give package.module:function."
        ) from error


def _made_by(name: str) -> Any:
    factory = _factory(name)
    with suppress(ValueError):  # of some that are not written in Python
        signature = inspect.signature(factory)
        try:
            signature.bind()
        except TypeError as error:
            raise UnknownName(
                f"{name}{signature} needs arguments ({error}). Name a callable that needs none, "
                "such as a function of your own."
            ) from error
    made = factory()
    if not hasattr(made, "get_potential_energy"):
        raise UnknownName(
            f"{name} returned a {type(made).__name__}, which is no ASE calculator. Give "
            "package.module:factory, where factory() returns one."
        )
    return made


def _factory(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise UnknownName(
                f"There is no module {error.name!r} for the calculator {name!r}. Install it, or "
                "run where its file lies. Models of this package are given by name or path."
            ) from error
        raise
    if not callable(getattr(found, attribute, None)):
        raise UnknownName(
            f"The module {module!r} has no callable {attribute!r}. Give package.module:factory, "
            "where factory() returns an ASE calculator."
        )
    return getattr(found, attribute)
