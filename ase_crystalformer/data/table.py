"""The table of public data sets."""

from ase_crystalformer.data.registry import DataSet, Label, power_of_ten

_MP = "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323"
_MEGNET = (
    "C. Chen et al., Chemistry of Materials 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294; "
    + _MP
)
_MATBENCH = (
    "A. Dunn et al., npj Computational Materials 6, 138 (2020), doi:10.1038/s41524-020-00406-3"
)
_ELASTIC = "M. de Jong et al., Scientific Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"
_EOS = "E. Bosoni et al., Nature Reviews Physics 6, 45 (2024), doi:10.1038/s42254-023-00655-3"
_POLYMLP = "A. Seko, Journal of Applied Physics 133, 011101 (2023), doi:10.1063/5.0129045"
_MATCALC = "https://github.com/materialsvirtuallab/matcalc"
_MATBENCH_URL = "https://matbench.materialsproject.org"

_FORMATION = Label(
    column="formation_energy_per_atom", name="formation_energy_per_atom", unit="eV/atom"
)
_GAP = Label(column="band_gap", name="band_gap", unit="eV")
_BULK = Label(column="bulk_modulus_vrh", name="bulk_modulus", unit="GPa")
_SHEAR = Label(column="shear_modulus_vrh", name="shear_modulus", unit="GPa")
_ENERGY = Label(column="energy_per_atom", name="energy_per_atom", unit="eV/atom")


def _polymlp(name: str, about: str, method: str = "PBE, VASP") -> DataSet:
    return DataSet(
        name=f"polymlp_{name}",
        about=about,
        method=method,
        group=f"polymlp_{name}",
        use="training",
        licence="BSD-3-Clause",
        citation=_POLYMLP,
        url="https://github.com/sekocha/pypolymlp",
        dynamics=True,
        id_keys=("config_id",),
    )


