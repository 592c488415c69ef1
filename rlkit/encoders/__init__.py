"""Memory: encoders of sequences, behind one contract."""

from rlkit.encoders.contract import Carry as Carry
from rlkit.encoders.contract import SequenceEncoder as SequenceEncoder
