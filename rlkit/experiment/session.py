"""A recipe brought to life: environments and agent, and the way to and from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlkit.experiment.evaluate import EvaluationResult, evaluate
from rlkit.experiment.recipe import Recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals import GoalRule, goal_rule, is_goal_space
from rlkit.goals.check import check_goal_env
from rlkit.io.checkpoint import CheckpointError, load_latest, read_checkpoint, saved_steps
from rlkit.names import require_known
from rlkit.plugins import AGENTS
from rlkit.vec.vec_env import GymVecEnv, MakeEnv, make_vec_env
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
    _examination: VecEnv | None = None

    @classmethod
    def build(cls, recipe: Recipe, make: MakeEnv, *, check: bool = False) -> Session:
        """Builds what a recipe names.

        Args:
            recipe: The recipe.
            make: Builds environments.
            check: Whether the environment is examined for defects first.

        Raises:
            ValueError: If the agent, an option or the environment is unknown or unfit.
        """
        agent_class = AGENTS.load(recipe.agent)
        _require_options(agent_class, recipe)
        torch.set_num_threads(recipe.threads)
        rule = _inspect(recipe, make, check=check)
        venv = _environments(recipe, make, recipe.num_envs, recipe.seed)
        policy = (
            "MultiInputPolicy" if isinstance(venv.observation_space, spaces.Dict) else "MlpPolicy"
        )
        try:
            agent = agent_class(
                policy, venv, seed=recipe.seed, device=recipe.device, **recipe.agent_options
            )
        except (TypeError, AssertionError) as error:  # SB3 asserts what its users may get wrong
            raise ValueError(
                f"agent {recipe.agent!r} cannot be built for {recipe.env}: {error}"
            ) from error
        return cls(recipe, make, venv, agent, rule)

    @classmethod
    def load(cls, run: RunFolder, make: MakeEnv, checkpoint: str = "last") -> tuple[Session, int]:
        """Builds the session of a run and restores a checkpoint; also returns its step.

        Args:
            run: The run.
            make: Builds environments.
            checkpoint: "last", "best", or a step's number.

        Raises:
            ValueError: If there is no such checkpoint.
            CheckpointError: If it cannot be loaded, or its spaces are not the environment's.
        """
        step, tree = _find_checkpoint(run, checkpoint)
        session = cls.build(run.recipe(), make)
        session.restore(tree)
        return session, step

    def tree(self, **driver: Any) -> dict[str, Any]:
        """Everything a checkpoint holds: the agent's state, and `driver` under that key."""
        origin = {"rlkit": VERSION, "agent": self.recipe.agent, "spaces": self._spaces()}
        return {**self.agent.state_dict(), "driver": {**origin, **driver}}

    def restore(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Continues from `tree()`; returns its driver part.

        Raises:
            CheckpointError: If it belongs to another agent or to other spaces.
        """
        driver = tree.get("driver")
        if not isinstance(driver, dict) or driver.get("agent") != self.recipe.agent:
            raise CheckpointError(f"the checkpoint is foreign: not of agent {self.recipe.agent!r}")
        for kind, here in self._spaces().items():
            saved = driver.get("spaces", {}).get(kind)
            if saved != here:
                raise CheckpointError(
                    f"the {kind} space has changed: the checkpoint was saved with {saved}, "
                    f"{self.recipe.env} now has {here}. Load it with the environment, and its "
                    f"options, as they were."
                )
        try:
            self.agent.load_state_dict({key: tree[key] for key in tree if key != "driver"})
        except KeyError as error:
            raise CheckpointError(
                f"the checkpoint lacks {error}: {not_readable('it', driver.get('rlkit'))}"
            ) from error
        return driver

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Plays held-out episodes; see `rlkit.experiment.evaluate`."""
        if self._examination is None:
            # Vector environments are nearly free; others pay for each environment that is built.
            native = isinstance(self.venv, GymVecEnv)
            count = min(episodes, _NATIVE_EVALUATION_ENVS if native else _EVALUATION_ENVS)
            self._examination = _environments(self.recipe, self.make, count)
        return evaluate(self.agent, self._examination, episodes, seed + self.recipe.seed, self.rule)

    def close(self) -> None:
        """Closes the environments."""
        self.venv.close()
        if self._examination is not None:
            self._examination.close()

    def _spaces(self) -> dict[str, str]:
        return {
            "observation": str(self.venv.observation_space),
            "action": str(self.venv.action_space),
        }


def _environments(recipe: Recipe, make: MakeEnv, count: int, seed: int | None = None) -> VecEnv:
    return make_vec_env(
        make,
        recipe.env,
        count,
        seed,
        subprocess=recipe.subprocess,
        worker_timeout_s=recipe.worker_timeout_s,
        **recipe.env_options,
    )


def _require_options(agent_class: type[Any], recipe: Recipe) -> None:
    if not hasattr(agent_class, "option_names"):
        return  # an agent of the user's own may leave the complaint to its constructor
    require_known(f"agent {recipe.agent!r}", recipe.agent_options, agent_class.option_names())


def _inspect(recipe: Recipe, make: MakeEnv, *, check: bool) -> GoalRule | None:
    try:
        env = make(recipe.env, **recipe.env_options)
    except TypeError as error:
        raise ValueError(
            f"{recipe.env} does not take env_options {recipe.env_options}: {error}"
        ) from error
    has_goals = is_goal_space(env.observation_space)
    try:
        if recipe.goals and not has_goals:
            raise ValueError(
                f"{recipe.env} has no goals: its observation space is {env.observation_space}. "
                f"Give it goals with rlkit.goals.GoalWrapper, or train without hindsight: "
                f"the recipes plain and plain-discrete, or --set goals=false"
            )
        if check:
            problems = [p for p in check_goal_env(env, episodes=1) if not p.note]
            if problems:
                found = "\n".join(f"  {problem}" for problem in problems)
                raise ValueError(
                    f"{recipe.env} would spoil the training:\n{found}\n"
                    f"`rlkit check-env` looks closer; --set check_env=false trains all the same."
                )
        return goal_rule(env) if has_goals else None
    finally:
        env.close()


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
