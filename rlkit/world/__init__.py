"""World models: sequence dynamics that forecast, are scored, and are imagined in."""

from rlkit.world.check import check_world as check_world
from rlkit.world.contract import WORLDS as WORLDS
from rlkit.world.contract import Imagined as Imagined
from rlkit.world.contract import Metrics as Metrics
from rlkit.world.contract import OpenLoop as OpenLoop
from rlkit.world.contract import Policy as Policy
from rlkit.world.contract import Widths as Widths
from rlkit.world.contract import Windows as Windows
from rlkit.world.contract import WorldModel as WorldModel
from rlkit.world.contract import repeat as repeat
from rlkit.world.data.stored import stored_episodes as stored_episodes
from rlkit.world.data.windows import Episodes as Episodes
from rlkit.world.data.windows import ForecastWindows as ForecastWindows
from rlkit.world.layout import Layout as Layout
from rlkit.world.layout import goal_outcomes as goal_outcomes
from rlkit.world.models.ensemble import Ensemble as Ensemble
from rlkit.world.models.linear import LinearDynamics as LinearDynamics
from rlkit.world.models.mdn_rnn import MdnRnn as MdnRnn
from rlkit.world.models.parametric import Markov as Markov
from rlkit.world.models.parametric import ParametricWorldModel as ParametricWorldModel
from rlkit.world.models.parametric import Step as Step
from rlkit.world.models.parametric import unroll as unroll
from rlkit.world.models.rssm import Rssm as Rssm
from rlkit.world.models.seq2seq import Seq2Seq as Seq2Seq
from rlkit.world.world import NonFiniteForecast as NonFiniteForecast
from rlkit.world.world import World as World
