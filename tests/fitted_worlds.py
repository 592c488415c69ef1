"""World models fitted to small systems, and what tests ask of them."""

import numpy as np
import torch

from rlkit.world import Episodes, Layout, OpenLoop, World


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(model, data, seed=0, **settings):
    """A world fitted to data."""
    layout = Layout(data.observation.shape[1], data.action.shape[1])
    world = World(model, layout, generator(seed))
    for _ in world.fit(data, generator=generator(seed), **settings):
        pass
    return world


def forecast(world, windows, samples=10, seed=0, **settings):
    """Samples `(S, B, H, F)`."""
    given = windows.context_observation, windows.context_action, windows.future_action
    return world.forecast(*given, samples=samples, generator=generator(seed), **settings)


def error(forecast, truth, axis=None):
    """Root mean squared error of a forecast's mean, or of one guess."""
    mean = forecast.mean(0) if forecast.ndim > truth.ndim else forecast
    return np.sqrt(np.mean((mean - truth) ** 2, axis=axis))


def pendulum(count, steps, seed, *, speed=False, noise=0.0):
    """A driven pendulum, observed as a point on the circle, with or without its speed."""
    rng = np.random.default_rng(seed)
    angle, velocity = rng.uniform(-3, 3, count), rng.uniform(-1, 1, count)
    action = rng.uniform(-1, 1, (steps, count))
    observed = []
    for t in range(steps + 1):
        columns = [np.cos(angle), np.sin(angle)]
        observed.append(np.stack([*columns, velocity] if speed else columns, 1))
        if t < steps:
            velocity = 0.98 * velocity + 0.3 * np.sin(angle) + 0.2 * action[t]
            angle = angle + 0.3 * velocity
    observation = np.stack(observed, 1).reshape(-1, 3 if speed else 2)
    if noise:
        observation = observation + noise * rng.standard_normal(observation.shape)
    return Episodes(observation, action.T.reshape(-1, 1), [steps] * count)


def assert_imagining_continues(case):
    """Two halves of an imagined trajectory are the whole."""
    hidden_state, source = case.observed(case.windows, 3), generator()
    once = case.imagine(hidden_state, case.actions)
    made = []
    with torch.no_grad():
        for actions in (case.actions[:, :2], case.actions[:, 2:]):
            part = case.model.imagine(case.parameters, hidden_state, OpenLoop(actions), 2, source)
            hidden_state = part.hidden_state
            made.append(part.observation)
    torch.testing.assert_close(torch.cat(made, 1), once.observation, rtol=1e-5, atol=1e-5)
