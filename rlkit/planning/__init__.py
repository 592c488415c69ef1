"""Planners: sequences of actions that score highly in a world model."""

from rlkit.planning.cem import CEM as CEM
from rlkit.planning.check import check_planner as check_planner
from rlkit.planning.contract import PLANNERS as PLANNERS
from rlkit.planning.contract import Actions as Actions
from rlkit.planning.contract import Clock as Clock
from rlkit.planning.contract import Plan as Plan
from rlkit.planning.contract import Planner as Planner
from rlkit.planning.contract import PlannerState as PlannerState
from rlkit.planning.icem import ICEM as ICEM
from rlkit.planning.mppi import MPPI as MPPI
from rlkit.planning.problem import FunctionProblem as FunctionProblem
from rlkit.planning.problem import PlanningObjective as PlanningObjective
from rlkit.planning.problem import PlanningProblem as PlanningProblem
from rlkit.planning.rollouts import ImaginedProblem as ImaginedProblem
from rlkit.planning.rollouts import PredictedOutcome as PredictedOutcome
from rlkit.planning.shooting import RandomShooting as RandomShooting
