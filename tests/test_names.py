import pytest

from rlkit.names import nearest, require_current, require_known


def test_the_nearest_name_ignores_case():
    assert nearest("SAC", ["sac", "td3"]) == "Did you mean 'sac'? Known: sac, td3."
    assert nearest("xyz", ["sac"]) == "Known: sac."


def test_a_renamed_name_leads_to_its_new_one():
    assert nearest("goal_judge", ["reward_source", "gamma"]) == "It is now called 'reward_source'."
    dotted = nearest("agent_options.goal_judge", ["agent_options.reward_source"])
    assert dotted == "It is now called 'reward_source'."
    assert "now called" not in nearest("goal_judge", ["gamma"])  # here it was never an option


def test_unknown_options_are_refused():
    require_known("SAC", ["gamma"], {"gamma", "tau"})
    with pytest.raises(ValueError, match=r"SAC has no option 'gama'\. Did you mean 'gamma'\?"):
        require_known("SAC", ["gama"], {"gamma", "tau"})
    with pytest.raises(ValueError, match=r"'replay_buffr'\. Did you mean 'replay_buffer'\?"):
        require_known("SAC", ["replay_buffr"], {"gamma"}, {"replay_buffer"})


@pytest.mark.parametrize("word", ["--goal-judge", "--goal-judge=goal"])
def test_renamed_words_of_the_command_line_are_refused(word):
    require_current(["train", "--seed", "goal-judge"])
    with pytest.raises(ValueError, match="--goal-judge is now called --reward-source"):
        require_current(["train", word])
