"""Goal generators: the laws, and which goals the built-in ones propose."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from gymnasium import spaces

from rlkit.goals import DistanceRule, ExactRule
from rlkit.goals.generators import (
    GENERATORS,
    GoalContext,
    GoalGenerator,
    Imagined,
    Uniform,
    check_generator,
)
from rlkit.goals.generators.check import Episodes
from rlkit.goals.generators.imagined import POOL, density

LINE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PLACES = [[0, 0, 0], [5, 0, 0], [0, 5, 0]]


def attached(generator, places=PLACES, counts=(900, 90, 10), space=LINE, **context):
    """A generator whose agent achieved some goals so many times."""
    goals = np.repeat(np.asarray(places, np.float32), counts, axis=0)
    defaults = {
        "rule": DistanceRule(0.5),
        "count": lambda: len(goals),
        "achieved": lambda count, rng: goals[rng.integers(0, len(goals), count)],
    }
    generator.attach(GoalContext(space, **{**defaults, **context}))
    return generator


def proposed(generator, count=4000, seed=0):
    return generator.propose(np.zeros((count, 3), np.float32), np.random.default_rng(seed))


@pytest.mark.parametrize(
    "settings",
    [
        "imagined",
        "uniform",
        {"name": "imagined", "skew": -0.5, "share": 0.3},
        {"name": "imagined", "source": "prior"},
    ],
)
def test_generators_obey_the_laws(settings):
    generator = GENERATORS.make(settings)
    assert isinstance(generator, GoalGenerator)
    check_generator(generator)
    assert GENERATORS.make(GENERATORS.describe(generator)) == GENERATORS.make(settings)


@pytest.mark.parametrize("name", ["imagined", "uniform"])
def test_laws_hold_for_bounded_spaces(name):
    generator = GENERATORS.make(name)
    check_generator(generator, Episodes(generator, spaces.Box(-2, 3, (4,), np.float64)))


@dataclass
class Broken(Uniform):
    """Breaks one law."""

    fault: str = "shape"
    last: np.ndarray = field(init=False, default_factory=lambda: np.zeros(2, np.float32))

    def propose(self, desired, rng):
        if self.fault == "shape":
            return desired[0]
        if self.fault == "given":
            desired += 1
        if self.fault == "chance":
            rng = np.random.default_rng()
        if self.fault == "state":
            self.last = self.last + rng.standard_normal(2).astype(np.float32)
            return desired + self.last
        return super().propose(desired, rng)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("shape", "proposes goals"),
        ("given", "the given goals changed"),
        ("chance", "depends on the generator alone"),
        ("state", "goes on exactly"),
    ],
)
def test_broken_generators_are_found(fault, law):
    with pytest.raises(ValueError, match=law):
        check_generator(Broken(fault=fault))


def shares(skew):
    goals = proposed(attached(Imagined(skew=skew)))
    found = [(goals == place).all(1).mean() for place in PLACES]
    assert goals.shape == (4000, 3)
    assert sum(found) == pytest.approx(1)
    return found


def test_visited_goals_are_drawn_as_often_as_they_were_visited():
    assert shares(0.0) == pytest.approx([0.9, 0.09, 0.01], abs=0.02)


def test_a_skew_of_minus_one_draws_all_regions_alike():
    assert shares(-1.0) == pytest.approx([1 / 3] * 3, abs=0.03)


def test_half_a_skew_lies_half_way():
    weights = np.sqrt([0.9, 0.09, 0.01])
    assert shares(-0.5) == pytest.approx(weights / weights.sum(), abs=0.05)


def test_density_equals_a_loop():
    goals = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    loop = [
        np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2)) for b in goals.astype(np.float64)])
        for a in goals.astype(np.float64)
    ]
    np.testing.assert_allclose(density(goals, 0.7), loop, rtol=1e-4)


def test_the_pool_serves_proposals_of_any_number():
    generator = attached(Imagined(skew=-1.0), counts=(9, 1, 0))
    assert len(proposed(generator, 2 * POOL + 5)) == 2 * POOL + 5
    assert len(proposed(generator, 0)) == 0


def test_a_new_version_of_latents_empties_the_pool():
    version = [1]
    generator = attached(Imagined(skew=-1.0), version=lambda: version[0])
    proposed(generator, 10)
    assert len(generator.state_dict()["pool"]) == POOL - 10
    version[0] = 2
    proposed(generator, 10)
    assert len(generator.state_dict()["pool"]) == POOL - 10
    assert generator.state_dict()["version"] == 2


def test_goals_of_the_prior_are_standard_normal():
    goals = proposed(attached(Imagined("prior"), has_prior=True), 20_000)
    assert goals.dtype == np.float32
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(goals.T), np.eye(3), atol=0.04)


def test_nothing_visited_leaves_the_given_goals():
    generator = attached(Imagined(), count=lambda: 0)
    given = np.full((4, 3), 7, np.float32)
    np.testing.assert_array_equal(generator.propose(given, np.random.default_rng(0)), given)


def test_uniform_goals_fill_the_goal_space():
    space = spaces.Box(np.float32([-1, 0, 2]), np.float32([1, 5, 3]))
    goals = proposed(attached(Uniform(), space=space), 20_000)
    np.testing.assert_allclose(goals.min(0), space.low, atol=0.01)
    np.testing.assert_allclose(goals.max(0), space.high, atol=0.01)
    np.testing.assert_allclose(goals.mean(0), (space.low + space.high) / 2, atol=0.05)


def test_without_bounds_uniform_goals_fill_what_was_achieved():
    space = spaces.Box(np.float32([-1, -np.inf, 0]), np.float32([1, np.inf, np.inf]))
    generator = attached(Uniform(), space=space)
    assert not proposed(generator).any(), "nothing is known yet"
    ends = np.float32([[0.5, 4, 2], [0.2, -3, 6]])
    generator.observe(np.zeros_like(ends), ends, np.zeros(2, np.bool_))
    goals = proposed(generator)
    np.testing.assert_allclose(goals.min(0), [-1, -3, 2], atol=0.02)
    np.testing.assert_allclose(goals.max(0), [1, 4, 6], atol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "posterior"}, r"source = 'posterior' must be one of \['prior', 'visited'\]"),
        ({"skew": 0.5}, r"skew = 0.5 must be a number in \[-1, 0\]"),
        ({"skew": "much"}, "skew = 'much' must be a number"),
        ({"share": 1.5}, r"share = 1.5 must be a number in \[0, 1\]"),
        ({"source": "prior", "skew": -0.5}, "skew = -0.5 weights visited goals"),
        ({"goals": 1}, r"'imagined' has no option 'goals'. Known: .*share"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GENERATORS.make({"name": "imagined", **settings})


@pytest.mark.parametrize(
    ("generator", "context", "message"),
    [
        (Imagined("prior"), {}, 'source = "prior" needs'),
        (Imagined(skew=-1.0), {"rule": ExactRule()}, "ExactRule has none; set skew = 0.0"),
        (Uniform(), {"space": spaces.Discrete(4)}, r"Discrete\(4\) cannot be drawn from a box"),
        (Uniform(), {"space": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "cannot be drawn"),
    ],
)
def test_a_context_that_does_not_fit_is_named(generator, context, message):
    with pytest.raises(ValueError, match=message):
        attached(generator, **context)
