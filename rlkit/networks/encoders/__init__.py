"""Encoders of sequences, behind one contract."""

from rlkit.networks.encoders.bidirectional import Bidirectional as Bidirectional
from rlkit.networks.encoders.check import check_encoder as check_encoder
from rlkit.networks.encoders.check import complete_encoder as complete_encoder
from rlkit.networks.encoders.contract import ENCODERS as ENCODERS
from rlkit.networks.encoders.contract import HiddenState as HiddenState
from rlkit.networks.encoders.contract import SequenceEncoder as SequenceEncoder
from rlkit.networks.encoders.convolution import CausalConv as CausalConv
from rlkit.networks.encoders.recurrent import GRU as GRU
from rlkit.networks.encoders.recurrent import LSTM as LSTM
from rlkit.networks.encoders.recurrent import RNN as RNN
from rlkit.networks.encoders.scan import LRU as LRU
from rlkit.networks.encoders.scan import MinGRU as MinGRU
from rlkit.networks.encoders.transformer import CausalTransformer as CausalTransformer
