"""The exact terms: what log p_θ(x), the reconstruction and the KLs really are, as integrals over z.

`plain.py` says how in one page. This is the door to the fast and certain way: a `Target` is all that θ owns,
log p_θ(x) and p_θ(z|x); `terms_under` holds a q against it; `decompose` does both. The gap, split into its parts,
is in `gap.py`, the terms over a plane of θ and φ in `landscape.py`. Nothing else in here is meant for others.
"""

from .joint import Callables as Callables
from .joint import Joint as Joint
from .target import Target as Target
from .target import check_tolerance as check_tolerance
from .terms import TERMS as TERMS
from .terms import Decomposition as Decomposition
from .terms import MeanTerms as MeanTerms
from .under_q import Expectations as Expectations
from .under_q import certified as certified
from .under_q import decompose as decompose
from .under_q import terms_under as terms_under
