from dataclasses import replace

import pytest
import torch
from fitted_worlds import error, fitted, forecast, generator, pendulum
from torch.distributions import Categorical as Choice
from torch.distributions import Independent, Normal, kl_divergence

from rlkit.networks import gradient
from rlkit.world import (
    WORLDS,
    Ensemble,
    Layout,
    OpenLoop,
    Widths,
    World,
    check_world,
)
from rlkit.world.experience import Experience
from rlkit.world.models.rssm import Rssm
from rlkit.world.models.rssm_latents import Categorical, Gaussian
from rlkit.world.models.rssm_scan import RssmScan, Weights

WIDTHS = Widths(2, 1, 1)
SMALL = Rssm(dims=3, deterministic=8, hidden=10)
KINDS = {
    "gaussian": SMALL,
    "categorical": replace(SMALL, latents="categorical", groups=4, classes=3),
}
both = pytest.mark.parametrize("kind", KINDS)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.slow
@both
@pytest.mark.parametrize("widths", [Widths(1, 0), Widths(2, 1), Widths(5, 3, 2)])
def test_it_keeps_the_laws_on_any_columns(kind, widths):
    check_world(KINDS[kind], Experience(KINDS[kind], 3, 8, widths, seed=1))


def described(latents, outputs):
    """The distribution that outputs `(..., outputs)` describe, of PyTorch's own making."""
    if isinstance(latents, Gaussian):
        mean, spread = outputs.chunk(2, -1)
        return Independent(Normal(mean, 0.1 + 2 * torch.sigmoid(spread)), 1)
    logits = outputs.view(*outputs.shape[:-1], latents.groups, latents.classes)
    return Independent(Choice(0.99 * logits.softmax(-1) + 0.01 / latents.classes), 1)


LATENTS = [Gaussian(5), Categorical(4, 3)]


@pytest.mark.parametrize("latents", LATENTS)
def test_a_divergence_is_the_reference(latents):
    one, two = 2 * normal(50, latents.outputs), 2 * normal(50, latents.outputs, seed=1)
    wanted = kl_divergence(described(latents, one), described(latents, two))
    torch.testing.assert_close(latents.divergence(one, two), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latents.divergence(one, one), torch.zeros(50))


@pytest.mark.parametrize("latents", LATENTS)
def test_a_divergences_gradient_is_the_references(latents):
    ends = [normal(50, latents.outputs, seed=seed).requires_grad_() for seed in range(2)]
    pull = normal(50, seed=2)
    found = torch.autograd.grad((pull * latents.divergence(*ends)).sum(), ends)
    reference = kl_divergence(*(described(latents, end) for end in ends))
    wanted = torch.autograd.grad((pull * reference).sum(), ends)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_latents_are_drawn_as_they_are_distributed(temperature):
    gaussian, categorical = LATENTS
    outputs = normal(10)
    noise = gaussian.noise((40_000,), generator())
    drawn = gaussian.sample(outputs.expand(40_000, -1), noise, temperature)
    wanted = described(gaussian, outputs).base_dist
    torch.testing.assert_close(drawn.mean(0), wanted.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(0), temperature * wanted.stddev, rtol=0.02, atol=0)

    outputs = normal(12)
    noise = categorical.noise((40_000,), generator())
    drawn = categorical.sample(outputs.expand(40_000, -1), noise, temperature).view(-1, 4, 3)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(drawn.sum(2), torch.ones(40_000, 4))
    powers = described(categorical, outputs).base_dist.probs ** (1 / temperature)
    wanted = powers / powers.sum(1, keepdim=True)
    torch.testing.assert_close(drawn.mean(0), wanted, rtol=0, atol=0.01)


