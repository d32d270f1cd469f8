"""The laws every encoder is held to, for anybody's encoder.

>>> from ase_crystalformer.testing import check_all, randomised
>>> check_all(randomised(MyEncoder(MyConfig())))

Every law is a number: how far an encoder is from it. What the encoder claims of the law
(``encoders.base.Claims``) says what the number may be.
"""

from ase_crystalformer.testing.laws import LAWS, Law, LawBroken, check, check_all, laws_for
from ase_crystalformer.testing.weights import randomised

__all__ = ["LAWS", "Law", "LawBroken", "check", "check_all", "laws_for", "randomised"]
