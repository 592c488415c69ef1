"""The curves of a run: `metrics.jsonl` and TensorBoard's events, cut back when a run resumes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.logger import Figure, Image, KVWriter, Logger
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from rlkit.io.atomic_write import AppendOnlyFile, replace_file

METRICS = "metrics.jsonl"
encode: Any = summary  # torch leaves these functions untyped


class MetricsFile(KVWriter):
    """Writes one JSON object per line: `step` and every logged scalar.

    Args:
        path: The file; continued if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._file = AppendOnlyFile(path)

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Appends one line."""
        shown = {
            key: value
            for key, value in sorted(key_values.items())
            if "json" not in (key_excluded.get(key) or ())
        }
        row = {"step": int(step), **_scalars(shown)}
        self._file.append(json.dumps(row, allow_nan=False).encode() + b"\n")

    def size(self) -> int:
        """Bytes so far."""
        return self._file.size()

    def sync(self) -> None:
        """Forces the lines onto the disk."""
        self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class EventFile(KVWriter):
    """Writes TensorBoard's events of a run to one file, without a thread.

    The file can therefore be synced before each checkpoint and cut at its step. Unlike with
    TensorBoard's own writer, its name contains no host name.

    Args:
        folder: The run's folder; an event file in it is continued.
    """

    def __init__(self, folder: Path) -> None:
        files = _event_files(folder)
        self._file = AppendOnlyFile(files[-1] if files else folder / _event_name(0))
        if not files:
            self._file.append(_event_header())

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Appends one event with every value that TensorBoard can show."""
        values = [
            value
            for key in sorted(key_values)
            if "tensorboard" not in (key_excluded.get(key) or ())
            for value in _summary(key, key_values[key]).value
        ]
        if values:
            self.add(Summary(value=values), step)

    def add(self, summary: Summary, step: int) -> None:
        """Appends a summary protocol buffer."""
        event = Event(wall_time=time.time(), step=int(step), summary=summary)
        self._file.append(_event_record(event))

    def add_figure(self, tag: str, figure: Any, step: int, path: Path | None = None) -> None:
        """Appends a Matplotlib figure, and writes it as a PNG file if a path is given."""
        summary = _figure_summary(tag, figure)
        if path is not None:
            replace_file(path, summary.value[0].image.encoded_image_string)
        self.add(summary, step)

    def add_settings(self, settings: Mapping[str, Any], metrics: Iterable[str]) -> None:
        """Appends settings and the tags of metrics for TensorBoard's page HPARAMS.

        Args:
            settings: Numbers, strings, booleans and lists by name.
            metrics: Tags of scalars that the page shows beside them.
        """
        self.add(_settings_summary(settings, metrics), 0)

    def size(self) -> int:
        """Bytes so far."""
        return self._file.size()

    def sync(self) -> None:
        """Forces the events onto the disk."""
        self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class RunLogger(Logger):
    """SB3's logger with the two files of a run, for `agent.set_logger`.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.metrics, self.events = MetricsFile(folder / METRICS), EventFile(folder)
        super().__init__(str(folder), [self.metrics, self.events])

    def sync(self) -> None:
        """Forces the curves onto the disk, before a checkpoint that must not be ahead of them."""
        self.metrics.sync()
        self.events.sync()

    def sizes(self) -> dict[str, int]:
        """Bytes of the metrics and of the events so far, for `rewind`."""
        return {"metrics": self.metrics.size(), "events": self.events.size()}

    def record_mean(
        self, key: str, value: float | None, exclude: str | tuple[str, ...] | None = None
    ) -> None:
        """Records a value that is averaged until the next dump."""
        # As a Python float: a float32 mean would not continue exactly from a checkpoint.
        super().record_mean(key, None if value is None else float(value), exclude)

    def pending(self) -> dict[str, Any]:
        """Recorded values that are not dumped yet, as plain data for a checkpoint."""
        return {
            key: [value, self.name_to_count.get(key, 0), list(self.name_to_excluded.get(key, ()))]
            for key, value in _scalars(self.name_to_value).items()
        }

    def restore(self, pending: dict[str, Any]) -> None:
        """Restores what `pending` returned."""
        for key, (value, count, excluded) in pending.items():
            self.name_to_value[key] = math.nan if value is None else value
            self.name_to_excluded[key] = tuple(excluded)
            if count:
                self.name_to_count[key] = count


def rewind(folder: Path, step: int, sizes: Mapping[str, int] | None = None) -> None:
    """Cuts a run's curves after a step; incomplete last records are removed, too.

    If the process is killed meanwhile, a second call completes it.

    Args:
        folder: The run's.
        step: Later points are removed.
        sizes: What `RunLogger.sizes` gave: what was written after it is removed, too.

    Raises:
        OSError: If a file cannot be written.
    """
    lines = folder / METRICS
    if lines.is_file():
        kept = b"".join(_within(_lines_until(lines, step), (sizes or {}).get("metrics")))
        if kept != lines.read_bytes():
            replace_file(lines, kept)
    files = _event_files(folder)
    if files:
        header = _event_header()  # as long as that of the file before
        size = (sizes or {}).get("events")
        events = _within(
            _events_until(files[-1], step), None if size is None else size - len(header)
        )
        kept = header + b"".join(events)
        if len(kept) != files[-1].stat().st_size:
            # A new name, because a running TensorBoard does not read earlier files again. The
            # newest file holds everything, so two of them do no harm for a moment.
            files.append(folder / _event_name(_event_number(files[-1]) + 1))
            replace_file(files[-1], kept)
    for older in files[:-2]:
        older.unlink()
    for older in files[-2:-1]:
        replace_file(older, b"")  # emptied, since a running TensorBoard stops at a missing file


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without an incomplete last one."""
    path = folder / METRICS
    if not path.is_file():
        return []
    return [json.loads(line) for line in _lines_until(path, None)]


