"""Networks as pure functions of flat parameter vectors, and what trains them."""

from rlkit.networks.gradient import ADAM as ADAM
from rlkit.networks.gradient import DivergenceError as DivergenceError
from rlkit.networks.gradient import Optimiser as Optimiser
from rlkit.networks.gradient import UpdateFunction as UpdateFunction
from rlkit.networks.gradient import adam_state as adam_state
from rlkit.networks.gradient import gradient as gradient
from rlkit.networks.gradient import with_target as with_target
from rlkit.networks.mlp import Mlp as Mlp
from rlkit.networks.mlp import Normaliser as Normaliser
from rlkit.networks.mlp import Parametric as Parametric
from rlkit.networks.mlp import normalise as normalise
