import pytest
from bases import Bases

pytest.register_assert_rewrite("watch")


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Harmless files of each kind, from which hostile ones are made."""
    return Bases(tmp_path_factory.mktemp("bases"))
