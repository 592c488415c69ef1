"""An agent's networks as modules of torch that read raw observations, for export and inspection.

Everything here is computed with torch alone, so that it can be traced and exported; `predict` goes
through NumPy, and serves every agent.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from rlkit.latents import JointLatent
from rlkit.offpolicy.transitions import Inputs

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm


class NetworkModule(nn.Module):
    """One network of an agent: Q values, or of an actor's target its action.

    Its parameters are views of the learner's.

    Args:
        algorithm: Whose network.
        name: Its name among the learner's networks.
    """

    def __init__(self, algorithm: Algorithm, name: str) -> None:
        super().__init__()
        self._owner = (algorithm,)  # in a tuple, so that torch registers nothing of it
        self._name = name

    def forward(self, observation: Any, actions: Tensor | None = None) -> Any:
        """Outputs for raw observations, as SB3's networks give them.

        Args:
            observation: A tensor `(n, ...)`, or a dict of them.
            actions: In [-1, 1], `(n, ...)`, for a critic of continuous actions.

        Returns:
            A tuple of Q values `(n, 1)`, one for each critic; without actions the Q values of all
            choices `(n, A)`, the mean of all critics, or an actor's actions `(n, A)` in [-1, 1].
        """
        learner: Any = self._owner[0].learner
        with known_shapes(self._owner[0]):
            inputs: tuple[Tensor, ...] = network_inputs(self._owner[0], observation, self._name)
            if actions is not None:
                inputs = (*inputs, actions.flatten(1))
            outputs = learner.networks[self._name](learner.state[self._name], inputs)
        if actions is not None:
            return outputs.unbind(0)
        is_continuous = isinstance(self._owner[0].action_space, spaces.Box)
        return outputs[0].tanh() if is_continuous else outputs.mean(0)


def network_inputs(algorithm: Algorithm, observation: Any, name: str) -> Inputs:
    """What a network of a feed-forward agent reads of raw observations.

    Args:
        algorithm: The agent.
        observation: A tensor `(n, ...)`, or a dict of them.
        name: The network.

    Raises:
        ValueError: If acting depends on more than the observation, or takes more than torch.
    """
    learner: Any = algorithm.learner
    what = None
    if getattr(learner, "scaling", None) is None:
        what = "plans its actions"
    elif learner.recurrent is not None:
        what = f"has a recurrent encoder ({algorithm.config.encoder}), whose state it would miss"
    elif algorithm.observation_encoder.latent is not None:
        what = "reads images through a latent model that is fitted beforehand"
    if what is not None:
        raise ValueError(
            f"policy(observation) and its export are functions of one observation, and this "
            f"{type(algorithm).__name__} {what}; use agent.predict(observation, state)"
        )
    layout = algorithm.adapter.layout
    x = tensor_vector(layout.space, observation)
    goal = x[:, :0]
    if layout.goal is not None:
        goal = tensor_vector(layout.goal, observation["desired_goal"])
    batch = {"observation": x, "goal": goal}
    if learner.joint is not None:
        joint, vector = learner.joint, learner.state["latent"]
        batch["observation"] = _encoded(joint, vector, x, joint.start, layout.size)
        if joint.of_goals:
            batch["goal"] = _encoded(joint, vector, goal, 0, joint.width)
    scaling, tensors = learner.scaling, learner.scaling.tensors()
    x = scaling.observation(tensors, batch["observation"])
    goal = scaling.goal(tensors, batch["goal"], batch["observation"])
    is_actor = learner.targets.get(name, name) == learner.acting
    if layout.hides_goal and (is_actor or not learner.actor_critic.critic_sees_goal):
        goal = goal * observation["goal_visible"].reshape(-1, 1).float()
    found: Inputs = learner.inputs(x, goal, name)
    return found


@contextmanager
def known_shapes(algorithm: Algorithm) -> Iterator[None]:
    """Silences doubts of a tracer about shapes, unless there are modules of a user's own.

    The shapes that code here looks at are those of spaces and layers; they do not change.
    """
    is_traced = torch._C._get_tracing_state() is not None
    if not is_traced or getattr(algorithm.config, "has_modules", True):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        yield


def tensor_vector(space: spaces.Space[Any], value: Any) -> Tensor:
    """Elements of a space `(n, ...)` as vectors, like `rlkit.goals.layout.vectorise`."""
    if isinstance(space, spaces.Dict):
        assert isinstance(value, Mapping)
        parts = [tensor_vector(part, value[key]) for key, part in space.spaces.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    if isinstance(space, spaces.Discrete):
        return _one_hot(value, int(space.start), int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        value = value.flatten(1)
        sizes = zip(space.start.reshape(-1).tolist(), space.nvec.reshape(-1).tolist(), strict=True)
        return torch.cat([_one_hot(value[:, i], *each) for i, each in enumerate(sizes)], dim=-1)
    flat: Tensor = value.flatten(1).float()
    is_bytes = isinstance(space, spaces.Box) and space.dtype == "uint8"
    return flat / 255 if is_bytes else flat


def _one_hot(value: Tensor, start: int, count: int) -> Tensor:
    # By comparison: torch's own one_hot looks at the values, which a trace cannot.
    known = torch.arange(start, start + count, device=value.device)
    return (value.reshape(-1, 1) == known).float()


def _encoded(joint: JointLatent, vector: Tensor, x: Tensor, start: int, width: int) -> Tensor:
    """Vectors `(n, width)` with the latent of the image that begins at a column in its place."""
    stop = start + joint.width
    latent = joint.model.encode(vector, x[:, start:stop].reshape(-1, *joint.model.shape))[0]
    parts = ([x[:, :start]] if start > 0 else [], [latent], [x[:, stop:]] if stop < width else [])
    return torch.cat([part for some in parts for part in some], dim=-1)
