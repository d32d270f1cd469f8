"""Other potentials as users install them: factories for ``crystalformer evaluate`` and the speed.

    crystalformer evaluate benchmarks.peers:sevennet elasticity --data data

None of them is a dependency. Their pins may conflict with those of this package, so give them an
environment of their own: torch first, then the peer, then this package without its dependencies.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.util import find_spec
from typing import Any

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.errors import MissingExtra
from benchmarks.models import bundled_or_random

#: What is asked of everyone.
ASKED = ("energy", "forces", "stress")

#: What tables call a peer, to the name of its factory here and the package it needs.
PEERS = {
    "CHGNet": ("chgnet", "chgnet==0.4.2"),
    "SevenNet-0": ("sevennet", "sevenn==0.13.0"),
}


def chgnet() -> Any:
    """CHGNet 0.3.0 by chgnet 0.4.2, in single precision on the CPU.

    Source: B. Deng et al., Nature Machine Intelligence 5, 1031 (2023).

    Raises:
        MissingExtra: chgnet is not installed.
    """
    _need("CHGNet")
    with _quiet():
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(chgnet_model(), use_device="cpu")


def chgnet_model() -> Any:
    """Load the model that CHGNet's calculator and relaxer hold."""
    _need("CHGNet")
    with _quiet():
        from chgnet.model import CHGNet

        return CHGNet.load(use_device="cpu", verbose=False)


def sevennet() -> Any:
    """SevenNet-0 (July 2024) by sevenn 0.13.0, in single precision on the CPU.

    Source: Y. Park et al., Journal of Chemical Theory and Computation 20, 4857 (2024).

    Raises:
        MissingExtra: sevenn is not installed.
    """
    _need("SevenNet-0")
    with _quiet():
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator("7net-0", device="cpu")


def ours(alias: str = "default") -> CrystalformerCalculator:
    """Make the calculator of a bundled potential."""
    return CrystalformerCalculator(bundled_or_random(alias), property_model=None, device="cpu")


def contenders() -> dict[str, Callable[[], Any]]:
    """Return factories: ours first, the small one before the other, then the peers installed."""
    accurate = partial(ours, "accurate")
    return {"crystalformer": ours, "crystalformer, accurate": accurate, **installed()}


def installed() -> dict[str, Callable[[], Any]]:
    """Return the factories of the peers that are installed."""
    return {name: globals()[factory] for name, (factory, _) in PEERS.items() if _there(name)}


def how_to_install() -> str:
    """Say how to get the peers that are missing."""
    missing = [package for name, (_, package) in PEERS.items() if not _there(name)]
    return f"pip install {' '.join(missing)}" if missing else ""


def _there(name: str) -> bool:
    _, package = PEERS[name]
    return find_spec(package.partition("=")[0]) is not None


def _need(name: str) -> None:
    if not _there(name):
        _, package = PEERS[name]
        raise MissingExtra(f"{name} is not installed: pip install {package}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what they print and warn of while they load."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
