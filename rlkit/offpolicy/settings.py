"""Groups of settings. An agent's configuration is composed of those that it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from rlkit.networks import Optimiser
from rlkit.networks.encoders import SequenceEncoder
from rlkit.networks.torch_optimiser import TorchOptimiser, make_optimiser
from rlkit.offpolicy.network_settings import Networks
from rlkit.offpolicy.settings_group import Settings, one_of

Sharing = Literal["separate", "detached", "joint", "actor"]
GoalMode = Literal["late", "early", "mixed"]
Start = Literal["zero", "stored"]
ActorCritics = Literal["min", "mean", "first"]
GoalInput = Literal["absolute", "relative", "both"]


@dataclass(frozen=True)
class Sizes:
    """Widths of a learner's vectors.

    Attributes:
        observation: F, of the observation vector.
        goal: G, of the goal vector; 0 without goals.
        action: A: dimensions of a continuous action in [-1, 1], or number of discrete ones.
        choices: Number of choices of each component of a discrete action that has several, which
            add up to A; empty otherwise.
    """

    observation: int
    goal: int
    action: int
    choices: tuple[int, ...] = ()

    def of(self, observation: int, goal: int) -> Sizes:
        """The sizes with other widths of observation and goal."""
        return replace(self, observation=observation, goal=goal)


@dataclass(frozen=True)
class Optimisation(Settings):
    """How parameters follow gradients."""

    learning_rate: float = 3e-4
    """Step size of the optimiser, > 0."""
    final_learning_rate: float | None = None
    """Step size at the end of training, >= 0, reached linearly. None keeps it constant."""
    batch_size: int | None = None
    """Windows per update, >= 1; None is 32 with an encoder and 256 (DQN: 128) without."""
    optimiser: str | type[Any] = "adam"
    """Adam ("adam"; Kingma and Ba 2015), AdamW ("adamw"; Loshchilov and Hutter 2019), or another
    class of `torch.optim` by name; it sees each network as one vector."""
    optimiser_kwargs: Mapping[str, Any] | None = None
    """Arguments of the optimiser beside the learning rate, such as `betas`, `eps`, `momentum`."""
    weight_decay: float = 0.0
    """Weight decay of AdamW, or of another optimiser that has one, >= 0."""
    max_grad_norm: float | None = None
    """Largest gradient norm of one network, > 0; None does not clip."""
    policy_ema: float = 0.0
    """Decay per update of an exponential moving average of the weights of the network that acts, in
    [0, 1), such as 0.999; deterministic actions are the average's, and exploring ones the
    network's own. 0 keeps no average."""
    compile: bool = False
    """Compile the update into one graph. Pays off from about 20,000 updates on; not with an
    encoder."""

    default_batch_size: ClassVar[int] = 256

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        super().__post_init__()
        made = self.make_optimiser()  # refuses what it cannot be
        if self.compile and not isinstance(made, Optimiser):
            raise ValueError(
                f"compile = True goes with adam and adamw, whose steps are part of the graph, and "
                f"optimiser = {self.optimiser!r} is torch's own; set compile = False"
            )
        if self.final_learning_rate is not None and callable(self.learning_rate):
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate} does not go with a "
                f"learning_rate that is a schedule already; leave one of them out"
            )

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "learning_rate": ("> 0", callable(self.learning_rate) or self.learning_rate > 0),
            "final_learning_rate": (">= 0 or None", (self.final_learning_rate or 0) >= 0),
            "batch_size": (">= 1 or None", self.batch_size is None or self.batch_size >= 1),
            "max_grad_norm": ("> 0 or None", self.max_grad_norm is None or self.max_grad_norm > 0),
            "policy_ema": ("in [0, 1)", 0 <= self.policy_ema < 1),
        }

    def make_optimiser(self) -> Optimiser | TorchOptimiser:
        """The optimiser; see `rlkit.networks.torch_optimiser`."""
        return make_optimiser(self.optimiser, self.weight_decay, self.optimiser_kwargs)

    @property
    def schedule(self) -> Any:
        """The learning rate: a number, or a function of the remaining progress, 1 to 0."""
        start, end = self.learning_rate, self.final_learning_rate
        return start if end is None else lambda remaining: end + remaining * (start - end)

    @property
    def windows(self) -> int:
        """`batch_size`, or its default."""
        return self.default_batch_size if self.batch_size is None else self.batch_size


