"""Goal generators: the goals that training episodes pursue in place of the environment's."""

from rlkit.goals.generators.check import check_generator as check_generator
from rlkit.goals.generators.contract import GENERATORS as GENERATORS
from rlkit.goals.generators.contract import GoalContext as GoalContext
from rlkit.goals.generators.contract import GoalGenerator as GoalGenerator
from rlkit.goals.generators.imagined import Imagined as Imagined
from rlkit.goals.generators.uniform import Uniform as Uniform
