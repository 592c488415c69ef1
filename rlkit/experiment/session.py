"""The environments and the agent of a recipe, and their state for checkpoints."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlkit.experiment.env_check import inspect_env
from rlkit.experiment.evaluate import EvaluationResult, evaluate
from rlkit.experiment.recipe import Recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.stop_requests import StopRequest
from rlkit.goals import GoalRule, is_goal_space
from rlkit.io.checkpoint import CheckpointError, load_latest, read_checkpoint, saved_steps
from rlkit.names import require_known
from rlkit.plugins import AGENTS
from rlkit.trust import trusted_files
from rlkit.vec.vec_env import GymVecEnv, MakeEnv, make_vec_env, vec_goal_rule
from rlkit.version import VERSION, not_readable

_EVALUATION_ENVS = 8
_NATIVE_EVALUATION_ENVS = 128


@dataclass
class Session:
    """Environments and agent of a recipe; building one writes nothing to disk.

    Attributes:
        recipe: What is trained, and how.
        make: Builds environments.
        venv: The environments that the agent trains in.
        agent: The agent.
        rule: The environment's goal rule, or None without goals.
    """

    recipe: Recipe
    make: MakeEnv
    venv: VecEnv
    agent: Any
    rule: GoalRule | None
    _evaluation_venv: VecEnv | None = None

    @classmethod
    def build(cls, recipe: Recipe, make: MakeEnv, *, check: bool = False) -> Session:
        """Builds what a recipe names.

        Args:
            recipe: The recipe.
            make: Builds environments.
            check: Whether the environment is checked for defects first.

        Raises:
            ValueError: If the agent, an option or the environment is unknown or unsuitable.
        """
        agent_class = AGENTS.load(recipe.agent)
        _require_options(agent_class, recipe)
        torch.set_num_threads(recipe.threads)
        inspect_env(recipe, make, check=check)
        venv = _environments(recipe, make, recipe.num_envs, recipe.seed)
        policy = (
            "MultiInputPolicy" if isinstance(venv.observation_space, spaces.Dict) else "MlpPolicy"
        )
        try:
            agent = agent_class(
                policy, venv, seed=recipe.seed, device=recipe.device, **recipe.agent_options
            )
        except (TypeError, AssertionError) as error:  # SB3 asserts what users pass to it
            raise ValueError(
                f"agent {recipe.agent!r} cannot be built for {recipe.env}: {error}"
            ) from error
        has_goals = is_goal_space(venv.observation_space)
        return cls(recipe, make, venv, agent, vec_goal_rule(venv) if has_goals else None)

    @classmethod
    def load(
        cls, run: RunFolder, make: MakeEnv, checkpoint: str = "last", *, trust: bool = False
    ) -> tuple[Session, int]:
        """Builds the session of a run and restores a checkpoint; also returns its step.

        Args:
            run: The run.
            make: Builds environments.
            checkpoint: "last", "best", or a step's number.
            trust: Whether the run's files may name any class, which is then imported.

        Raises:
            UntrustedError: If they name others than installed ones and are not trusted.
            ValueError: If there is no such checkpoint.
            CheckpointError: If it cannot be loaded, or its spaces are not the environment's.
        """
        step, state = _find_checkpoint(run, checkpoint)
        with trusted_files(trust):
            session = cls.build(run.recipe(), make)
            session.load_state_dict(state)
        return session, step

    def state_dict(self, **facts: Any) -> dict[str, Any]:
        """The state for a checkpoint: the agent's, and under "session" its origin and `facts`."""
        origin = {"rlkit": VERSION, "agent": self.recipe.agent, "spaces": self._spaces()}
        return {**self.agent.state_dict(), "session": {**origin, **facts}}

    def load_state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """Restores `state_dict()`; returns its part "session".

        Raises:
            CheckpointError: If it belongs to another agent or to other spaces.
        """
        facts = state.get("session")
        if not isinstance(facts, dict) or facts.get("agent") != self.recipe.agent:
            raise CheckpointError(f"the checkpoint is foreign: not of agent {self.recipe.agent!r}")
        for kind, current in self._spaces().items():
            saved = facts.get("spaces", {}).get(kind)
            if saved != current:
                raise CheckpointError(
                    f"the {kind} space has changed: the checkpoint was saved with {saved}, "
                    f"{self.recipe.env} now has {current}. Load it with the environment and the "
                    f"options of that training."
                )
        try:
            self.agent.load_state_dict({key: state[key] for key in state if key != "session"})
        except KeyError as error:
            raise CheckpointError(
                f"the checkpoint lacks {error}: {not_readable('it', facts.get('rlkit'))}"
            ) from error
        return facts

    def evaluate(
        self, episodes: int, seed: int, stop: StopRequest | None = None
    ) -> EvaluationResult:
        """Evaluates the agent on held-out episodes; see `rlkit.experiment.evaluate`."""
        if self._evaluation_venv is None:
            # A native vector environment costs little per environment; others are built one by one.
            native = isinstance(self.venv, GymVecEnv)
            count = min(episodes, _NATIVE_EVALUATION_ENVS if native else _EVALUATION_ENVS)
            self._evaluation_venv = _environments(self.recipe, self.make, count)
        first, limit = seed + self.recipe.seed, self.recipe.evaluation.max_steps
        return evaluate(self.agent, self._evaluation_venv, episodes, first, self.rule, stop, limit)

    def index_of(self, trail: object) -> int:
        """Number of the environment that a trail belongs to; 0 where that is unknown."""
        for venv in (self.venv, self._evaluation_venv):
            for index, env in enumerate(getattr(venv, "envs", ())):
                if getattr(env, "trail", None) is trail:
                    return index
        return 0

    def renew_environments(self) -> bool:
        """Replaces environments that have failed and cuts their episodes; returns success.

        Raises:
            Exception: Whatever the new environments raise when they are built and reset.
        """
        restart = getattr(self.agent, "restart_episodes", None)
        if restart is None:
            return False
        _close(self.venv)
        self.venv = _environments(self.recipe, self.make, self.recipe.num_envs)
        restart(self.venv)
        return True

    def close(self) -> None:
        """Closes the environments; a failure is a warning, since all that counts is saved."""
        _close(self.venv)
        if self._evaluation_venv is not None:
            _close(self._evaluation_venv)

    def _spaces(self) -> dict[str, str]:
        return {
            "observation": str(self.venv.observation_space),
            "action": str(self.venv.action_space),
        }