_SETS = (
    DataSet(
        name="mp_labelled",
        about="Materials Project crystals with the official split of MEGNet 2018.6.1",
        method="PBE and PBE+U, VASP",
        group="mp",
        use="training",
        licence="CC-BY-4.0",
        citation=_MEGNET,
        url="https://materialsproject.org",
        labels=(
            _FORMATION,
            _GAP,
            _ENERGY,
            _BULK,
            _SHEAR,
            Label(column="efermi", name="fermi_energy", unit="eV"),
            Label(
                column="magnetization_per_volume", name="magnetization_per_volume", unit="µB/Å³"
            ),
            Label(column="band_gap_hse", name="band_gap_hse", unit="eV"),
            Label(column="band_gap_gllbsc", name="band_gap_gllbsc", unit="eV"),
            Label(column="band_gap_scan", name="band_gap_scan", unit="eV"),
        ),
    ),
    DataSet(
        name="mp_unlabelled",
        about="Materials Project crystals of at most 20 atoms, structures only",
        method="none",
        group="mp",
        use="structures",
        licence="CC-BY-4.0",
        citation=_MP,
        url="https://materialsproject.org",
    ),
    DataSet(
        name="matbench_mp_joined",
        about="MatBench formation energies and gaps of crystals that mp_labelled lacks",
        method="PBE and PBE+U, VASP; other elemental references than mp_labelled",
        group="matbench",
        use="training",
        licence="MIT (labels), CC-BY-4.0 (crystals)",
        citation=f"{_MATBENCH}; {_MP}",
        url=_MATBENCH_URL,
        labels=(
            Label(column="mb_e_form", name="formation_energy_per_atom", unit="eV/atom"),
            Label(column="mb_gap", name="band_gap", unit="eV"),
        ),
    ),
    DataSet(
        name="matbench_log_kgvrh",
        about="MatBench elastic moduli, 10,464 of 10,987",
        method="PBE and PBE+U, VASP; Voigt-Reuss-Hill averages",
        group="mp",
        use="training",
        licence="MIT (labels), CC-BY-4.0 (crystals)",
        citation=f"{_MATBENCH}; {_ELASTIC}",
        url=_MATBENCH_URL,
        labels=(
            Label(column="log10_k_vrh", name="bulk_modulus", unit="GPa", read=power_of_ten),
            Label(column="log10_g_vrh", name="shear_modulus", unit="GPa", read=power_of_ten),
        ),
    ),
    DataSet(
        name="mp_perturbed_sevennet",
        about="rattled, strained and squeezed Materials Project crystals, labelled by SevenNet-0",
        method="pseudo-labels of a potential, not DFT; uncorrected PBE and PBE+U scale",
        group="mp",
        use="training",
        licence="CC-BY-4.0 (cells); labels are output of SevenNet 0.13.0",
        citation=f"Y. Park et al., JCTC 20, 4857 (2024), doi:10.1021/acs.jctc.4c00190; {_MP}",
        url="https://github.com/MDIL-SNU/SevenNet",
        dynamics=True,
        numbered=True,
    ),
    DataSet(
        name="mp_perturbed_chgnet",
        about="rattled, strained and squeezed Materials Project crystals, labelled by CHGNet 0.3.0",
        method="pseudo-labels of a potential, not DFT; Materials Project's 2020 corrected scale",
        group="chgnet",
        use="training",
        licence="CC-BY-4.0 (cells), BSD-3-Clause (potential)",
        citation=(
            "B. Deng et al., Nature Machine Intelligence 5, 1031 (2023), "
            f"doi:10.1038/s42256-023-00716-3; {_MP}"
        ),
        url="https://github.com/CederGroupHub/chgnet",
        dynamics=True,
        numbered=True,
    ),
    DataSet(
        name="eos_vasp_pbe",
        about="elemental and oxide crystals of 96 elements at 7 volumes, non-magnetic",
        method="PBE, VASP",
        group="eos_vasp_pbe",
        use="training",
        licence="CC-BY-4.0",
        citation=_EOS,
        url="https://doi.org/10.24435/materialscloud:s4-3h",
        dynamics=True,
        id_keys=("config_id",),
        numbered=True,
    ),
    DataSet(
        name="mlearn",
        about="Li, Mo, Si, Ge, Cu, Ni: molecular dynamics, strains, surfaces, vacancies",
        method="PBE, VASP",
        group="mlearn",
        use="training",
        licence="BSD-3-Clause",
        citation="Y. Zuo et al., JPCA 124, 731 (2020), doi:10.1021/acs.jpca.9b08723",
        url="https://github.com/materialsvirtuallab/mlearn",
        dynamics=True,
        id_keys=("element", "config_type"),
        numbered=True,
    ),
    DataSet(
        name="monbtaw",
        about="the alloy MoNbTaW and its parts",
        method="PBE, VASP",
        group="monbtaw",
        use="training",
        licence="BSD-3-Clause",
        citation="X.-G. Li et al., npj Comput. Mater. 6, 70 (2020), doi:10.1038/s41524-020-0339-0",
        url="https://github.com/materialsvirtuallab/maml",
        dynamics=True,
        id_keys=("config_type",),
        numbered=True,
    ),
    _polymlp("agau", "displaced silver-gold crystals"),
    _polymlp("mgo", "strongly displaced MgO, forces to 200 eV/Å"),
    _polymlp("fe", "displaced iron", "spin-polarised PBE, VASP"),
    _polymlp("srtio3", "displaced SrTiO3"),
    DataSet(
        name="matbench_perovskites",
        about="all 18,928 perovskites of MatBench, with its folds",
        method="RPBE, GPAW; eV per five-atom cell",
        group="matbench_perovskites",
        use="benchmark",
        licence="MIT",
        citation=f"{_MATBENCH}; I. Castelli et al., EES 5, 5814 (2012), doi:10.1039/c1ee02717d",
        url=_MATBENCH_URL,
        labels=(Label(column="e_form", name="formation_energy_per_cell", unit="eV"),),
    ),
    DataSet(
        name="matbench_dielectric",
        about="refractive indices, 4,216 of 4,764, with MatBench's folds",
        method="PBE and PBE+U, VASP",
        group="mp",
        use="benchmark",
        licence="MIT (labels), CC-BY-4.0 (crystals)",
        citation=(
            f"{_MATBENCH}; I. Petousis et al., Scientific Data 4, 160134 (2017), "
            "doi:10.1038/sdata.2016.134"
        ),
        url=_MATBENCH_URL,
        labels=(Label(column="n", name="refractive_index", unit="1"),),
    ),
    DataSet(
        name="matbench_phonons",
        about="highest peak of the phonon density of states, 1,262 of 1,265, with MatBench's folds",
        method="PBEsol, ABINIT",
        group="mp",
        use="benchmark",
        licence="MIT (labels), CC-BY-4.0 (crystals)",
        citation=(
            f"{_MATBENCH}; G. Petretto et al., Scientific Data 5, 180065 (2018), "
            "doi:10.1038/sdata.2018.65"
        ),
        url=_MATBENCH_URL,
        labels=(Label(column="last_phdos_peak", name="last_phonon_peak", unit="1/cm"),),
    ),
    DataSet(
        name="carbon_24",
        about="carbon crystals of up to 24 atoms found by random search at 10 GPa",
        method="PBE, CASTEP",
        group="carbon_24",
        use="benchmark",
        licence="MIT",
        citation=(
            "C. Pickard, Materials Cloud 2020.0026, doi:10.24435/materialscloud:2020.0026/v1; "
            "T. Xie et al., ICLR 2022, arXiv:2110.06197"
        ),
        url="https://github.com/txie-93/cdvae",
        labels=(_ENERGY,),
    ),
    DataSet(
        name="elasticity",
        about="elastic moduli of Materials Project crystals, for outside tests",
        method="PBE and PBE+U, VASP; Voigt-Reuss-Hill averages",
        group="mp",
        use="validation",
        licence="CC-BY-4.0",
        citation=f"{_ELASTIC}; {_MP}",
        url=_MATCALC,
        labels=(_BULK, _SHEAR),
    ),
    DataSet(
        name="phonon_heat_capacity",
        about="harmonic heat capacities at 300 K",
        method="PBE, VASP",
        group="alexandria",
        use="validation",
        licence="CC-BY-4.0",
        citation="A. Loew et al., npj Comput. Mater. 11, 178 (2025), arXiv:2412.16551",
        url=_MATCALC,
        labels=(
            Label(column="heat_capacity", name="heat_capacity", unit="J/K per mole of atoms"),
        ),
    ),
    DataSet(
        name="wbm_equilibrium",
        about="relaxed crystals made by substituting elements",
        method="PBE and PBE+U, VASP",
        group="wbm",
        use="validation",
        licence="CC-BY-4.0",
        citation="H.-C. Wang et al., npj Comput. Mater. 7, 12 (2021), 10.1038/s41524-020-00481-6",
        url=_MATCALC,
        labels=(_FORMATION, Label(column="energy", name="energy", unit="eV")),
    ),
    DataSet(
        name="eos_all_electron",
        about="equations of state of elemental and oxide crystals",
        method="PBE, average of two all-electron codes",
        group="eos_all_electron",
        use="validation",
        licence="CC-BY-4.0",
        citation=_EOS,
        url="https://doi.org/10.24435/materialscloud:s4-3h",
        labels=(
            Label(column="volume", name="volume", unit="Å³"),
            Label(column="bulk_modulus", name="bulk_modulus", unit="GPa"),
            Label(column="bulk_modulus_derivative", name="bulk_modulus_derivative", unit="1"),
        ),
        id_keys=("config_id",),
    ),
    DataSet(
        name="phonon_displacements",
        about="supercells of ten crystals with one atom moved by 0.01 Å",
        method="PBEsol, VASP",
        group="phonon_displacements",
        use="validation",
        licence="BSD-3-Clause",
        citation="A. Togo, JPSJ 92, 012001 (2023), doi:10.7566/JPSJ.92.012001",
        url="https://github.com/phonopy/phonopy",
        dynamics=True,
        id_keys=("crystal", "space_group"),
        numbered=True,
    ),
    DataSet(
        name="jarvis_subset",
        about="JARVIS-DFT crystals",
        method="OptB88vdW, VASP",
        group="jarvis",
        use="validation",
        licence="public domain (NIST)",
        citation="K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), 10.1038/s41524-020-00440-1",
        url="https://jarvis.nist.gov",
        labels=(
            _FORMATION,
            _GAP,
            _ENERGY,
            Label(column="e_above_hull", name="energy_above_hull", unit="eV/atom"),
            Label(column="bulk_modulus_voigt", name="bulk_modulus", unit="GPa"),
            Label(column="shear_modulus_voigt", name="shear_modulus", unit="GPa"),
            Label(column="band_gap_mbj", name="band_gap_mbj", unit="eV"),
            Label(column="Tc_supercon", name="critical_temperature", unit="K"),
        ),
    ),
    DataSet(
        name="dielectric",
        about="refractive indices and dielectric constants",
        method="PBE and PBE+U, VASP",
        group="mp",
        use="validation",
        licence="CC-BY-4.0",
        citation="I. Petousis et al., Scientific Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
        url="https://github.com/hackingmaterials/matminer",
        labels=(
            Label(column="n", name="refractive_index", unit="1"),
            Label(column="poly_electronic", name="dielectric_electronic", unit="1"),
            Label(column="poly_total", name="dielectric_total", unit="1"),
        ),
    ),
    DataSet(
        name="qmof_small",
        about="metal-organic frameworks of up to 80 atoms",
        method="PBE-D3(BJ), VASP",
        group="qmof",
        use="benchmark",
        licence="CC-BY-4.0",
        citation="A. Rosen et al., Matter 4, 1578 (2021), doi:10.1016/j.matt.2021.02.015",
        url="https://github.com/Andrew-S-Rosen/QMOF",
        labels=(_GAP,),
    ),
)

#: Every public data set by name.
DATA_SETS: dict[str, DataSet] = {data_set.name: data_set for data_set in _SETS}