@pytest.mark.parametrize("latents", LATENTS)
def test_without_randomness_latents_are_the_most_likely(latents):
    outputs = normal(20, latents.outputs)
    found = latents.sample(outputs, None)
    cold = latents.sample(outputs, latents.noise((20,), generator()), 0.0)
    assert torch.equal(found, cold)
    wanted = described(latents, outputs).base_dist
    if isinstance(latents, Categorical):
        assert torch.equal(found.view(20, 4, 3).argmax(2), wanted.probs.argmax(2))
    else:
        torch.testing.assert_close(found, wanted.mean)


def test_gradients_pass_straight_through_a_choice():
    latents = Categorical(4, 3)
    outputs, weights = normal(6, 12).requires_grad_(), normal(6, 12, seed=1)
    hot = latents.sample(outputs, latents.noise((6,), generator()))
    (found,) = torch.autograd.grad((hot * weights).sum(), outputs)
    soft = described(latents, outputs).base_dist.probs.flatten(1)
    (wanted,) = torch.autograd.grad((soft * weights).sum(), outputs)
    torch.testing.assert_close(found, wanted)
    assert found.abs().max() > 0.01


def test_no_class_ever_dies_out():
    far = torch.tensor([[30.0, 0.0, -30.0]])
    assert Categorical(1, 3).probabilities(far).min() == pytest.approx(0.01 / 3)
    assert Categorical(1, 3).divergence(far.flip(1), far) < 6.0


