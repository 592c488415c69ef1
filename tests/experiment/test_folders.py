import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.experiment.folders import data_folder, default_path, free_folder, require_run, runs_in
from rlkit.experiment.recipe import make_recipe

RECIPE = make_recipe({"env": "my_pkg:Me-v0", "agent": "pkg.mod:Class", "seed": 3})


def make_run(path):
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text("")


def test_default_folders_are_free_and_one_level_per_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = default_path(RECIPE, "quickstart")
    assert path == Path("runs/out/my_pkg-Me-v0/pkg.mod-Class/quickstart-seed3")
    path.mkdir(parents=True)
    assert default_path(RECIPE, "quickstart").name == "quickstart-seed3-2"
    assert default_path(RECIPE, "quickstart", seeds=True).name == "quickstart-seeds"


def test_what_is_made_of_data_has_one_folder_level_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = data_folder("worlds", "./data/tanks.csv", "pkg.mod:Class-seed0")
    assert path == Path("runs/out/worlds/data-tanks.csv/pkg.mod-Class-seed0")
    for name in ("pkg.mod-Class-seed0", "pkg.mod-Class-seed0-2", "pkg.mod-Class-seed0-3"):
        free = free_folder(path)
        assert free == path.with_name(name)
        free.mkdir(parents=True)


def test_a_folder_without_a_run_suggests_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is no run: it holds no recipe\.toml\. The folder"):
        require_run(Path("nowhere"))
    for age, name in enumerate(["runs/out/e/a/old", "runs/out/new", "runs/out/e/a/many/seed-0"]):
        make_run(tmp_path / name)
        os.utime(tmp_path / name / "recipe.toml", (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "runs/out/new/recipe.toml", (2e9, 2e9))
    with pytest.raises(ValueError, match=r"The newest run here is runs/out/new\."):
        require_run(Path("nowhere"))
    with pytest.raises(ValueError, match=r"holds runs, such as runs/out/e/a/many/seed-0"):
        require_run(Path("runs/out/e/a/many"))
    require_run(Path("runs/out/new"))


def test_runs_of_a_folder_lie_anywhere_in_it(tmp_path):
    for name in ("seed-1", "seed-0", "deep/er"):
        make_run(tmp_path / name)
    assert [path.name for path in runs_in(tmp_path)] == ["er", "seed-0", "seed-1"]


def test_names_of_folders_need_no_torch():
    code = "import rlkit.experiment.folders, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
