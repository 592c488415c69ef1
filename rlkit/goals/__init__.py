"""Goals: their rules, the environments that have them, and the columns of observations."""

from rlkit.goals.action_repeat import STEPS_TAKEN as STEPS_TAKEN
from rlkit.goals.action_repeat import ActionRepeat as ActionRepeat
from rlkit.goals.action_repeat import make_repeating as make_repeating
from rlkit.goals.env import GOAL_KEYS as GOAL_KEYS
from rlkit.goals.env import GoalEnv as GoalEnv
from rlkit.goals.env import GoalWrapper as GoalWrapper
from rlkit.goals.env import goal_rule as goal_rule
from rlkit.goals.env import is_goal_space as is_goal_space
from rlkit.goals.env import is_image_space as is_image_space
from rlkit.goals.layout import ObservationLayout as ObservationLayout
from rlkit.goals.layout import require_shapes as require_shapes
from rlkit.goals.layout import vector_size as vector_size
from rlkit.goals.layout import vectorise as vectorise
from rlkit.goals.rule import ComputedRule as ComputedRule
from rlkit.goals.rule import DistanceRule as DistanceRule
from rlkit.goals.rule import ExactRule as ExactRule
from rlkit.goals.rule import FurtherTerms as FurtherTerms
from rlkit.goals.rule import GoalRule as GoalRule
from rlkit.goals.rule import ImageGoalRule as ImageGoalRule
from rlkit.goals.rule import LatentDistanceRule as LatentDistanceRule
from rlkit.goals.rule import LatentGoalRule as LatentGoalRule
from rlkit.goals.rule import goal_distance as goal_distance
from rlkit.goals.rule import require_image_rule as require_image_rule
from rlkit.goals.rule import return_bounds as return_bounds
from rlkit.goals.simple_spaces import SimpleSpaces as SimpleSpaces
from rlkit.goals.simple_spaces import simplify as simplify