def _within(records: Iterable[bytes], size: int | None) -> Iterator[bytes]:
    """The records that lie in the first `size` bytes; None for all."""
    end = 0
    for record in records:
        end += len(record)
        if size is not None and end > size:
            return
        yield record


def _lines_until(path: Path, step: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                return
            if line.endswith(b"\n") and (step is None or row["step"] <= step):
                yield line


def _events_until(path: Path, step: int) -> Iterator[bytes]:
    for data in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(data)
        if event.step <= step and event.HasField("summary"):
            yield _event_record(event)


def _event_header() -> bytes:
    # The start mark makes readers discard earlier data of the run, which this file repeats.
    start = SessionLog(status=SessionLog.START)
    return _event_record(
        Event(wall_time=time.time(), file_version="brain.Event:2")
    ) + _event_record(Event(wall_time=time.time(), step=0, session_log=start))


def _event_record(event: Event) -> bytes:
    record = BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _event_name(number: int) -> str:
    # TensorBoard reads the files of a run in the order of their names.
    return f"events.out.tfevents.{number:010d}.rlkit"


def _event_number(path: Path) -> int:
    return int(path.name.split(".")[3])


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*.rlkit"))


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars among logged values as JSON values; null for those that are not finite."""
    scalars: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray | np.generic) and value.size == 1:
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if value is None or isinstance(value, bool | int | float | str):
            scalars[key] = value
    return scalars


def _summary(tag: str, value: Any) -> Summary:
    if isinstance(value, str):
        return encode.text(tag, value)
    if isinstance(value, Figure):
        return _figure_summary(tag, value.figure)
    if isinstance(value, Image):
        return encode.image(tag, value.image, dataformats=value.dataformats)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.size > 1:
        return encode.histogram(tag, value, bins="auto")
    scalars = _scalars({tag: value})
    if tag not in scalars:
        return Summary()  # SB3's videos and hyperparameters are not supported
    number = math.nan if scalars[tag] is None else scalars[tag]
    return Summary(value=[Summary.Value(tag=tag, simple_value=number)])


def _settings_summary(settings: Mapping[str, Any], metrics: Iterable[str]) -> Summary:
    plain = {
        name: value if type(value) in (int, float, str) else json.dumps(value, default=str)
        for name, value in settings.items()
    }
    # One session: TensorBoard needs its start and its end to list it.
    parts = encode.hparams(plain, dict.fromkeys(metrics, 0.0))
    return Summary(value=[value for part in parts for value in part.value])


def figure_pixels(figure: Any) -> NDArray[np.uint8]:
    """A Matplotlib figure as pixels `(H, W, 3)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image `(H, W, 3)` as the bytes of a PNG file."""
    from PIL import Image as Pillow

    stream = BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _figure_summary(tag: str, figure: Any) -> Summary:
    pixels = figure_pixels(figure)
    return image_summary(tag, png(pixels), pixels.shape[0], pixels.shape[1])


def image_summary(tag: str, encoded: bytes, height: int, width: int) -> Summary:
    """An encoded image, PNG or animated GIF, for TensorBoard."""
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    return Summary(value=[Summary.Value(tag=tag, image=image)])
