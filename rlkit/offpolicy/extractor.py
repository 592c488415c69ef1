"""Features extractors: modules of torch between an observation and the networks, as in SB3.

They read what Stable-Baselines3's extractors read: images with the channels first, one-hot
integers, Dicts by key with the goals among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import Tensor

from rlkit.goals import ObservationLayout
from rlkit.networks.module import PROBE, Head, ModuleFunction
from rlkit.networks.torch_classes import module_and_settings

DESIRED = "desired_goal"


class FeaturesExtractor:
    """A features extractor as a function of a flat vector and an agent's observation vectors.

    Args:
        described: Its class or name, or a mapping with a `name` and its arguments; the class is
            called with the observation space first.
        layout: Columns of observation vectors.
        goal_width: How much of a goal networks read; None for all.
        normalize_images: Whether images are divided by 255.

    Attributes:
        features: D, the width of its output.

    Raises:
        ValueError: If it cannot be built or run.
    """

    def __init__(
        self,
        described: Any,
        layout: ObservationLayout,
        goal_width: int | None = None,
        normalize_images: bool = True,
    ) -> None:
        kind, settings = module_and_settings(described)
        of_sb3 = isinstance(kind, type) and issubclass(kind, NatureCNN | CombinedExtractor)
        if of_sb3 and not normalize_images:
            settings["normalized_image"] = True  # SB3 then asks for no uint8
        self._layout, self._normalize_images = layout, normalize_images
        parts = dict(layout.space.spaces) if isinstance(layout.space, spaces.Dict) else {}
        if layout.goal is not None:
            goal = layout.goal
            if goal_width is not None:
                goal = spaces.Box(-float("inf"), float("inf"), (goal_width,))
            parts[DESIRED] = goal
        self._spaces = parts or {"observation": layout.space}
        read = {key: _channels_first(space) for key, space in self._spaces.items()}
        space = spaces.Dict(read) if parts else read["observation"]
        self._is_dict = bool(parts)
        goal_size = layout.goal_size if goal_width is None else goal_width
        example = self.read(torch.zeros(PROBE, layout.size), torch.zeros(PROBE, goal_size))
        self.function = ModuleFunction(kind, (space,), settings, example)
        self.features = self.function.outputs

    @cached_property
    def size(self) -> int:
        """Length of its parameter vector."""
        return self.function.size

    def read(self, observation: Tensor, goal: Tensor) -> Any:
        """What the module reads: a tensor, or a dict of them, of `(R, F)` and `(R, G)`."""
        columns = self._layout.slices
        found = {
            key: self._part(space, goal if key == DESIRED else observation[:, columns[key]])
            for key, space in self._spaces.items()
        }
        return found if self._is_dict else found["observation"]

    def _part(self, space: spaces.Space[Any], x: Tensor) -> Tensor:
        if not isinstance(space, spaces.Box):
            return x
        x = x.reshape(-1, *space.shape)
        is_image = is_image_space(space)
        if space.dtype == "uint8" and not (is_image and self._normalize_images):
            x = (x * 255).round()
        return x.permute(0, 3, 1, 2) if _has_channels_last(space) else x

    def __call__(self, vector: Tensor, observation: Tensor, goal: Tensor) -> Tensor:
        """Features `(R, D)` of observations `(R, F)` and goals `(R, G)`."""
        return self.function(vector, self.read(observation, goal))


class ExtractorNetwork:
    """A features extractor and the head that reads its features, with one vector for both.

    Args:
        extractor: The network's own.
        head: Reads the features, and what else is not of the observation.
    """

    def __init__(self, extractor: FeaturesExtractor, head: Head) -> None:
        self.extractor, self.head = extractor, head
        self.size = extractor.size + head.size

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(size,)`; they share its memory."""
        parts = torch.split(vector, [self.extractor.size, self.head.size])
        own = self.extractor.function.views(parts[0])
        found = {f"features_extractor.{name}": view for name, view in own.items()}
        return found | self.head.views(parts[1])

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(size,)`."""
        parts = (self.extractor.function, self.head)
        return torch.cat([part.initial_parameters(generator) for part in parts])

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs `(N, R, outputs)` of the head.

        Args:
            vector: Parameters `(size,)`.
            parts: Empty features, observation `(R, F)`, goal `(R, G)` and what the head reads
                beside the features.
        """
        _, observation, goal, *rest = parts
        own, of_head = torch.split(vector, [self.extractor.size, self.head.size])
        return self.head(of_head, (self.extractor(own, observation, goal), *rest))


class BorrowingNetwork:
    """A head that reads the features of another network's extractor, without training it."""

    def __init__(self, head: Head) -> None:
        self.head, self.size = head, head.size
        self.views, self.initial_parameters = head.views, head.initial_parameters

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs `(N, R, outputs)`; see `ExtractorNetwork`, whose features come first here."""
        features, _, _, *rest = parts
        return self.head(vector, (features, *rest))


def _has_channels_last(space: spaces.Box) -> bool:
    return is_image_space(space) and not is_image_space_channels_first(space)


def _channels_first(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space that SB3 shows an extractor."""
    if isinstance(space, spaces.Box) and _has_channels_last(space):
        return VecTransposeImage.transpose_space(space)
    return space
