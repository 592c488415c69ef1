import sys

import pytest

from rlkit.plugins import AGENTS, load_plugin, plugin_names


def test_names_and_paths_lead_to_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_agents.py").write_text("class Mine: pass\nfunction = len\n")
    assert load_plugin("my_agents:Mine", AGENTS).__name__ == "Mine"
    assert {"sac", "td3", "dqn", "mpc"} <= set(plugin_names(AGENTS))
    assert load_plugin("sac", AGENTS).__name__ == "SAC"
    with pytest.raises(ValueError, match=r"my_agents has no class 'Mien'\. Did you mean 'Mine'\?"):
        load_plugin("my_agents:Mien", AGENTS)
    with pytest.raises(ValueError, match="no class 'function'"):
        load_plugin("my_agents:function", AGENTS)
    sys.modules.pop("my_agents")


def test_what_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_agents.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"unknown agent 'sca'\. Did you mean 'sac'\?"):
        load_plugin("sca", AGENTS)
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*PYTHONPATH"):
        load_plugin("no_such_module:Agent", AGENTS)
    with pytest.raises(ValueError, match="ZeroDivisionError: division by zero"):
        load_plugin("broken_agents:Agent", AGENTS)