@dataclass(frozen=True)
class Values(Settings):
    """Critics and their targets."""

    gamma: float = 0.99
    """Discount of one step, in [0, 1]."""
    tau: float | None = None
    """Update coefficient of the target networks, in [0, 1]; None is 0.005 where targets are updated
    with every update, and 1 where they are updated less often."""
    target_update_interval: int = 1
    """Updates between updates of the target networks, >= 1."""
    critics: int = 2
    """Critics in the ensemble; targets use their minimum (Fujimoto et al. 2018), >= 1."""
    layer_norm: bool = False
    """Layer norm in the critics (Ball et al. 2023, section 4.2)."""
    bound_targets: bool = True
    """Clip value targets to the returns that the goal rule's rewards allow (Andrychowicz et al.
    2017, appendix A). No effect where those are unbounded."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "gamma": ("in [0, 1]", 0 <= self.gamma <= 1),
            "tau": ("in [0, 1] or None", self.tau is None or 0 <= self.tau <= 1),
            "target_update_interval": (">= 1", self.target_update_interval >= 1),
            "critics": (">= 1", self.critics >= 1),
        }

    @property
    def target_rate(self) -> float:
        """`tau`, or its default."""
        if self.tau is not None:
            return self.tau
        return 0.005 if self.target_update_interval == 1 else 1.0


@dataclass(frozen=True)
class Inputs(Settings):
    """What networks read."""

    normalise: bool = True
    """Scale observations and goals by running moments (Plappert et al. 2018, appendix)."""
    observe_achieved: bool = True
    """Whether networks read the achieved goal beside the observation. Switch it off where it would
    reveal what the observation hides, delays or blurs."""
    joint: bool = False
    """Train the latent model's encoder with the agent, by the critic's loss and by reconstruction
    (Yarats et al. 2021), instead of before. Needs an `autoencoder`. Inputs are not scaled then."""
    reconstruction: float = 1.0
    """Weight of the reconstruction in joint training, >= 0; 0 trains end to end, by the critic's
    loss alone."""
    goal_input: GoalInput = "absolute"
    """Whether networks read the goal, the goal minus the achieved goal ("relative"), or both."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "reconstruction": (">= 0", self.reconstruction >= 0),
            "goal_input": one_of(self.goal_input, *get_args(GoalInput)),
        }


@dataclass(frozen=True)
class Recurrence(Settings):
    """The recurrent encoder and its training windows. Without an encoder the rest is ignored."""

    encoder: str | Mapping[str, Any] | SequenceEncoder | None = None
    """Recurrent encoder: a name such as "gru", a table `{name = "gru", hidden = 128}`,
    "my_pkg.mod:Class", an encoder, or None (also "none") for a feed-forward agent."""
    encoder_lr: float | None = None
    """Step size of the encoders, > 0; None is `learning_rate`."""
    goal_mode: GoalMode | None = None
    """Where goals enter: after the encoder ("late": one goal per step, hidden states stay valid),
    or as its input ("early": one goal per window). None is early where the environment hides its
    goal for a while, else late. "mixed" feeds one goal per step to the encoder: a mistake, for
    comparison."""
    window: int = 32
    """Steps per training window, >= 1; 0 takes whole episodes."""
    burn_in: int = 0
    """Steps before each window that only update the hidden state (Kapturowski et al. 2019),
    >= 0."""
    start: Start | None = None
    """Hidden state at the beginning of a window: zero, or as it was when the step was taken
    ("stored"). None is stored where that is valid and small: where goals enter late, unless windows
    are whole episodes or the encoder's hidden state is a cache of past steps."""
    previous_action: bool = True
    """Whether the encoder reads the previous action."""
    previous_reward: bool = False
    """Whether the encoder reads the previous reward; needs goals that enter early."""

    @cached_property
    def is_recurrent(self) -> bool:
        """Whether there is an encoder."""
        chosen = self.encoder
        name = chosen.get("name", "") if isinstance(chosen, Mapping) else chosen
        return name is not None and not (isinstance(name, str) and name.lower() == "none")

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "encoder_lr": ("> 0 or None", self.encoder_lr is None or self.encoder_lr > 0),
            "goal_mode": one_of(self.goal_mode, *get_args(GoalMode), None),
            "window": (">= 0, where 0 takes whole episodes", self.window >= 0),
            "burn_in": (">= 0", self.burn_in >= 0),
            "start": one_of(self.start, *get_args(Start), None),
        }

    def __post_init__(self) -> None:
        """Refuses values out of range and combinations that contradict each other, by name."""
        super().__post_init__()
        if not self.is_recurrent:
            return
        if self.window == 0 and self.burn_in > 0:
            raise ValueError(
                f"burn_in = {self.burn_in} does not go with window = 0: nothing comes before whole "
                f"episodes; set one of them"
            )
        if self.previous_reward and self.goal_mode in ("late", "mixed"):
            raise ValueError(
                f'previous_reward = True does not go with goal_mode = "{self.goal_mode}": rewards '
                f'depend on the goal, and so would the hidden state; set goal_mode = "early"'
            )
        if self.start == "stored" and self.goal_mode in ("early", "mixed"):
            raise ValueError(
                f'start = "stored" does not go with goal_mode = "{self.goal_mode}": stored hidden '
                f'states depend on the original goal, which hindsight replaces; set start = "zero"'
            )


