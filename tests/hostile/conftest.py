import pytest
from originals import Originals

pytest.register_assert_rewrite("watch")


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """Harmless files of each kind, from which hostile ones are made."""
    return Originals(tmp_path_factory.mktemp("originals"))
