import json

import pytest

from rlkit.cli import doctor
from rlkit.cli.doctor import Finding


@pytest.mark.slow
def test_a_working_installation_is_ok(rlkit):
    code, out, err = rlkit("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["ok"]
    text = "\n".join(row["text"] for row in report["findings"])
    for part in ("rlkit-suite", "Python 3", "torch 2", "cores", "device auto is", "videos", "free"):
        assert part in text
    assert {row["level"] for row in report["findings"]} <= {"ok", "warn"}


def test_an_error_sets_the_exit_code_and_a_warning_does_not(rlkit, monkeypatch):
    for level, expected in (("ok", 0), ("warn", 0), ("error", 2)):
        monkeypatch.setattr(doctor, "CHECKS", (lambda: [Finding(level, "found")],))  # noqa: B023
        code, out, _ = rlkit("doctor")
        assert code == expected
        assert out.startswith(f"{level:5} found\n")
        assert ("Try it" in out) == (expected == 0)


def test_a_compiler_that_is_missing_or_fails_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert [finding.level for finding in doctor._compiler()] == ["warn"]
    broken = tmp_path / "broken++"
    broken.write_text("#!/bin/sh\necho sorry >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    (finding,) = doctor._compiler()
    assert finding.level == "warn"
    assert "(sorry)" in finding.text


@pytest.mark.parametrize("script", ["exit 1", None])
def test_a_video_encoder_that_fails_is_a_warning(monkeypatch, tmp_path, script):
    encoder = tmp_path / "ffmpeg"
    if script is not None:
        encoder.write_text(f"#!/bin/sh\n{script}\n")
        encoder.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(encoder))
    (finding,) = doctor._videos()
    assert finding.level == "warn"
    assert str(encoder) in finding.text
    assert "pip install --force-reinstall imageio-ffmpeg" in finding.text


def test_little_space_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "_ENOUGH_DISK", 10**18)
    monkeypatch.setattr(doctor, "_ENOUGH_MEMORY", 10**18)
    assert next(doctor._space()).level == "warn"
    assert next(doctor._memory()).level == "warn"


def test_the_other_package_of_this_import_name_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "0.2.1")
    *_, last = doctor._suite()
    assert last.level == "warn"
    assert "pip uninstall rlkit" in last.text
