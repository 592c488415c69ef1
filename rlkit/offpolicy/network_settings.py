"""Settings of networks: perceptrons, modules of torch, features extractors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np

from rlkit.networks.torch_classes import activation_function
from rlkit.offpolicy.settings_group import Settings, one_of

InputFeatures = Literal["none", "fourier", "learned_fourier"]
Role = Literal["pi", "qf"]
ROLES = get_args(Role)


@dataclass(frozen=True)
class Networks(Settings):
    """What networks are made of."""

    net_arch: tuple[int, ...] | Mapping[str, Sequence[int]] = (256, 256)
    """Widths of the hidden layers of every network, or `{pi = [64], qf = [256, 256]}` for actor and
    critics."""
    activation: str | type[Any] = "relu"
    """Activation of the hidden layers: a class of `torch.nn` such as "elu", "tanh" or "silu"."""
    network: Mapping[str, Any] | None = None
    """Modules of torch in place of perceptrons, by role (`pi`, `qf`, or `all`): each a class or
    `package.module:Class`, or a table with a `name` and arguments. It is built with the widths of
    its inputs and outputs, and `net_arch` does not count."""
    features_extractor: str | Mapping[str, Any] | type[Any] | None = None
    """A module of torch that reads the observation for the networks, as in Stable-Baselines3: a
    class, `package.module:Class`, "nature_cnn", "combined", or a table with a `name` and arguments.
    It is built with the observation space."""
    share_features_extractor: bool = False
    """Whether the actor reads the critic's features, and only the critic's loss trains them."""
    normalize_images: bool = True
    """Whether a features extractor gets images divided by 255."""
    input_features: InputFeatures = "none"
    """What networks read beside their inputs: nothing; sines and cosines of multiples of scaled
    observations and goals ("fourier"; Tancik et al. 2020, Yang et al. 2022); or sines and cosines
    of trained mixtures of all inputs ("learned_fourier"; Li and Pathak 2021). Fixed ones resolve
    what changes within a small part of an input's range, such as contact."""
    fourier_frequencies: tuple[float, ...] = (2.0, 5.0)
    """Multiples of "fourier", > 0, in radians per standard deviation of an input. Each widens the
    first layer by two times its inputs."""
    fourier_width: int = 1024
    """Number of learned features, even, >= 2."""
    fourier_scale: float = 0.001
    """Deviation of the learned features' frequencies at the beginning, > 0, in turns per standard
    deviation of an input. Small ones smooth, large ones resolve."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "net_arch": (
                "a list of widths >= 1, or such lists for both roles: {pi = [...], qf = [...]}",
                all(_are_widths(layers) for layers in self._layers.values())
                and set(self._layers) in ({"all"}, set(ROLES)),
            ),
            "network": (
                "a table with modules for the roles pi, qf or all",
                self.network is None
                or (isinstance(self.network, Mapping) and self.network.keys() <= {"all", *ROLES}),
            ),
            "input_features": one_of(self.input_features, *get_args(InputFeatures)),
            "fourier_frequencies": (
                "a list of numbers > 0",
                isinstance(self.fourier_frequencies, Sequence)
                and all(isinstance(k, Real) and 0 < k < math.inf for k in self.fourier_frequencies),
            ),
            "fourier_width": (
                "even and >= 2",
                self.fourier_width >= 2 and self.fourier_width % 2 == 0,
            ),
            "fourier_scale": ("> 0", self.fourier_scale > 0),
        }

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        super().__post_init__()
        activation_function(self.activation)
        if self.share_features_extractor and self.features_extractor is None:
            raise ValueError(
                "share_features_extractor = True needs a features_extractor; without one networks "
                "read the observation itself"
            )
        if self.input_features == "learned_fourier" and self.network is not None:
            raise ValueError(
                'input_features = "learned_fourier" is a layer of perceptrons, which network '
                "replaces; leave one of them out"
            )
        if self.input_features == "fourier" and self.features_extractor is not None:
            raise ValueError(
                'input_features = "fourier" does not go with features_extractor, which reads '
                "observations by the columns of their space; leave one of them out"
            )

    @property
    def _layers(self) -> Mapping[str, Sequence[int]]:
        return self.net_arch if isinstance(self.net_arch, Mapping) else {"all": self.net_arch}

    def layers(self, role: Role) -> tuple[int, ...]:
        """Widths of the hidden layers of the networks with a role."""
        return tuple(self._layers[role if role in self._layers else "all"])

    def module(self, role: Role) -> Any:
        """The user's module for the networks with a role; None for perceptrons."""
        given = self.network or {}
        return given.get(role, given.get("all"))

    @property
    def frequencies(self) -> tuple[float, ...]:
        """Of fixed Fourier features; empty without."""
        return tuple(self.fourier_frequencies) if self.input_features == "fourier" else ()

    @property
    def learned_fourier(self) -> tuple[int, float]:
        """Number and scale of learned Fourier features, of which there may be none."""
        is_learned = self.input_features == "learned_fourier"
        return self.fourier_width if is_learned else 0, self.fourier_scale

    @property
    def has_modules(self) -> bool:
        """Whether there are modules of torch among the networks."""
        return self.network is not None or self.features_extractor is not None


@dataclass(frozen=True)
class StateDependent(Networks):
    """State-dependent exploration, as in Stable-Baselines3 (Raffin et al. 2021)."""

    use_sde: bool = False
    """Whether exploration noise is a function of the state (gSDE) that changes between rollouts."""
    sde_sample_freq: int = -1
    """Steps between new noise within a rollout (`train_freq` steps), >= 1; -1 draws it only at a
    rollout's beginning."""
    use_sde_at_warmup: bool = False
    """Whether gSDE replaces uniform actions before `learning_starts`."""
    log_std_init: float = -3.0
    """Logarithm of the noise's deviation at the beginning."""
    use_expln: bool = False
    """Whether deviations grow only logarithmically above 1."""
    clip_mean: float = 2.0
    """Largest mean before squashing, >= 0; 0 does not clip."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        frequency = self.sde_sample_freq
        return super().ranges() | {
            "sde_sample_freq": (">= 1, or -1", frequency >= 1 or frequency == -1),
            "clip_mean": (">= 0", self.clip_mean >= 0),
        }

    def __post_init__(self) -> None:
        """Refuses values out of range and combinations that contradict each other, by name."""
        super().__post_init__()
        if not self.use_sde:
            return
        if self.module("pi") is not None or not self.layers("pi"):
            raise ValueError(
                "use_sde = True needs the actor's last hidden layer, so net_arch must have one for "
                "pi, and network none of its own"
            )


def _are_widths(layers: Any) -> bool:
    return isinstance(layers, Sequence) and all(
        isinstance(width, int | np.integer) and width >= 1 for width in layers
    )
