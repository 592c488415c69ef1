"""Models of other kinds fit the contract: without a flat vector, and without steps."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from imagined import Records

from rlkit.world import (
    Episodes,
    Imagined,
    Layout,
    OpenLoop,
    Widths,
    World,
    check_world,
)
from rlkit.world.models.parametric import Markov, unroll_whole


@dataclass(frozen=True)
class Integrator(Markov):
    """Predicts all steps at once: the drift and what actions push, summed up over time."""

    widths: Widths | None = None

    def shapes(self):
        return {"push": (self.known.action, self.known.target), "drift": (self.known.target,)}

    def fill(self, views, generator):
        views["push"].normal_(generator=generator).mul_(0.1)
        views["drift"].zero_()

    def predict(self, vector, x, action):
        p = self.views(vector)
        change = action @ p["push"] + p["drift"]
        width = self.known.observation
        observation = x.unsqueeze(1) + change[..., :width].cumsum(1)
        return torch.cat([observation, change[..., width:]], 2)

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        rows, width = len(hidden_state[0]), self.known.observation
        noise = 0.1 * torch.randn(rows, horizon, self.known.target, generator=generator)

        def predict(actions):
            mean = self.predict(vector, hidden_state[0], actions)
            made = mean + temperature * noise[:, : actions.shape[1]]
            x, outcome = made[..., :width], made[..., width:]
            return Imagined(x, outcome, tuple((one,) for one in x.unbind(1)))

        return unroll_whole(predict, hidden_state, policy, horizon)

    def loss(self, vector, windows, generator, step):
        x = windows.observation[:, :-1]
        made = self.predict(vector, x.flatten(0, 1), windows.action.flatten(0, 1).unsqueeze(1))
        errors = (made.view(windows.target.shape) - windows.target).square().mean(2)
        error = windows.mean(errors)
        return error, {"error": error.detach()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(seed=0, episodes=20, steps=12):
    """A point that is pushed, of which reward is the distance."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (episodes, steps, 2))
    x = rng.normal(size=(episodes, 1, 2)) + np.cumsum(0.3 * action, 1)
    x = np.concatenate([x[:, :1] - 0.3 * action[:, :1], x], 1)
    return Episodes.of([{"observation": o, "action": a} for o, a in zip(x, action, strict=True)])


@pytest.mark.parametrize("model", [Records(), Integrator()], ids=["records", "integrator"])
def test_they_keep_the_laws(model):
    check_world(model)


@pytest.mark.parametrize("model", [Records(), Integrator()], ids=["records", "integrator"])
def test_they_are_fitted_saved_and_forecast(model, tmp_path):
    world = World(model, Layout(2, 2), generator())
    for _ in world.fit(data(), steps=200, learning_rate=1e-2, generator=generator()):
        pass
    windows = data(1).forecast_windows(0, 5, 30)
    given = windows.context_observation, windows.context_action, windows.future_action
    made = world.forecast(*given, samples=20, generator=generator())
    error = np.abs(made.mean(0) - windows.future_observation).mean()
    stays = np.abs(windows.context_observation[:, -1:] - windows.future_observation).mean()
    assert error < 0.5 * stays
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world", trust=True)
    assert again.size == world.size
    np.testing.assert_array_equal(again.forecast(*given, samples=20, generator=generator()), made)
    fresh = World(model, Layout(2, 2), generator(1))
    fresh.load_state_dict(world.state_dict())
    np.testing.assert_array_equal(fresh.forecast(*given, samples=20, generator=generator()), made)


def test_a_model_without_a_vector_needs_a_closed_form():
    class Open(Records):
        solve = None

    world = World(Open(), Layout(2, 2), generator())
    with pytest.raises(ValueError, match=r"Open has no flat vector .* and no solve"):
        world.fit(data(), steps=1, generator=generator())


def test_latents_of_every_imagined_step_are_kept():
    model = Integrator().with_widths(Widths(2, 2))
    vector, start = model.initial_parameters(generator()), (torch.zeros(3, 2),)
    made = model.imagine(vector, start, OpenLoop(torch.ones(3, 4, 2)), 4, generator())
    assert made.latents == ()
    assert torch.equal(torch.stack([one[0] for one in made.hidden_states], 1), made.observation)
