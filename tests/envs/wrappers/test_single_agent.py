import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from rlkit.envs.wrappers.single_agent import SingleAgent, random_action


class Countdown:
    """Two players in turn take 1 or 2 from a heap; every taking pays the other player its size.

    It has PettingZoo's AEC interface, including the last turn of each player after the end.
    """

    possible_agents = ("first", "second")
    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self):
        self.actions = []
        self.seeds = []

    def observation_space(self, agent):
        return spaces.Dict(
            observation=spaces.Box(0, 100, (1,), np.float32),
            action_mask=spaces.Box(0, 1, (2,), np.int8),
        )

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.heap = int(np.random.default_rng(seed).integers(4, 8))
        self.agents = list(self.possible_agents)
        self.agent_selection = "first"
        self._pay = dict.fromkeys(self.agents, 0.0)

    def last(self):
        observation = {
            "observation": np.array([self.heap], np.float32),
            "action_mask": np.array([1, self.heap > 1], np.int8),
        }
        return observation, self._pay[self.agent_selection], self.heap == 0, False, {}

    def step(self, action):
        me = self.agent_selection
        self.agent_selection = "second" if me == "first" else "first"
        self._pay[me] = 0.0
        if self.heap == 0:
            assert action is None, "the turn after the end takes None"
            self.agents.remove(me)
            return
        self.actions.append((me, int(action)))
        self.heap -= int(action) + 1
        assert self.heap >= 0, "an illegal action"
        self._pay[self.agent_selection] += float(action) + 1

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        pass


def take_one(observation, space, generator):
    return 0


def test_a_step_lasts_from_turn_to_turn_and_pays_what_came_between():
    game = Countdown()
    env = SingleAgent(game, others=take_one)
    env.reset(seed=0)
    game.heap = 6
    observation, reward, terminated, truncated, _ = env.step(1)
    assert game.actions == [("first", 1), ("second", 0)]
    assert (reward, terminated, truncated) == (1.0, False, False)
    assert observation["observation"] == [3]


@pytest.mark.parametrize(("agent", "heap"), [("first", 2), ("first", 3), ("second", 3)])
def test_an_episode_ends_for_the_agent_whoever_ends_it(agent, heap):
    game = Countdown()
    env = SingleAgent(game, agent, take_one)
    env.reset(seed=1)
    game.heap = heap
    *_, terminated, truncated, _ = env.step(1)
    assert (game.heap, terminated, truncated) == (0, True, False)
    env.reset()
    assert game.agents == ["first", "second"]


def test_the_second_agent_begins_at_its_first_turn():
    game = Countdown()
    env = SingleAgent(game, "second", take_one)
    observation, _ = env.reset(seed=2)
    assert game.actions == [("first", 0)]
    assert observation["observation"] == [game.heap]


def test_others_draw_legal_actions_of_both_kinds():
    generator = np.random.default_rng(0)
    masked = {"action_mask": np.array([0, 1, 0, 1], np.int8)}
    drawn = {int(random_action(masked, spaces.Discrete(4), generator)) for _ in range(50)}
    assert drawn == {1, 3}
    free = {int(random_action(np.zeros(1), spaces.Discrete(3), generator)) for _ in range(50)}
    assert free == {0, 1, 2}


def test_episodes_without_a_seed_differ_and_repeat_with_the_first_one():
    games = Countdown(), Countdown()
    for game in games:
        env = SingleAgent(game)
        env.reset(seed=3)
        for _ in range(3):
            env.reset()
    assert games[0].seeds == games[1].seeds
    assert len(set(games[0].seeds)) == 4


def test_it_keeps_gymnasiums_contract():
    check_env(SingleAgent(Countdown()), skip_render_check=True)


def test_an_unknown_agent_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no agent 'third'; .* has first, second"):
        SingleAgent(Countdown(), "third")


@pytest.mark.slow
def test_tic_tac_toe_of_pettingzoo():
    pytest.importorskip("pygame")
    tictactoe = pytest.importorskip("pettingzoo.classic.tictactoe_v3")
    env = SingleAgent(tictactoe.env())
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        terminated = False
        while not terminated:
            action = int(np.flatnonzero(observation["action_mask"])[0])
            observation, reward, terminated, _, _ = env.step(action)
        assert reward in (-1.0, 0.0, 1.0)
