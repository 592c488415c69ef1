"""What a learner remembers with, and what its memory reads.

Two modes (docs/recurrent.md): goals join after the memory ("late"), so that one unroll serves any
goals and stored carries stay valid; or they are part of what it reads ("early"), so that a window
has one goal throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks import Mlp
from rlkit.networks.encoders import (
    ENCODERS,
    HiddenState,
    Network,
    SequenceEncoder,
    complete_encoder,
)
from rlkit.networks.gradient import Metrics, State
from rlkit.offpolicy.settings import LearnerConfig, Sizes


@dataclass(frozen=True)
class Recall:
    """What one network remembers in a batch.

    Attributes:
        vector: The network's parameters `(size,)`: what its loss is differentiated by.
        here: Memory at each row `(R, D)`; D is 0 without memory.
        following: Memory at the observation that the row's value continues from, `(R, D)`.
    """

    vector: Tensor
    here: Tensor
    following: Tensor

    def detach(self) -> Recall:
        """The same, cut off from the graph."""
        return Recall(self.vector.detach(), self.here.detach(), self.following.detach())


class Memory:
    """The encoder of a learner's networks, or the absence of one.

    Args:
        config: The learner's settings.
        sizes: Widths of observation, goal and action.
        generator: Source of dropout; memory lives on its device.

    Attributes:
        encoder: The encoder, complete with its input width; None without memory.
        features: D, the width of what networks read from it.
        reads_goal: Whether goals are part of its input.
        reads_reward: Whether previous rewards are, if only for critics.
        warm: Records at a window's start that only warm the memory up.
        rate_scale: Per network, what each parameter's learning rate is multiplied by.
    """

    encoder: SequenceEncoder | None = None
    features = 0
    warm = 0
    _acting = ""

    def __init__(self, config: LearnerConfig, sizes: Sizes, generator: torch.Generator) -> None:
        self.config, self.sizes, self.generator = config, sizes, generator
        self.device = generator.device
        self.rate_scale: dict[str, Tensor] = {}
        self._networks: dict[str, Network] = {}
        self._remembering: list[str] = []  # networks whose memory goes on while acting
        self.reads_reward = config.previous_reward or config.critic_sees_reward
        self.reads_goal = config.has_memory and config.goal_mode in ("early", "mixed")
        chosen = ENCODERS.make_optional(config.encoder)
        if not getattr(chosen, "causal", True):
            raise ValueError(
                f"encoder = {config.encoder!r} reads the future, so it cannot act; choose one that "
                f'steps, such as "gru"'
            )
        if chosen is not None:
            width = sizes.observation + (sizes.goal if self.reads_goal else 0)
            width += (sizes.action if config.previous_action else 0) + int(self.reads_reward)
            self.encoder = complete_encoder(chosen, width)
            self.features = self.encoder.features
            self.warm = config.burn_in

    def network(
        self, inputs: tuple[int, ...], outputs: int, members: int, layer_norm: bool, borrows: bool
    ) -> Network:
        """A network that reads the memory first and then `inputs`.

        Args:
            inputs: Width of each part beside the memory.
            outputs: Width of the output.
            members: Heads in the ensemble; they share one memory.
            layer_norm: Whether the head has layer norm.
            borrows: Whether it is an actor, which may borrow the critic's memory or have the only
                one, as the settings say.
        """
        sharing = self.config.encoder_sharing
        remembers = borrows or sharing != "actor"
        own = not borrows or sharing in ("separate", "actor")
        width = self.features if remembers else 0
        head = Mlp((width, *inputs), self.config.net_arch, outputs, members, layer_norm)
        return Network(head, self.encoder if remembers and own else None)

    def inputs(self, seen: State) -> Tensor:
        """What the memory reads, `(..., I)`.

        Args:
            seen: Scaled `observation (..., F)`, `goal (..., G)` as far as it is visible,
                `previous_action (..., A)` or integers `(...)`, `previous_reward (...)` and
                `is_first (...)`, as far as the settings ask for them. Who acts need not know a
                reward that only critics see.
        """
        parts = [seen["observation"]]
        if self.reads_goal:
            parts.append(seen["goal"])
        going_on = ~seen["is_first"].unsqueeze(-1)
        if self.config.previous_action:
            parts.append(self.as_vector(seen["previous_action"]) * going_on)
        if self.reads_reward:
            reward = seen.get("previous_reward", seen["observation"].new_zeros(()))
            parts.append(symlog(reward).unsqueeze(-1) * going_on)
        return torch.cat(parts, dim=-1)

    def read_by(self, name: str, x: Tensor) -> Tensor:
        """What a network's memory reads of inputs `(..., I)`: the actor's no reward of critics."""
        if not self.config.critic_sees_reward or name.removesuffix("_target") != self._acting:
            return x
        return F.pad(x[..., :-1], (0, 1))

    def as_vector(self, action: Tensor) -> Tensor:
        """Actions `(..., A)` as they are, integers `(...)` one-hot."""
        if action.is_floating_point():
            return action
        return F.one_hot(action.long(), self.sizes.action).float()

    # While acting

    def initial(self, count: int) -> HiddenState:
        """Memory of `count` fresh episodes: the previous action, then the encoders' carries.

        Empty for an agent without memory.
        """
        if self.encoder is None:
            return ()
        hidden_states = (self.encoder.initial(count, self.device) for _ in self._remembering)
        previous = torch.zeros(count, self.sizes.action, device=self.device)
        return (previous, *(part for hidden_state in hidden_states for part in hidden_state))

    def step(
        self, state: State, read: State, hidden_state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """One step of every encoder that remembers while acting; features of the one that acts.

        Args:
            state: The learner's tensors.
            read: What `inputs` takes, without a time axis.
            hidden_state: Memory from the step before.
        """
        assert self.encoder is not None
        x = self.inputs(read)
        features, after = [], [hidden_state[0]]
        for name, part in zip(self._remembering, self._parts(hidden_state[1:]), strict=True):
            vector = state[name][: self.encoder.size]
            feature, part = self.encoder.step(vector, self.read_by(name, x), part, read["is_first"])
            features.append(feature)
            after.extend(part)
        return features[0], tuple(after)

    def acted(self, hidden_state: HiddenState, action: Tensor) -> HiddenState:
        """The memory with the actions `(n, ...)` that were taken last."""
        return (self.as_vector(action).reshape(len(action), -1), *hidden_state[1:])

    @cached_property
    def stored_hidden_state(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the carries that the replay keeps for every step, without the batch axis."""
        if self.encoder is None or self.config.start != "stored":
            return ()
        return tuple(tuple(part.shape[1:]) for part in self.initial(1)[1:])

    @cached_property
    def _hidden_state_dtypes(self) -> tuple[torch.dtype, ...]:
        # The replay keeps numbers as float32; an encoder may count in integers.
        return tuple(part.dtype for part in self.initial(1)[1:])

    def _parts(self, hidden_states: HiddenState) -> list[HiddenState]:
        """The carries of each network that remembers."""
        width = len(hidden_states) // len(self._remembering)
        return [hidden_states[i : i + width] for i in range(0, len(hidden_states), width)]

    # In a batch

    def recall(self, state: State, batch: State, names: Iterable[str]) -> dict[str, Recall]:
        """What networks remember at every row that is learned from.

        Networks unrolled here come with the vector to differentiate by; targets, whose names end
        in `_target`, without a graph.

        Args:
            state: The learner's tensors.
            batch: As `Learner.update` takes it, with observation and goal scaled.
            names: The networks.
        """
        x = self.window_inputs(batch)
        unrolled: dict[str, Recall] = {}
        found: dict[str, Recall] = {}
        nothing = x.new_zeros(batch["reward"][:, self.warm :].numel(), 0)
        for name in names:
            owner = self._owner(name)
            if owner is None:
                found[name] = Recall(state[name], nothing, nothing)
                continue
            if owner not in unrolled:
                read = self.read_by(owner, x)
                unrolled[owner] = self._unroll(owner, state[owner], batch, read)
            own = unrolled[owner]
            if owner != name:
                lent = own if self.config.encoder_sharing == "joint" else own.detach()
                own = Recall(state[name], lent.here, lent.following)
            found[name] = own
        return found

    def window_inputs(self, batch: State) -> Tensor:
        """What the memory reads at all observations of a window, `(B, L, I)`; see `recall`."""
        if self.reads_goal:
            goal, length = batch["goal"], batch["observation"].shape[1]
            last = goal[:, -1:].expand(-1, length - goal.shape[1], -1)
            goal = torch.cat([goal, last], dim=1)
            if "visible" in batch:
                goal = goal * batch["visible"].unsqueeze(-1)
            batch = {**batch, "goal": goal}
        return self.inputs(batch)

    def following(self, batch: State, x: Tensor) -> Tensor:
        """Of values at all observations `(B, L, W)` those that each step's value follows from."""
        steps = batch["reward"].shape[1]
        if "bootstrap" not in batch:
            return x[:, self.warm + 1 : steps + 1]
        index = batch["bootstrap"][:, self.warm :].unsqueeze(-1)
        return x.gather(1, index.expand(-1, -1, x.shape[-1]))

    def stored(self, batch: State, name: str) -> HiddenState:
        """The carry of a network, or its target, that the replay kept for a window's beginning."""
        kinds = self._hidden_state_dtypes
        parts = tuple(batch[f"hidden_state.{i}"].to(kind) for i, kind in enumerate(kinds))
        return self._parts(parts)[self._remembering.index(name.removesuffix("_target"))]

    def attach(self, networks: dict[str, Network], acting: str) -> None:
        """Takes note of the learner's networks, and of the one that acts."""
        if self.encoder is None:
            return
        self._networks, self._acting = networks, acting
        self._remembering = [self._owner(acting) or acting]
        if self.config.start == "stored":
            for name in networks:
                trained = self._owner(name) == name and not name.endswith("_target")
                if trained and name not in self._remembering:
                    self._remembering.append(name)
        rate, own = self.config.learning_rate, self.config.encoder_lr
        if own is None:
            return
        start = rate(1.0) if callable(rate) else rate
        if start == 0:
            raise ValueError(
                f"encoder_lr = {own} is kept in proportion to learning_rate, which begins at 0 "
                f"here; let it begin above 0, or leave encoder_lr out"
            )
        ratio = own / start
        for name, network in networks.items():
            scale = torch.ones(network.size, device=self.device)
            scale[: network.memory_size] = ratio
            self.rate_scale[name] = scale

    # In a step of learning

    def bend(
        self, grad: Tensor, actor_loss: Callable[[], tuple[Tensor, Any]], recall: dict[str, Recall]
    ) -> Tensor:
        """The critic's gradient with the actor's pull on their memory, where that is joint."""
        if self.encoder is None or self.config.encoder_sharing != "joint":
            return grad
        with torch.enable_grad():
            loss, _ = actor_loss()
        (pull,) = torch.autograd.grad(loss, recall["critic"].vector, retain_graph=True)
        return grad + pull

    def grad_norm(self, name: str, grad: Tensor) -> Metrics:
        """The length of the encoder's part of a network's gradient, as a metric."""
        size = self._networks[name].memory_size if self.encoder is not None else 0
        return {f"encoder_grad_norm_{name}": grad[:size].norm()} if size else {}

    def _owner(self, name: str) -> str | None:
        """The network whose memory a network reads: its own, the critic's, or nobody's."""
        if self._networks[name].encoder is not None:
            return name
        if self.config.encoder_sharing == "actor":
            return None
        return "critic_target" if name.endswith("_target") else "critic"

    def _unroll(self, name: str, vector: Tensor, batch: State, x: Tensor) -> Recall:
        assert self.encoder is not None
        trained = not name.endswith("_target")
        if trained:
            vector = vector.detach().requires_grad_()
        weights, hidden_state = vector[: self.encoder.size], self._hidden_state(batch, name)
        first, warm, steps = batch["is_first"], self.warm, batch["reward"].shape[1]
        if warm > 0:
            with torch.no_grad():
                hidden_state = self.encoder.scan(
                    weights, x[:, :warm], hidden_state, first[:, :warm]
                )[1]
        with torch.set_grad_enabled(trained):
            weights = vector[: self.encoder.size]
            dropout = self.generator if trained else None
            features = self.encoder.scan(
                weights, x[:, warm:], hidden_state, first[:, warm:], dropout
            )[0]
            # `following` counts from the window's first observation, the burn-in included.
            whole = F.pad(features, (0, 0, warm, 0))
            here, following = features[:, : steps - warm], self.following(batch, whole)
            return Recall(vector, here.flatten(0, 1), following.flatten(0, 1))

    def _hidden_state(self, batch: State, name: str) -> HiddenState:
        assert self.encoder is not None
        if self.config.start != "stored":
            return self.encoder.initial(len(batch["reward"]), self.device)
        return self.stored(batch, name)


def symlog(x: Tensor) -> Tensor:
    """Numbers of any size on a scale that networks can read (Hafner et al. 2023, equation 9)."""
    return x.sign() * x.abs().log1p()
