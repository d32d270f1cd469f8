"""What ASE is told of this package through its entry point ``ase.plugins``; it loads nothing."""

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:  # ASE before 3.29 does not ask, and a later one may ask elsewhere.
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            "crystalformer",
            citation="T. Taniai et al., Crystalformer, ICLR 2024, arXiv:2403.11686",
            implementation="ase_crystalformer.CrystalformerCalculator",
        )
    }