def _close(venv: VecEnv) -> None:
    try:
        venv.close()
    except Exception as error:
        warnings.warn(
            f"the environments could not be closed: {type(error).__name__}: {error}", stacklevel=2
        )


def _environments(recipe: Recipe, make: MakeEnv, count: int, seed: int | None = None) -> VecEnv:
    return make_vec_env(
        make,
        recipe.env,
        count,
        seed,
        action_repeat=recipe.action_repeat,
        subprocess=recipe.subprocess,
        worker_timeout_s=recipe.worker_timeout_s,
        **recipe.env_options,
    )


def _require_options(agent_class: type[Any], recipe: Recipe) -> None:
    if not hasattr(agent_class, "option_names"):
        return  # the constructor of a user's agent then refuses unknown options
    require_known(f"agent {recipe.agent!r}", recipe.agent_options, agent_class.option_names())


def _find_checkpoint(run: RunFolder, which: str) -> tuple[int, dict[str, Any]]:
    if which == "last":
        latest = load_latest(run.checkpoints)
        if latest is None:
            raise ValueError(f"{str(run.path)!r} has no checkpoint yet; train it further")
        return latest
    step = run.best_step() if which == "best" else int(which) if which.isdecimal() else None
    if step is None or step not in saved_steps(run.checkpoints):
        raise ValueError(
            f"{str(run.path)!r} has no checkpoint {which!r}. There are: last, best, "
            f"{', '.join(map(str, saved_steps(run.checkpoints)))}"
        )
    return step, read_checkpoint(run.checkpoints / f"step-{step}")
