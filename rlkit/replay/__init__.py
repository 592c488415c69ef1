"""Replay: episode storage, windows, hindsight relabelling and n-step returns."""

from rlkit.replay.batch import Batch as Batch
from rlkit.replay.columns import NonFiniteError as NonFiniteError
from rlkit.replay.columns import check_finite as check_finite
from rlkit.replay.episodes import StoredEpisodes as StoredEpisodes
from rlkit.replay.episodes import read_episodes as read_episodes
from rlkit.replay.footprint import available_bytes as available_bytes
from rlkit.replay.footprint import estimate_footprint as estimate_footprint
from rlkit.replay.latent_cache import LatentColumn as LatentColumn
from rlkit.replay.latent_cache import LatentEncoder as LatentEncoder
from rlkit.replay.prioritised import PrioritisedSampler as PrioritisedSampler
from rlkit.replay.replay_buffer import ReplayBuffer as ReplayBuffer
from rlkit.replay.replay_buffer import UniformSampler as UniformSampler
from rlkit.replay.samplers import SAMPLERS as SAMPLERS
from rlkit.replay.samplers import PrioritySampler as PrioritySampler
from rlkit.replay.samplers import ReplaySampler as ReplaySampler
from rlkit.replay.samplers import check_sampler as check_sampler
from rlkit.replay.storage import EpisodeStorage as EpisodeStorage
