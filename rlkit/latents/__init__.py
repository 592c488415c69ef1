"""Latent models: observations as small vectors, behind one contract."""

from rlkit.latents.autoencoder import Autoencoder as Autoencoder
from rlkit.latents.autoencoder import Denoising as Denoising
from rlkit.latents.check import check_latent as check_latent
from rlkit.latents.contract import LATENTS as LATENTS
from rlkit.latents.contract import LatentModel as LatentModel
from rlkit.latents.contract import Metrics as Metrics
from rlkit.latents.joint import JointLatent as JointLatent
from rlkit.latents.latent import FittedLatent as FittedLatent
from rlkit.latents.measures import active_units as active_units
from rlkit.latents.measures import disentanglement as disentanglement
from rlkit.latents.measures import distance_correlation as distance_correlation
from rlkit.latents.measures import kl_per_dim as kl_per_dim
from rlkit.latents.measures import linear_probe as linear_probe
from rlkit.latents.measures import nearness as nearness
from rlkit.latents.networks import ParametricLatent as ParametricLatent
from rlkit.latents.pca import PCA as PCA
from rlkit.latents.vae import VAE as VAE
