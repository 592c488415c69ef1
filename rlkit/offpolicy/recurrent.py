"""Recurrent encoders of a learner's networks: what they read, and their features in a batch.

Two goal modes (docs/recurrent.md): goals enter after the encoder ("late"), so that one scan serves
any goal and stored hidden states stay valid; or goals are part of the encoder's input ("early"), so
that a window has one goal throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import ENCODERS, HiddenState, SequenceEncoder, complete_encoder
from rlkit.networks.gradient import Metrics, State
from rlkit.networks.module import Head
from rlkit.offpolicy.extractor import BorrowingNetwork, ExtractorNetwork
from rlkit.offpolicy.heads import make_head
from rlkit.offpolicy.settings import ActorCritic, LearnerConfig, Sizes
from rlkit.offpolicy.transitions import at_every


@dataclass(frozen=True)
class RecurrentNetwork:
    """An encoder and the head that reads its features, with one parameter vector for both.

    One vector means one gradient, one target average and one norm to clip.

    Attributes:
        head: Its first input part is the features.
        encoder: The network's own encoder.
    """

    head: Head
    encoder: SequenceEncoder

    @property
    def size(self) -> int:
        """Length of the flat vector; the encoder's part comes first."""
        return self.encoder.size + self.head.size

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(size,)`; they share its memory."""
        encoder = self.encoder.views(vector[: self.encoder.size])
        head = self.head.views(vector[self.encoder.size :])
        return {f"encoder.{name}": view for name, view in encoder.items()} | head

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(size,)`."""
        head = self.head.initial_parameters(generator)
        return torch.cat([self.encoder.initial_parameters(generator), head])

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs `(N, B, outputs)` of the head for its input parts, features first."""
        return self.head(vector[self.encoder.size :], parts)


Network = Head | RecurrentNetwork | ExtractorNetwork | BorrowingNetwork


