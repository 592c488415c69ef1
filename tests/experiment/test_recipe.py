import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlkit.experiment.recipe import (
    Recipe,
    describe_recipes,
    load_recipe,
    make_recipe,
    parse_setting,
    recipe_names,
)

values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=4))
def test_toml_round_trip(options):
    recipe = make_recipe({"env": "E", "agent_options": options, "evaluation": {"every": 7}})
    assert make_recipe(tomllib.loads(recipe.to_toml())) == recipe


def test_the_written_recipe_spells_out_every_default():
    content = tomllib.loads(Recipe(env="E").to_toml())
    assert content["steps"] == 100_000
    assert content["evaluation"]["final_episodes"] == 100
    assert "stop_at_success" not in content["evaluation"]


def test_shipped_recipes_load_and_describe_themselves():
    assert {"quickstart", "fetch-reach", "bit-flip"} <= set(recipe_names())
    assert all(description for _, description in describe_recipes())
    assert load_recipe("bit-flip").env_options == {"bits": 50}


def test_a_path_is_a_recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('env = "E"\nsteps = 5')
    assert load_recipe(str(path)).steps == 5
    with pytest.raises(ValueError, match=r"no recipe file '.*other\.toml'"):
        load_recipe(str(tmp_path / "other.toml"))
    path.write_text("env = ")
    with pytest.raises(ValueError, match="no valid TOML"):
        load_recipe(str(path))


def test_settings_and_flags_change_a_recipe():
    settings = ["agent_options.net_arch=[32, 16]", "evaluation.stop_at_success=1", "num_envs=2"]
    recipe = load_recipe("quickstart", settings, steps=99, seed=None, agent="td3")
    assert recipe.agent_options["net_arch"] == [32, 16]
    assert recipe.evaluation.stop_at_success == 1.0
    assert isinstance(recipe.evaluation.stop_at_success, float)
    assert (
        load_recipe("goal", ["evaluation.stop_at_success=none"]).evaluation.stop_at_success is None
    )
    assert (recipe.num_envs, recipe.steps, recipe.seed, recipe.agent) == (2, 99, 0, "td3")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 0.001),
        ("a=true", True),
        ("a=[1, 2]", [1, 2]),
        ("a={b = 1}", {"b": 1}),
        ('a="1"', "1"),
        ("a=rlkit/BitFlip-v0", "rlkit/BitFlip-v0"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=1\nb=2", "1\nb=2"),
        ("a=2026-01-01", "2026-01-01"),
        ("a=__import__('os')", "__import__('os')"),
    ],
)
def test_setting_values(setting, value):
    keys, parsed = parse_setting(setting)
    assert keys == ["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["steps"], "write key=value"),
        (["=3"], "write key=value"),
        (["a..b=3"], "write key=value"),
        (["step=3"], "unknown recipe key 'step'. Did you mean 'steps'?"),
        (["evaluation.evry=3"], "Did you mean 'evaluation.every'?"),
        (["learning_rate=3"], "go under agent_options"),
        (["steps=many"], "steps = 'many' is a str; it must be int"),
        (["steps=1.5"], "steps = 1.5 is a float; it must be int"),
        (["steps=true"], "steps = True is a bool; it must be int"),
        (["evaluation=3"], "evaluation = 3 is a int; it must be a table"),
        (["agent_options=3"], "must be a table"),
        (["evaluation.stop_at_success=high"], "it must be float"),
        (["steps.x=3"], "steps is not a table"),
        (["steps=0"], "steps = 0 must be at least 1"),
        (["checkpoint.every=-1"], "must not be negative"),
        (["evaluation.stop_at_success=1.5"], r"must lie in \(0, 1\]"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_recipe({"env": "E", "steps": 5}, settings)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match=r"'quikstart'\. Did you mean 'quickstart'\?"):
        load_recipe("quikstart")
    with pytest.raises(ValueError, match="names no environment"):
        make_recipe({})