@dataclass(frozen=True)
class ActorCritic(Settings):
    """How actor and critics differ in what they read, and how an actor explores."""

    random_fraction: float = 0.0
    """Share of training actions drawn uniformly at random, in [0, 1]."""
    coloured_noise: float = 0.0
    """Correlation of Gaussian exploration noise from one step to the next, in [0, 1): above 0 an
    agent explores in one direction for a while (Eberhard et al. 2023 on why that helps)."""
    critic_sees_goal: bool = False
    """Whether critics read the goal even while it is hidden from the actor (Pinto et al. 2018):
    critics are used in training alone, where rewards reveal the goal anyway."""
    critic_sees_reward: bool = False
    """Whether the critics' encoder reads the previous reward although the actor's does not (Pinto
    et al. 2018): a reward may reveal what the observation hides. Needs separate encoders, and
    goals, if there are any, that enter early."""
    encoder_sharing: Sharing = "separate"
    """Whether actor and critic have encoders of their own ("separate"), or the actor reads the
    critic's without training it ("detached"; Yarats et al. 2021) or trains it, too ("joint": the
    common mistake, for comparison). "actor": critics have none, for tasks where a critic needs none
    because of `critic_sees_goal`."""
    target_critics: int | None = None
    """How many critics, drawn anew for every update, targets take the minimum of (Chen et al. 2021,
    "Randomized Ensembled Double Q-Learning", section 3), 1 to `critics`; None takes all."""
    actor_critics: ActorCritics = "min"
    """Which value of its actions an actor maximises: the minimum of all critics, their mean (Chen
    et al. 2021), or the first critic's."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {
            "random_fraction": ("in [0, 1]", 0 <= self.random_fraction <= 1),
            "coloured_noise": ("in [0, 1)", 0 <= self.coloured_noise < 1),
            "encoder_sharing": one_of(self.encoder_sharing, *get_args(Sharing)),
            "target_critics": (
                ">= 1 or None",
                self.target_critics is None or self.target_critics >= 1,
            ),
            "actor_critics": one_of(self.actor_critics, *get_args(ActorCritics)),
        }


@dataclass(frozen=True)
class Imitation(Settings):
    """Learning from how goals were achieved, beside learning by values."""

    imitation: float = 0.0
    """Weight of imitating the actions that led to goals of hindsight, >= 0. A step counts
    `gamma` to the power of the steps until its goal was achieved, where that is known."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {"imitation": (">= 0", self.imitation >= 0)}


@dataclass(frozen=True)
class LearnerConfig(Optimisation, Values, Networks, Inputs, Imitation, Recurrence):
    """Settings of every agent that updates networks on batches of replayed experience."""

    def __post_init__(self) -> None:
        """Refuses values out of range and combinations that contradict each other, by name."""
        super().__post_init__()
        if self.joint and self.compile:
            raise ValueError(
                "compile = True does not go with joint = True, whose updates take their time in "
                "convolutions, which are compiled already; set compile = False"
            )
        if self.features_extractor is not None and self.joint:
            raise ValueError(
                "features_extractor does not go with joint = True, which is an encoder of images "
                "already; leave one of them out"
            )
        if self.features_extractor is not None and self.goal_input != "absolute":
            raise ValueError(
                f'goal_input = "{self.goal_input}" does not go with features_extractor, which '
                f'reads goals as they are; set goal_input = "absolute"'
            )
        if self.has_modules and self.compile:
            raise ValueError(
                "compile = True does not go with modules of torch as features_extractor or "
                "network: they run as they are; set compile = False"
            )
        if self.is_recurrent and self.features_extractor is not None:
            raise ValueError(
                f"features_extractor does not go with encoder = {self.encoder!r}: write an encoder "
                f"that contains it (docs/custom_encoder.md), or encode images by a latent model"
            )
        own_rate = self.is_recurrent and self.encoder_lr is not None
        if own_rate and not isinstance(self.make_optimiser(), Optimiser):
            raise ValueError(
                f"encoder_lr does not go with optimiser = {self.optimiser!r}, which has one "
                f'learning rate; leave it out, or use "adam" or "adamw"'
            )
        if self.is_recurrent and self.compile:
            raise ValueError(
                "compile = True does not go with an encoder: a graph of every step of a window "
                "would take minutes to build; set compile = False"
            )

    @property
    def windows(self) -> int:
        """`batch_size`, or its default: fewer windows where each has many steps."""
        return 32 if self.is_recurrent and self.batch_size is None else super().windows


@dataclass(frozen=True)
class ActorCriticConfig(LearnerConfig, ActorCritic):
    """Settings of agents with an actor beside their critics."""

    def __post_init__(self) -> None:
        """Refuses values out of range and combinations that contradict each other, by name."""
        super().__post_init__()
        if self.target_critics is not None and self.target_critics > self.critics:
            raise ValueError(
                f"target_critics = {self.target_critics} must be at most critics = {self.critics}"
            )
        separate = self.encoder_sharing == "separate"
        if self.is_recurrent and self.critic_sees_reward and not separate:
            raise ValueError(
                f"critic_sees_reward = True does not go with encoder_sharing = "
                f'"{self.encoder_sharing}": the actor would read the critic\'s features, or the '
                f'critic has no encoder; set encoder_sharing = "separate"'
            )
