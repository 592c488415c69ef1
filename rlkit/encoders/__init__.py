"""Memory: encoders of sequences, behind one contract."""

from rlkit.encoders.bidirectional import Bidirectional as Bidirectional
from rlkit.encoders.check import check_encoder as check_encoder
from rlkit.encoders.check import complete_encoder as complete_encoder
from rlkit.encoders.contract import Carry as Carry
from rlkit.encoders.contract import SequenceEncoder as SequenceEncoder
from rlkit.encoders.convolution import CausalConv as CausalConv
from rlkit.encoders.network import Network as Network
from rlkit.encoders.recurrent import GRU as GRU
from rlkit.encoders.recurrent import LSTM as LSTM
from rlkit.encoders.recurrent import RNN as RNN
from rlkit.encoders.registry import describe_encoder as describe_encoder
from rlkit.encoders.registry import encoder_names as encoder_names
from rlkit.encoders.registry import make_encoder as make_encoder
from rlkit.encoders.scan import LRU as LRU
from rlkit.encoders.scan import MinGRU as MinGRU
from rlkit.encoders.transformer import CausalTransformer as CausalTransformer
