import sys

import pytest

from rlkit.plugins import AGENTS

MINE = """
class Mine:
    iterate = predict = set_logger = state_dict = load_state_dict = None
class Other:
    def __init__(self): raise AssertionError("it was built")
function = len
"""


def test_names_and_paths_lead_to_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "agents_of_mine.py").write_text(MINE)
    assert AGENTS.load("agents_of_mine:Mine").__name__ == "Mine"
    assert {"sac", "td3", "dqn", "mpc"} <= set(AGENTS.names())
    assert AGENTS.load("sac").__name__ == "SAC"
    with pytest.raises(
        ValueError, match=r"agents_of_mine has no class 'Mien'\. Did you mean 'Mine'\?"
    ):
        AGENTS.load("agents_of_mine:Mien")
    with pytest.raises(ValueError, match="lacks iterate, predict, set_logger, state_dict, load"):
        AGENTS.load("agents_of_mine:Other")
    with pytest.raises(ValueError, match="no class 'function'"):
        AGENTS.load("agents_of_mine:function")
    sys.modules.pop("agents_of_mine")


def test_what_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_agents_of_mine.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"unknown agent 'sca'\. Did you mean 'sac'\?"):
        AGENTS.load("sca")
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*PYTHONPATH"):
        AGENTS.load("no_such_module:Agent")
    with pytest.raises(ValueError, match="ZeroDivisionError: division by zero"):
        AGENTS.load("broken_agents_of_mine:Agent")