class RecurrentEncoder:
    """The recurrent encoder of a learner; each network has parameters of its own for it.

    Args:
        config: Which encoder, and how it is trained.
        sizes: Widths of observation, goal and action.
        generator: Source of dropout; hidden states live on its device.
        actor_critic: What actor and critics share.
        borrows: By name of a network, the one whose encoder it borrows unless sharing is separate.

    Attributes:
        encoder: The encoder, complete with its input width.
        features: D, the width of its output.
        reads_goal: Whether goals are part of its input.
        reads_reward: Whether previous rewards are, if only for critics.
        burn_in: Records at a window's start that only update the hidden state.
        rate_scale: Per network, what each parameter's learning rate is multiplied by.

    Raises:
        ValueError: If the encoder reads the future, and so cannot act.
    """

    def __init__(
        self,
        config: LearnerConfig,
        sizes: Sizes,
        generator: torch.Generator,
        actor_critic: ActorCritic,
        borrows: Mapping[str, str],
    ) -> None:
        self.config, self.sizes, self.generator = config, sizes, generator
        self.actor_critic, self.borrows = actor_critic, borrows
        self.device = generator.device
        self.reads_reward = config.previous_reward or actor_critic.critic_sees_reward
        self.reads_goal = config.goal_mode in ("early", "mixed")
        chosen = ENCODERS.make_optional(config.encoder)
        assert chosen is not None
        if not getattr(chosen, "causal", True):
            raise ValueError(
                f"encoder = {config.encoder!r} reads the future, so it cannot act; choose one that "
                f'steps, such as "gru"'
            )
        width = sizes.observation + (sizes.goal if self.reads_goal else 0)
        width += (sizes.action if config.previous_action else 0) + int(self.reads_reward)
        self.encoder = complete_encoder(chosen, width)
        self.features = self.encoder.features
        self.burn_in = config.burn_in
        self.rate_scale: dict[str, Tensor] = {}
        self._networks: Mapping[str, Network] = {}
        self._targets: Mapping[str, str] = {}
        self._acting = ""
        self._stepping: list[str] = []  # networks whose encoder steps along while acting

    # Networks

    def network(
        self, name: str, inputs: tuple[int, ...], outputs: int, members: int, layer_norm: bool
    ) -> Network:
        """A network that reads an encoder's features first and then `inputs`.

        Args:
            name: The network's name; one that borrows an encoder has none of its own, or the only
                one, according to `encoder_sharing`.
            inputs: Width of each part beside the features.
            outputs: Width of the output.
            members: Heads in the ensemble; they share one encoder.
            layer_norm: Whether the head has layer norm.
        """
        sharing, is_borrower = self.actor_critic.encoder_sharing, name in self.borrows
        has_features = is_borrower or sharing != "actor"
        has_encoder = has_features and (not is_borrower or sharing in ("separate", "actor"))
        width = self.features if has_features else 0
        head = make_head(self.config, name, (width, *inputs), outputs, members, layer_norm)
        return RecurrentNetwork(head, self.encoder) if has_encoder else head

    def attach(
        self, networks: Mapping[str, Network], targets: Mapping[str, str], acting: str
    ) -> None:
        """Registers the learner's networks.

        Args:
            networks: All of them, by name.
            targets: By name of a target network, the network that it follows.
            acting: The network that acts.

        Raises:
            ValueError: If encoders are to have a learning rate of their own, and the learner's
                begins at 0.
        """
        self._networks, self._targets, self._acting = networks, targets, acting
        self._stepping = [self._owner(acting) or acting]
        if self.config.start == "stored":
            trained = [n for n in networks if self._owner(n) == n and n not in targets]
            self._stepping += [name for name in trained if name not in self._stepping]
        rate, own = self.config.learning_rate, self.config.encoder_lr
        if own is None:
            return
        start = rate(1.0) if callable(rate) else rate
        if start == 0:
            raise ValueError(
                f"encoder_lr = {own} is kept in proportion to learning_rate, which begins at 0: "
                f"let it begin above 0, or leave encoder_lr out"
            )
        for name, network in networks.items():
            scale = torch.ones(network.size, device=self.device)
            if isinstance(network, RecurrentNetwork):
                scale[: self.encoder.size] = own / start
            self.rate_scale[name] = scale

    def _owner(self, name: str) -> str | None:
        """The network whose encoder a network reads: its own, a borrowed one, or none."""
        if isinstance(self._networks[name], RecurrentNetwork):
            return name
        lender = self.borrows.get(self._targets.get(name, name))
        if lender is None or name not in self._targets:
            return lender
        return next(target for target, source in self._targets.items() if source == lender)

    # Inputs

    def inputs(self, read: State) -> Tensor:
        """The encoder's input, `(..., I)`.

        Args:
            read: Scaled `observation (..., F)`, `goal (..., G)` where it is visible, else zeros,
                `previous_action (..., A)` or integers `(...)`, `previous_reward (...)` and
                `is_first (...)`, as the settings require. While acting, a reward that only critics
                read may be missing.
        """
        parts = [read["observation"]]
        if self.reads_goal:
            parts.append(read["goal"])
        continues = ~read["is_first"].unsqueeze(-1)
        if self.config.previous_action:
            parts.append(self.as_vector(read["previous_action"]) * continues)
        if self.reads_reward:
            reward = read.get("previous_reward", read["observation"].new_zeros(()))
            parts.append(symlog(reward).unsqueeze(-1) * continues)
        return torch.cat(parts, dim=-1)

    def inputs_of(self, name: str, x: Tensor) -> Tensor:
        """A network's part of inputs `(..., I)`: zeros for rewards that only critics read."""
        is_actor = self._targets.get(name, name) == self._acting
        if not self.actor_critic.critic_sees_reward or not is_actor:
            return x
        return F.pad(x[..., :-1], (0, 1))

    def window_inputs(self, batch: State) -> Tensor:
        """The encoder's input at all observations of windows, `(B, L, I)`; see `scan`."""
        if self.reads_goal:
            goal = at_every(batch["goal"], batch["observation"].shape[1])
            if "visible" in batch:
                goal = goal * batch["visible"].unsqueeze(-1)
            batch = {**batch, "goal": goal}
        return self.inputs(batch)

    def as_vector(self, action: Tensor) -> Tensor:
        """Actions `(..., A)` as they are, integers `(...)` or `(..., K)` one-hot."""
        if action.is_floating_point():
            return action
        if not self.sizes.choices:
            return F.one_hot(action.long(), self.sizes.action).float()
        parts = zip(action.long().unbind(-1), self.sizes.choices, strict=True)
        return torch.cat([F.one_hot(part, count) for part, count in parts], dim=-1).float()

    # Acting

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes: the previous action, then the encoders' own."""
        states = (self.encoder.initial(count, self.device) for _ in self._stepping)
        previous = torch.zeros(count, self.sizes.action, device=self.device)
        return (previous, *(part for state in states for part in state))

    def step(
        self, state: State, read: State, hidden_state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """One step of every encoder that steps while acting.

        Args:
            state: The learner's tensors.
            read: What `inputs` takes, without a time axis.
            hidden_state: From the step before.

        Returns:
            Features `(n, D)` of the network that acts, and the next hidden state.
        """
        x = self.inputs(read)
        features, after = [], [hidden_state[0]]
        for name, part in zip(self._stepping, self._parts(hidden_state[1:]), strict=True):
            vector, own = state[name][: self.encoder.size], self.inputs_of(name, x)
            feature, part = self.encoder.step(vector, own, part, read["is_first"])
            features.append(feature)
            after.extend(part)
        return features[0], tuple(after)

    def acted(self, hidden_state: HiddenState, action: Tensor) -> HiddenState:
        """The hidden state with the actions `(n, ...)` that were taken last."""
        return (self.as_vector(action).reshape(len(action), -1), *hidden_state[1:])

    def replay_options(self) -> dict[str, Any]:
        """Arguments of `ReplayBuffer` that windows for the encoder need."""
        config = self.config
        return {
            "window": config.window or None,
            "burn_in": config.burn_in,
            "goals": "window" if config.goal_mode == "early" else "step",
            "previous_action": config.previous_action,
            "previous_reward": self.reads_reward,
            "hidden_state": self.stored_shapes,
        }

    @cached_property
    def stored_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the hidden states that the replay buffer keeps per step, without batch axis."""
        if self.config.start != "stored":
            return ()
        return tuple(tuple(part.shape[1:]) for part in self.initial(1)[1:])

    @cached_property
    def _stored_dtypes(self) -> tuple[torch.dtype, ...]:
        # The replay buffer keeps numbers as float32; an encoder may count in integers.
        return tuple(part.dtype for part in self.initial(1)[1:])

    def _parts(self, hidden_states: HiddenState) -> list[HiddenState]:
        """The hidden state of each network that steps."""
        width = len(hidden_states) // len(self._stepping)
        return [hidden_states[i : i + width] for i in range(0, len(hidden_states), width)]

    # Learning

    def scan(
        self, state: State, batch: State, names: Iterable[str]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Features of networks at all observations of windows after the burn-in.

        Args:
            state: The learner's tensors.
            batch: As `GradientLearner.update` takes it, with observation and goal scaled.
            names: The networks.

        Returns:
            By name, the parameters `(size,)` to differentiate by and the features
            `(B, L - burn_in, D)`, None for a network without. Those of targets have no graph.
        """
        x = self.window_inputs(batch)
        scanned: dict[str, tuple[Tensor, Tensor]] = {}
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name in names:
            owner = self._owner(name)
            if owner is None:
                found[name] = (state[name], None)
                continue
            if owner not in scanned:
                scanned[owner] = self._scan(owner, state[owner], batch, self.inputs_of(owner, x))
            found[name] = scanned[owner]
            if owner != name:
                features = scanned[owner][1]
                is_joint = self.actor_critic.encoder_sharing == "joint"
                found[name] = (state[name], features if is_joint else features.detach())
        return found

    def _scan(self, name: str, vector: Tensor, batch: State, x: Tensor) -> tuple[Tensor, Tensor]:
        is_trained, burn_in = name not in self._targets, self.burn_in
        if is_trained:
            vector = vector.detach().requires_grad_()
        weights, hidden_state = vector[: self.encoder.size], self._first_state(batch, name)
        is_first = batch["is_first"]
        if burn_in > 0:
            before = x[:, :burn_in], hidden_state, is_first[:, :burn_in]
            with torch.no_grad():
                hidden_state = self.encoder.scan(weights, *before)[1]
        with torch.set_grad_enabled(is_trained):
            weights = vector[: self.encoder.size]
            dropout = self.generator if is_trained else None
            after = x[:, burn_in:], hidden_state, is_first[:, burn_in:]
            return vector, self.encoder.scan(weights, *after, dropout)[0]

    def _first_state(self, batch: State, name: str) -> HiddenState:
        if self.config.start != "stored":
            return self.encoder.initial(len(batch["reward"]), self.device)
        return self.stored(batch, name)

    def stored(self, batch: State, name: str) -> HiddenState:
        """The stored hidden state of a network, or its target, at the windows' beginning."""
        dtypes = enumerate(self._stored_dtypes)
        parts = tuple(batch[f"hidden_state.{i}"].to(dtype) for i, dtype in dtypes)
        return self._parts(parts)[self._stepping.index(self._targets.get(name, name))]

    def add_actor_gradient(
        self, grad: Tensor, actor_loss: Callable[[], tuple[Tensor, Any]], encoder_of: Tensor
    ) -> Tensor:
        """A critic's gradient plus the actor's at the encoder that they share, if trained jointly.

        Args:
            grad: The critic's gradient.
            actor_loss: The actor's loss, with the features of the shared encoder.
            encoder_of: Parameters of the critic that the features were computed from.
        """
        if self.actor_critic.encoder_sharing != "joint":
            return grad
        with torch.enable_grad():
            loss, _ = actor_loss()
        (of_actor,) = torch.autograd.grad(loss, encoder_of, retain_graph=True)
        return grad + of_actor

    def grad_norm(self, name: str, grad: Tensor) -> Metrics:
        """The norm of the encoder's part of a network's gradient, as a metric."""
        if not isinstance(self._networks[name], RecurrentNetwork):
            return {}
        return {f"encoder_grad_norm_{name}": grad[: self.encoder.size].norm()}


def symlog(x: Tensor) -> Tensor:
    """Compresses large numbers symmetrically (Hafner et al. 2023, equation 9)."""
    return x.sign() * x.abs().log1p()
