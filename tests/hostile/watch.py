"""What a hostile file must not bring about: imports, processes, folders and files elsewhere."""

import contextlib
import sys
import tempfile
from pathlib import Path

EVIL = """
from pathlib import Path
Path("imported").touch()
class Strike:
    def __init__(self, *args, **kwargs):
        Path("called").touch()
"""
_seen: list[str] | None = None
_allowed: list[Path] = []


def _audit(event, arguments):
    if _seen is None:
        return
    if event == "import" and str(arguments[0]).partition(".")[0] in ("evil", "antigravity"):
        _seen.append(f"import {arguments[0]}")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        _seen.append(f"{event} {arguments[0]}")
    elif event in ("pickle.find_class", "shutil.unpack_archive"):
        if not str(arguments[0]).startswith("rlkit."):  # a copy of our own object
            _seen.append(f"{event} {arguments[:2]}")
    elif event in ("os.mkdir", "os.symlink", "os.link") or (
        event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    ):
        place = Path(str(arguments[0])).absolute()
        if not any(place.is_relative_to(folder) for folder in _allowed):
            _seen.append(f"{event} {place}")


sys.addaudithook(_audit)  # for the whole process; it listens inside `watched` alone


@contextlib.contextmanager
def watched(folder):
    """Fails if a file that is loaded inside imports, starts or creates what it must not."""
    global _seen
    _seen = []
    _allowed[:] = [Path(folder), Path(tempfile.gettempdir()), Path("/dev")]
    before = sorted(path for path in Path(folder).rglob("*"))
    try:
        yield
    finally:
        seen, _seen = _seen, None
        # Python's own: compiled files, and the search for EGL.
        seen = [one for one in seen if "__pycache__" not in one and "ldconfig" not in one]
    assert seen == []
    assert not {"evil", "antigravity"} & set(sys.modules)
    assert sorted(path for path in Path(folder).rglob("*")) == before
