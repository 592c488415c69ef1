"""Off-policy agents, one file each."""

from rlkit.agents.dqn import DQN as DQN
from rlkit.agents.dqn import DQNConfig as DQNConfig
from rlkit.agents.dqn import DQNLearner as DQNLearner
from rlkit.agents.mpc import MPC as MPC
from rlkit.agents.mpc import MPCConfig as MPCConfig
from rlkit.agents.mpc import MPCLearner as MPCLearner
from rlkit.agents.sac import SAC as SAC
from rlkit.agents.sac import TQC as TQC
from rlkit.agents.sac import SACConfig as SACConfig
from rlkit.agents.sac import SACLearner as SACLearner
from rlkit.agents.sac import TQCConfig as TQCConfig
from rlkit.agents.sac import TQCLearner as TQCLearner
from rlkit.agents.td3 import TD3 as TD3
from rlkit.agents.td3 import TD3Config as TD3Config
from rlkit.agents.td3 import TD3Learner as TD3Learner
from rlkit.offpolicy.algorithm import Algorithm as Algorithm
from rlkit.offpolicy.contract import Learner as Learner
from rlkit.offpolicy.learner import GradientLearner as GradientLearner
from rlkit.offpolicy.settings import ActorCriticConfig as ActorCriticConfig
from rlkit.offpolicy.settings import LearnerConfig as LearnerConfig
from rlkit.offpolicy.settings import Sizes as Sizes
