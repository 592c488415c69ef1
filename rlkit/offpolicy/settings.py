"""Settings that every learner has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

from rlkit.networks.encoders import SequenceEncoder

Sharing = Literal["separate", "detached", "joint", "actor"]
GoalMode = Literal["late", "early", "mixed"]
Start = Literal["zero", "stored"]


@dataclass(frozen=True)
class Sizes:
    """Widths of what a learner sees and does.

    Attributes:
        observation: F, of the observation vector.
        goal: G, of the goal vector; 0 without goals.
        action: A: dimensions of a continuous action in [-1, 1], or number of discrete ones.
    """

    observation: int
    goal: int
    action: int


@dataclass(frozen=True)
class LearnerConfig:
    """Settings that every learner has."""

    learning_rate: float = 3e-4
    """Adam's step size, > 0."""
    final_learning_rate: float | None = None
    """Adam's step size when the training ends, >= 0: it goes there in a line. None keeps it."""
    batch_size: int | None = None
    """Windows per update, >= 1; None is 32 with an encoder and 256 (DQN: 128) without."""
    gamma: float = 0.99
    """Discount of one step, in [0, 1]."""
    tau: float | None = None
    """Share of the way that the target goes at each refresh, in (0, 1]; None is 0.005 where every
    update refreshes it, and all of the way where refreshes are rarer."""
    target_update_interval: int = 1
    """Updates between refreshes of the target, >= 1."""
    net_arch: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    critics: int = 2
    """Critics in the ensemble; the target takes their minimum (Fujimoto et al. 2018), >= 1."""
    layer_norm: bool = False
    """Layer norm in the critics (Ball et al. 2023, section 4.2)."""
    normalise: bool = True
    """Scale observations and goals by running moments (Plappert et al. 2018, appendix)."""
    observe_achieved: bool = True
    """Whether networks read the achieved goal beside the observation; switch it off where it would
    show what the observation hides, delays or blurs."""
    bound_targets: bool = True
    """Clip value targets to the returns that the goal rule's rewards allow (Andrychowicz et al.
    2017, appendix A); without effect where those are unbounded."""
    critic_sees_goal: bool = False
    """Whether critics read the goal even while it is hidden from the actor (Pinto et al. 2018):
    critics are for training alone, where rewards tell the goal anyway. Not for DQN, whose critic
    acts."""
    random_fraction: float = 0.0
    """Share of training actions drawn uniformly at random, in [0, 1]."""
    coloured_noise: float = 0.0
    """Correlation of Gaussian exploration noise from one step to the next, in [0, 1): above 0 an
    agent keeps trying in one direction for a while (Eberhard et al. 2023 on why that helps)."""
    max_grad_norm: float | None = None
    """Longest gradient of one network, > 0; None does not clip."""
    joint: bool = False
    """Train the latent's encoder with the agent, by the critic's loss and by reconstruction (Yarats
    et al. 2021), in the place of fitting it before; needs an `autoencoder`. Inputs are not scaled
    then."""
    reconstruction: float = 1.0
    """Weight of the reconstruction in joint training, >= 0; 0 learns end to end, by the critic's
    loss alone."""
    compile: bool = False
    """Compile the update into one graph; pays off from some 20,000 updates on. Not with memory."""

    encoder: str | Mapping[str, Any] | SequenceEncoder | None = None
    """Memory: a name such as "gru", a table `{name = "gru", hidden = 128}`, "my_pkg.mod:Class", an
    encoder, or None (also "none") for an agent without. What follows matters only with memory."""
    encoder_lr: float | None = None
    """Adam's step size for the encoders, > 0; None is `learning_rate`."""
    encoder_sharing: Sharing = "separate"
    """Whether actor and critic have encoders of their own ("separate"), or the actor reads the
    critic's without bending it ("detached"; Yarats et al. 2021) or bending it, too ("joint": the
    common mistake, here for comparison). "actor": critics have none, for where a critic needs none
    because `critic_sees_goal`."""
    goal_mode: GoalMode | None = None
    """Where goals join: after the memory ("late": one goal per step, carries stay valid), or as its
    input ("early": one goal per window). None is early where the environment hides its goal for a
    while, else late. "mixed" has one goal per step as its input: a mistake, here for comparison."""
    window: int = 32
    """Steps per training window, >= 1; 0 takes whole episodes."""
    burn_in: int = 0
    """Steps before each window that only warm the memory up (Kapturowski et al. 2019), >= 0."""
    start: Start | None = None
    """Memory at the beginning of a window: fresh ("zero"), or as it was when the step was taken
    ("stored"). None is stored where that is right and small: where goals join late, unless windows
    are whole episodes, or the encoder carries a cache of past steps."""
    previous_action: bool = True
    """Whether the memory reads the previous action."""
    previous_reward: bool = False
    """Whether the memory reads the previous reward; needs goals that join early."""
    critic_sees_reward: bool = False
    """Whether the critics' memory reads the previous reward even though the actor's does not (Pinto
    et al. 2018): critics are for training alone, and a reward may tell what the observation hides.
    Needs separate encoders, and goals, if there are any, that join early. Not for DQN, whose critic
    acts."""

    default_batch_size: ClassVar[int] = 256

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        check_kinds(self)
        checks = {
            "learning_rate": ("> 0", callable(self.learning_rate) or self.learning_rate > 0),
            "final_learning_rate": (">= 0 or None", (self.final_learning_rate or 0) >= 0),
            "batch_size": (">= 1 or None", self.batch_size is None or self.batch_size >= 1),
            "gamma": ("in [0, 1]", 0 <= self.gamma <= 1),
            "tau": ("in (0, 1] or None", self.tau is None or 0 < self.tau <= 1),
            "target_update_interval": (">= 1", self.target_update_interval >= 1),
            "net_arch": ("a list of widths >= 1", all(width >= 1 for width in self.net_arch)),
            "critics": (">= 1", self.critics >= 1),
            "random_fraction": ("in [0, 1]", 0 <= self.random_fraction <= 1),
            "coloured_noise": ("in [0, 1)", 0 <= self.coloured_noise < 1),
            "reconstruction": (">= 0", self.reconstruction >= 0),
            "max_grad_norm": ("> 0 or None", self.max_grad_norm is None or self.max_grad_norm > 0),
            "encoder_lr": ("> 0 or None", self.encoder_lr is None or self.encoder_lr > 0),
            "encoder_sharing": _one_of(self.encoder_sharing, *get_args(Sharing)),
            "goal_mode": _one_of(self.goal_mode, *get_args(GoalMode), None),
            "window": (">= 0, where 0 takes whole episodes", self.window >= 0),
            "burn_in": (">= 0", self.burn_in >= 0),
            "start": _one_of(self.start, *get_args(Start), None),
        }
        for name, (allowed, fine) in checks.items():
            if not fine:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be {allowed}")
        if self.final_learning_rate is not None and callable(self.learning_rate):
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate} does not go with a "
                f"learning_rate that is a schedule already; leave one of them out"
            )
        if self.joint and self.compile:
            raise ValueError(
                "compile = True does not go with joint = True, whose updates take their time in "
                "convolutions, which are compiled already; set compile = False"
            )
        if self.has_memory:
            self._check_memory()

    def _check_memory(self) -> None:
        if self.compile:
            raise ValueError(
                "compile = True does not go with an encoder: a graph of every step of a window "
                "would take minutes to build; set compile = False"
            )
        if self.window == 0 and self.burn_in > 0:
            raise ValueError(
                f"burn_in = {self.burn_in} does not go with window = 0: whole episodes begin where "
                f"memory does; set one of them"
            )
        if self.previous_reward and self.goal_mode in ("late", "mixed"):
            raise ValueError(
                f'previous_reward = True does not go with goal_mode = "{self.goal_mode}": rewards '
                f'depend on the goal, and so would the memory; set goal_mode = "early"'
            )
        if self.critic_sees_reward and self.encoder_sharing != "separate":
            raise ValueError(
                f"critic_sees_reward = True does not go with encoder_sharing = "
                f'"{self.encoder_sharing}": the actor would read what the critic remembers, or the '
                f'critic remembers nothing; set encoder_sharing = "separate"'
            )
        if self.start == "stored" and self.goal_mode in ("early", "mixed"):
            raise ValueError(
                f'start = "stored" does not go with goal_mode = "{self.goal_mode}": stored memory '
                f'depends on the original goals, and hindsight exchanges it; set start = "zero"'
            )

    @property
    def schedule(self) -> Any:
        """The learning rate: a number, or a function of what remains of the training, 1 to 0."""
        start, end = self.learning_rate, self.final_learning_rate
        return start if end is None else lambda remaining: end + remaining * (start - end)

    @property
    def has_memory(self) -> bool:
        """Whether there is an encoder."""
        chosen = self.encoder
        name = chosen.get("name", "") if isinstance(chosen, Mapping) else chosen
        return name is not None and not (isinstance(name, str) and name.lower() == "none")

    @property
    def windows(self) -> int:
        """`batch_size`, or what None stands for."""
        if self.batch_size is not None:
            return self.batch_size
        return 32 if self.has_memory else self.default_batch_size

    @property
    def refresh_share(self) -> float:
        """`tau`, or what None stands for."""
        if self.tau is not None:
            return self.tau
        return 0.005 if self.target_update_interval == 1 else 1.0


def check_kinds(config: Any) -> None:
    """Refuses a configuration's booleans and numbers that are none, by name."""
    # A string is true and 1.5 is >= 1: what a recipe misspells would be taken for something.
    kinds = {
        "bool": ("true or false", bool),
        "int": ("a whole number", Integral),
        "float": ("a number", Real),
    }
    for field in fields(config):
        value = getattr(config, field.name)
        kind, or_none, _ = str(field.type).partition(" | None")
        if kind not in kinds or callable(value) or (value is None and or_none):
            continue
        allowed, kept = kinds[kind]
        if not isinstance(value, kept) or isinstance(value, bool) != (kind == "bool"):
            raise ValueError(f"{field.name} = {value!r} must be {allowed}")


def _one_of(value: Any, *allowed: Any) -> tuple[str, bool]:
    return f"one of {list(allowed)}", value in allowed
