import sys

import pytest

from rlkit.experiment.plugins import agent_names, load_agent, nearest


def test_names_and_paths_lead_to_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_agents.py").write_text("class Mine: pass\nfunction = len\n")
    assert load_agent("my_agents:Mine").__name__ == "Mine"
    assert {"sac", "td3", "dqn"} <= set(agent_names())
    assert load_agent("sac").__name__ == "SAC"
    with pytest.raises(ValueError, match=r"my_agents has no class 'Mien'\. Did you mean 'Mine'\?"):
        load_agent("my_agents:Mien")
    with pytest.raises(ValueError, match="no class 'function'"):
        load_agent("my_agents:function")
    sys.modules.pop("my_agents")


def test_what_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_agents.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"unknown agent 'sca'\. Did you mean 'sac'\?"):
        load_agent("sca")
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*PYTHONPATH"):
        load_agent("no_such_module:Agent")
    with pytest.raises(ValueError, match="ZeroDivisionError: division by zero"):
        load_agent("broken_agents:Agent")


def test_the_nearest_name_ignores_case():
    assert nearest("SAC", ["sac", "td3"]) == "Did you mean 'sac'? Known: sac, td3."
    assert nearest("xyz", ["sac"]) == "Known: sac."
