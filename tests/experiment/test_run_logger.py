import errno
import json
import math

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Figure, Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlkit.experiment import run_logger as metrics
from rlkit.experiment.run_logger import RunLogger, read_metrics, rewind
from rlkit.io import atomic_write


def log(folder, steps):
    logger = RunLogger(folder)
    for step in steps:
        logger.record("train/loss", step / 2)
        logger.dump(step)
    logger.sync()
    logger.close()


def scalars(folder, tag="train/loss"):
    """All points of the raw event files."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_both_files_hold_every_step(tmp_path):
    log(tmp_path, [10, 20, 30])
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    assert scalars(tmp_path) == [(10, 5.0), (20, 10.0), (30, 15.0)]


def test_values_of_every_kind(tmp_path):
    from matplotlib.figure import Figure as Drawing

    logger = RunLogger(tmp_path)
    logger.record("a/float32", np.float32(0.5))
    logger.record("a/tensor", torch.tensor(2.0))
    logger.record("a/nan", math.nan)
    logger.record("a/hidden", 1, exclude="tensorboard")
    logger.record("a/text", "hello", exclude="json")
    logger.record("a/histogram", np.arange(5.0))
    logger.record("a/figure", Figure(Drawing(figsize=(1, 1)), close=True))
    logger.record("a/image", Image(np.zeros((4, 4, 3), np.uint8), "HWC"))
    logger.dump(1)
    logger.close()
    row = read_metrics(tmp_path)[0]
    assert row == {"step": 1, "a/float32": 0.5, "a/tensor": 2.0, "a/nan": None, "a/hidden": 1}
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    assert accumulator.Tags()["scalars"] == ["a/float32", "a/nan", "a/tensor"]
    assert accumulator.Tags()["images"] == ["a/figure", "a/image"]
    assert accumulator.Tags()["histograms"] == ["a/histogram"]
    assert accumulator.Tags()["tensors"] == ["a/text/text_summary"]


def test_settings_stand_on_tensorboards_page_of_hyperparameters(tmp_path):
    logger = RunLogger(tmp_path)
    settings = {"agent": "sac", "gamma": 0.9, "check_env": True, "layers": [64, 64]}
    logger.events.add_settings(settings, ["eval/success_rate"])
    logger.close()
    rewind(tmp_path, 0)
    content = EventAccumulator(str(tmp_path)).Reload().PluginTagToContent("hparams")
    found = HParamsPluginData.FromString(content[metadata.SESSION_START_INFO_TAG])
    values = found.session_start_info.hparams
    assert (values["agent"].string_value, values["gamma"].number_value) == ("sac", 0.9)
    assert (values["check_env"].string_value, values["layers"].string_value) == ("true", "[64, 64]")
    shown = HParamsPluginData.FromString(content[metadata.EXPERIMENT_TAG]).experiment
    assert [metric.name.tag for metric in shown.metric_infos] == ["eval/success_rate"]


def test_a_figure_is_the_same_in_its_file_and_among_the_events(tmp_path):
    from matplotlib.figure import Figure as Drawing

    events = metrics.EventFile(tmp_path)
    events.add_figure("a/figure", Drawing(figsize=(2, 1), dpi=50), 3, tmp_path / "figure.png")
    events.add_figure("b/figure", Drawing(figsize=(2, 1), dpi=50), 3)
    events.close()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    (shown,) = accumulator.Images("a/figure")
    assert (shown.step, shown.width, shown.height) == (3, 100, 50)
    assert shown.encoded_image_string == (tmp_path / "figure.png").read_bytes()
    assert accumulator.Tags()["images"] == ["a/figure", "b/figure"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["figure.png"]


def test_rewinding_leaves_no_later_and_no_double_step(tmp_path):
    log(tmp_path, [10, 20, 30, 40])
    rewind(tmp_path, 20)
    log(tmp_path, [30, 50])
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30, 50]
    assert scalars(tmp_path) == [(10, 5.0), (20, 10.0), (30, 15.0), (50, 25.0)]
    sizes = [path.stat().st_size > 0 for path in sorted(tmp_path.glob("*tfevents*"))]
    assert sizes == [False, True]


def test_rewinding_to_before_the_start_leaves_a_readable_file(tmp_path):
    log(tmp_path, [0, 10])
    rewind(tmp_path, -1)
    log(tmp_path, [0])
    assert scalars(tmp_path) == [(0, 0.0)]
    assert [row["step"] for row in read_metrics(tmp_path)] == [0]


def test_resuming_often_leaves_two_event_files(tmp_path):
    for _ in range(4):
        log(tmp_path, [10, 20])
        rewind(tmp_path, 10)
    assert scalars(tmp_path) == [(10, 5.0)] * 4
    assert len(list(tmp_path.glob("*tfevents*"))) == 2


def test_a_watching_tensorboard_sees_each_step_once(tmp_path):
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    log(tmp_path, [10, 20, 30])
    accumulator.Reload()
    rewind(tmp_path, 20)
    log(tmp_path, [30, 40])
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("train/loss")] == [10, 20, 30, 40]


def test_incomplete_last_records_are_cut(tmp_path):
    log(tmp_path, [10, 20])
    events = next(tmp_path.glob("*tfevents*"))
    for path in (tmp_path / "metrics.jsonl", events):
        path.write_bytes(path.read_bytes()[:-7])
    assert [row["step"] for row in read_metrics(tmp_path)] == [10]
    rewind(tmp_path, 20)
    log(tmp_path, [20])
    assert scalars(tmp_path) == [(10, 5.0), (20, 10.0)]
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]


@pytest.mark.parametrize("moment", range(4))
def test_rewinding_killed_at_any_moment_loses_nothing(tmp_path, monkeypatch, moment):
    log(tmp_path, [10, 20, 30])
    calls = iter(range(100))
    real = atomic_write.os.replace

    def killed(source, target):
        if next(calls) == moment:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_write.os, "replace", killed)
        if moment < 3:  # metrics, the new events, the emptied old ones
            with pytest.raises(KeyboardInterrupt):
                rewind(tmp_path, 20)
        else:
            rewind(tmp_path, 20)
    rewind(tmp_path, 20)
    rewind(tmp_path, 20)
    assert scalars(tmp_path) == [(10, 5.0), (20, 10.0)]
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]
    assert len(list(tmp_path.glob("*tfevents*"))) == 2


def test_pending_values_survive_a_checkpoint(tmp_path):
    one, two, whole = (
        RunLogger(tmp_path / name) for name in "abc" if (tmp_path / name).mkdir() is None
    )
    for logger in (one, whole):
        logger.record_mean("train/loss", np.float32(0.1))
        logger.record_mean("train/loss", np.float32(0.2))
        logger.record("train/rate", 0.5, exclude="tensorboard")
    two.restore(json.loads(json.dumps(one.pending())))
    for logger in (two, whole):
        logger.record_mean("train/loss", np.float32(0.7))
        logger.dump(3)
    assert read_metrics(tmp_path / "b") == read_metrics(tmp_path / "c")
    for logger in (one, two, whole):
        logger.close()


class FullDisk:
    """A file that has room for a number of bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        data = data[: self.room]
        self.room -= len(data)
        if not data:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_warns_once_and_keeps_the_curves_readable(tmp_path):
    logger = RunLogger(tmp_path)
    logger.record("train/loss", 1.0)
    logger.dump(1)
    files = [logger.metrics._file, logger.events._file]
    real = [file._file for file in files]
    for file in files:
        file._file = FullDisk(file._file, 20)
    logger.record("train/loss", 1.0)
    with pytest.warns(RuntimeWarning, match="cannot be written") as caught:
        logger.dump(2)
    assert len(caught) == 2  # one per file
    logger.record("train/loss", 1.0)
    logger.dump(3)  # and no second warning, which would be an error here
    for file, whole in zip(files, real, strict=True):
        file._file = whole
    logger.record("train/loss", 1.0)
    logger.dump(4)
    logger.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 4]
    assert [step for step, _ in scalars(tmp_path)] == [1, 4]


def test_event_files_name_no_host(tmp_path):
    log(tmp_path, [1])
    assert [p.name for p in tmp_path.glob("*tfevents*")] == [metrics._event_name(0)]