def stepped(latents, read, action, h, z, first, noise, w):
    """What a scan comes to, by autograd, a step at a time."""
    found, second = [], torch.nn.functional.pad(w.candidate, (2 * h.shape[1], 0))
    for t in range(len(read)):
        h, z = (part.masked_fill(first[t, :, None], 0.0) for part in (h, z))
        inputs = torch.cat([z, action[t]], 1)
        h = torch.gru_cell(inputs, h, w.inputs, w.recurrent, w.bias, second)
        hidden = torch.nn.functional.silu(read[t] + h @ w.state)
        outputs = hidden @ w.posterior + w.posterior_bias
        z = latents.sample(outputs, None if noise is None else noise[t])
        found.append((h, z, outputs))
    return [torch.stack(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("likely", [False, True])
@pytest.mark.parametrize("latents", LATENTS)
def test_a_scan_and_its_gradient_are_those_of_its_steps(latents, likely):
    source = generator()

    def made(*shape):
        return (0.5 * torch.randn(*shape, generator=source)).requires_grad_()

    steps, rows, state, hidden, z, outputs = 6, 3, 5, 7, latents.width, latents.outputs
    shapes = [(3 * state, z + 2), (3 * state, state), (3 * state,), (state,)]
    shapes += [(state, hidden), (hidden, outputs), (outputs,)]
    weights = Weights(*(made(*shape) for shape in shapes))
    read, action = made(steps, rows, hidden), made(steps, rows, 2)
    before = made(rows, state).detach(), made(rows, z).detach()
    first = torch.zeros(steps, rows, dtype=torch.bool)
    first[0, 0] = first[3, 1] = True
    noise = None if likely else latents.noise((steps, rows), source)
    sequences = read, action, *before, first, noise
    ways = RssmScan.apply(latents, *sequences, *weights), stepped(latents, *sequences, weights)
    torch.testing.assert_close(list(ways[0]), ways[1], rtol=1e-4, atol=1e-5)
    pulls = [torch.randn(part.shape, generator=source) for part in ways[0]]
    gradients = [
        torch.autograd.grad(way, [read, action, *weights], [pull.clone() for pull in pulls])
        for way in ways
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


class ByHand:
    """The model written down slowly, one row and step at a time, of PyTorch's own parts."""

    def __init__(self, model, vector):
        self.model, self.latents = model, model.stochastic
        self.p = {name: view.clone() for name, view in model.views(vector).items()}
        width = self.latents.width + model.widths.action
        self.cell = torch.nn.GRUCell(width, model.deterministic)
        own = {
            "weight_ih": self.p["memory.0.input.weight"],
            "weight_hh": self.p["memory.0.recurrent.weight"],
            "bias_ih": self.p["memory.0.bias"],
            "bias_hh": torch.cat(
                [torch.zeros(2 * model.deterministic), self.p["memory.0.recurrent.bias"]]
            ),
        }
        self.cell.load_state_dict(own)

    def layers(self, name, x):
        first, second = ((self.p[f"{name}.{i}.weight"], self.p[f"{name}.{i}.bias"]) for i in (0, 1))
        hidden = x @ first[0] + first[1]
        return (hidden * torch.sigmoid(hidden)) @ second[0] + second[1]

    def posterior(self, h, x):
        hidden = h @ self.p["posterior.0.weight"] + self.layers("embedding", x)
        hidden = hidden * torch.sigmoid(hidden)
        return hidden @ self.p["posterior.1.weight"] + self.p["posterior.1.bias"]

    def decoded(self, h, z):
        mean, raw = self.layers("decoder", torch.cat([h, z])).chunk(2)
        return Normal(mean, (-5 + 5.25 / (1 + torch.exp(-raw))).exp())

    @torch.no_grad()
    def records(self, windows, noise):
        """Per counted record: reconstruction, divergence, squared error of the prior's mode."""
        found = []
        for row in range(len(windows)):
            for t in range(windows.observation.shape[1]):
                action = windows.action[row, t - 1]
                if windows.is_first[row, t]:
                    h, z = torch.zeros(self.model.deterministic), torch.zeros(self.latents.width)
                    action = torch.zeros_like(action)
                h = self.cell(torch.cat([z, action])[None], h[None])[0]
                outputs = self.posterior(h, windows.observation[row, t])
                z = self.latents.sample(outputs, noise[t, row])
                if windows.is_first[row, t] or not windows.mask[row, t - 1]:
                    continue
                prior = self.layers("prior", h)
                target = torch.cat([windows.observation[row, t], windows.outcome[row, t - 1]])
                apart = kl_divergence(*(described(self.latents, of) for of in (outputs, prior)))
                expected = self.decoded(h, self.latents.sample(prior, None)).mean
                likely = self.decoded(h, z).log_prob(target).sum()
                found.append([-likely, apart, (expected - target).square().mean()])
        return torch.tensor(found)


@both
def test_the_loss_is_the_one_written_down(kind):
    free = 0.25
    model = replace(KINDS[kind], dynamics=0.7, representation=0.2, free=free)
    case = Experience(model, rows=3, steps=7, widths=WIDTHS)
    is_first, mask = case.windows.is_first.clone(), case.windows.mask.clone()
    is_first[1, 4], mask[2, 5:], mask[0, :2] = True, False, False
    windows = replace(case.windows, is_first=is_first, mask=mask)
    vector = case.parameters + 0.2 * case.normal(*case.parameters.shape)
    noise = case.model.stochastic.noise((8, 3), generator(3))
    found = ByHand(case.model, vector).records(windows, noise)
    assert len(found) == 5 + 6 + 5
    reconstruction, apart, error = found.unbind(1)
    assert 0 < (apart < free).sum() < 16
    wanted = {
        "nll": (reconstruction + apart).mean(),
        "reconstruction": reconstruction.mean(),
        "divergence": apart.mean(),
        "error": error.mean(),
    }
    loss, metrics = case.model.loss(vector, windows, generator(3), 0)
    torch.testing.assert_close(metrics, wanted, rtol=1e-4, atol=1e-5)
    whole = (reconstruction + apart.clamp(min=free)).mean()
    torch.testing.assert_close(loss, whole, rtol=1e-4, atol=1e-5)


@both
def test_each_divergence_moves_its_own_side(kind):
    def slopes(**settings):
        case = Experience(replace(KINDS[kind], **settings), widths=WIDTHS)
        # A state that ignores latents: otherwise the posterior affects the prior through it.
        width = case.model.stochastic.width
        case.model.views(case.parameters)["memory.0.input.weight"][:, :width] = 0
        found = gradient(lambda vector: case.loss(vector, case.windows), case.parameters)[0]
        return case.model.views(found)

    neither = slopes(dynamics=0.0, representation=0.0)
    prior, posterior = (
        {
            name: (found[name] - neither[name]).norm()
            for name in ("prior.0.weight", "prior.1.bias", "posterior.1.bias", "embedding.0.bias")
        }.values()
        for found in (
            slopes(dynamics=1.0, representation=0.0),
            slopes(dynamics=0.0, representation=1.0),
        )
    )
    moved = [[float(norm) > 1e-4 for norm in one] for one in (prior, posterior)]
    assert moved == [[True, True, False, False], [False, False, True, True]]
    assert not neither["prior.0.weight"].any()


@both
def test_a_divergence_below_what_is_free_moves_nothing(kind):
    def slope(**settings):
        case = Experience(replace(KINDS[kind], **settings), widths=WIDTHS)
        return gradient(lambda vector: case.loss(vector, case.windows), case.parameters)

    (free, metrics), (nothing, _) = slope(free=50.0), slope(dynamics=0.0, representation=0.0)
    torch.testing.assert_close(free, nothing)
    least = float(metrics["divergence"]) * 1e-3
    torch.testing.assert_close(slope(free=least)[0], slope(free=0.0)[0])


@both
def test_outcomes_are_predicted_and_never_read(kind):
    case = Experience(KINDS[kind], widths=WIDTHS)
    other = replace(case.windows, outcome=case.windows.outcome + 3)
    one, two = (case.loss(case.parameters, windows)[1] for windows in (case.windows, other))
    assert torch.equal(one["divergence"], two["divergence"])
    assert abs(float(one["reconstruction"] - two["reconstruction"])) > 0.1


@both
def test_imagined_steps_are_those_written_down(kind):
    case = Experience(KINDS[kind], widths=WIDTHS)
    model, hand = case.model, ByHand(case.model, case.parameters)
    hidden_state = case.observed(case.windows, 5)
    made = case.imagine(hidden_state, case.actions, temperature=0.0)
    with torch.no_grad():
        for row in range(4):
            _, h, z = (part[row] for part in hidden_state)
            for t in range(4):
                h = hand.cell(torch.cat([z, case.actions[row, t]])[None], h[None])[0]
                z = hand.latents.sample(hand.layers("prior", h), None)
                wanted = hand.decoded(h, z)
                both_parts = torch.cat([made.observation[row, t], made.outcome[row, t]])
                torch.testing.assert_close(both_parts, wanted.mean, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(made.scale[row, t], wanted.scale, rtol=1e-4, atol=1e-5)
    assert torch.equal(made.mean, torch.cat([made.observation, made.outcome], 2))
    assert [part.shape[1] for part in made.hidden_state] == [2, 8, model.stochastic.width]


@both
def test_temperature_is_that_of_latents_and_of_the_decoder(kind):
    case = Experience(KINDS[kind], widths=WIDTHS)
    case.model.views(case.parameters)["prior.1.weight"].mul_(8)
    rows = 20_000
    hidden_state = tuple(part[:1].expand(rows, -1) for part in case.observed(case.windows, 5))
    actions = case.actions[:1, :1].expand(rows, -1, -1)
    latents = []
    for temperature in (0.5, 1.0, 2.0):
        made = case.model.imagine(
            case.parameters, hidden_state, OpenLoop(actions), 1, generator(), temperature
        )
        whole = torch.cat([made.observation, made.outcome], 2)
        z = ((whole - made.mean) / made.scale)[:, 0]
        torch.testing.assert_close(z.std(0), torch.full((3,), temperature), rtol=0.02, atol=0)
        latents.append(float(made.hidden_state[2].var(0).sum()))
    assert latents == sorted(latents)
    assert latents[0] < 0.9 * latents[2]


@both
def test_gradients_reach_what_imagining_starts_from(kind):
    case = Experience(KINDS[kind], widths=WIDTHS)
    leaves = [case.parameters, *case.observed(case.windows, 5), case.actions]
    vector, *hidden_state, actions = (leaf.clone().requires_grad_() for leaf in leaves)
    made = case.model.imagine(vector, tuple(hidden_state), OpenLoop(actions), 4, generator())
    reached = [vector, hidden_state[1], hidden_state[2], actions]
    found = torch.autograd.grad(made.observation[:, -1].square().sum(), reached)
    assert all(float(one.abs().sum()) > 1e-6 for one in found)
    assert (found[3].abs().sum(2) > 0).all()


@both
def test_posterior_samples_are_drawn_on_request(kind):
    case = Experience(KINDS[kind], widths=WIDTHS)
    w = case.windows
    args = (w.observation, w.previous_action, case.model.initial(4), w.is_first)
    likely, one, two, same = (
        case.model.observe(case.parameters, *args, source)
        for source in (None, generator(1), generator(2), generator(1))
    )
    assert torch.equal(one[2], same[2])
    assert not torch.equal(one[2], two[2])
    assert not torch.equal(one[2], likely[2])


def forecast_errors(world, data, context, horizon):
    """Root mean square errors of the last step, of the forecasts' mean and of persistence."""
    windows = data.forecast_windows(context, horizon, 100)
    truth = windows.future_observation[:, -1]
    guesses = forecast(world, windows, 16)[:, :, -1], windows.context_observation[:, -1]
    return [float(error(guess, truth)) for guess in guesses]


@pytest.mark.slow
@both
def test_it_beats_persistence_and_a_model_without_recurrence(kind):
    training, held_out = pendulum(30, 40, seed=0), pendulum(20, 40, seed=1)
    weight = {"gaussian": 1.0, "categorical": 0.1}[kind]
    recurrent = Rssm(latents=kind, representation=weight, window=16)
    worlds = {}
    for name, model in {"recurrent": recurrent, "none": Ensemble(3, (32, 32))}.items():
        worlds[name] = fitted(model, training, steps=400, learning_rate=3e-3)
    for horizon, share in ((1, 0.5), (10, 0.6)):
        error, persistence = forecast_errors(worlds["recurrent"], held_out, 10, horizon)
        without, _ = forecast_errors(worlds["none"], held_out, 10, horizon)
        assert error < share * min(persistence, without), (horizon, error, persistence, without)
    # The speed follows from earlier observations: the same model without them.
    blind, _ = forecast_errors(worlds["recurrent"], held_out, 0, 1)
    seeing, _ = forecast_errors(worlds["recurrent"], held_out, 10, 1)
    assert seeing < 0.4 * blind, (seeing, blind)


@both
def test_it_is_written_and_read(kind, tmp_path):
    model = WORLDS.make({"name": "rssm", "latents": kind, "deterministic": 8, "hidden": 8})
    world = World(model, Layout(2, 1), generator())
    data = pendulum(3, 20, seed=0)
    metrics = list(world.fit(data, steps=2, window=5, generator=generator()))
    assert set(metrics[0]) >= {"nll", "reconstruction", "divergence", "error"}
    world.save(tmp_path / "world")
    errors = [forecast_errors(one, data, 3, 2) for one in (world, World.load(tmp_path / "world"))]
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latents": "normal"}, "latents must be one of .*, got 'normal'"),
        ({"dims": 0}, "dims must be a whole number >= 1, got 0"),
        ({"classes": 1}, "classes must be a whole number >= 2, got 1"),
        ({"window": 1.5}, r"window must be a whole number >= 1, got 1\.5"),
        ({"free": -1.0}, r"free must be a number >= 0, got -1\.0"),
        ({"representation": "0.1"}, r"representation must be a number >= 0, got '0\.1'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Rssm(**settings)
