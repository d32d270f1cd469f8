"""Units of everything that crosses a border: Å, eV, eV/Å, eV/Å³, GPa.

Inside the package lengths are Å and energies eV. Moduli are reported in GPa.
"""

#: One GPa in eV/Å³ (CODATA 2014, as in ``ase.units``; pinned by a test).
GPA = 0.006241509125883258

#: What each quantity the models may predict is measured in.
UNITS: dict[str, str] = {
    "energy": "eV",
    "free_energy": "eV",
    "energies": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³",
    "energy_uncertainty": "eV",
    "forces_uncertainty": "eV/Å",
    "novelty": "1",
    "formation_energy_per_atom": "eV/atom",
    "energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "bulk_modulus": "GPa",
    "shear_modulus": "GPa",
}
