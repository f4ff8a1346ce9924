"""Scores the images that arrive in a folder, each once."""

from collections.abc import Callable, Iterator
import pathlib
import time
from typing import NamedTuple

from absl import logging
from jaxtyping import UInt8
import numpy as np

from nps_jax import inference
from nps_jax import predicting
from nps_jax import ready
from nps_jax import scoring
from nps_jax.data import listing
from nps_jax.data import records
from nps_jax.report import lines

PAUSE = 0.5  # seconds between two looks into the folder
SETTLED = 1.0  # seconds without a change, after which a file counts as whole
NAP = 0.1  # seconds after which a signal is heard at the latest


class State(NamedTuple):
  """What changes with a file that is still being written."""

  bytes: int
  changed: int  # ns


class Watcher:
  """Looks into a folder again and again; what it has scored is in scores.csv.

  An image's id is its path below the folder, suffix included: unlike the shorter ids
  of other predictions it does not depend on what else arrives. A scored image is not
  looked at again, even if it changes; one that cannot be scored is, if it changes.
  """

  def __init__(
    self,
    run: inference.Run,
    category: str,
    folder: pathlib.Path,
    out: pathlib.Path,
    wanted: predicting.Wanted,
    limit: float,
  ):
    """Goes on with what `out` holds, and compiles.

    Raises:
      ValueError: there is no such folder, `out` lies within it, or holds the prediction
        of another run or with other settings.
    """
    if not folder.is_dir():
      raise ValueError(f"--watch={folder} is no folder.")
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
      raise ValueError(
        f"--out={out} lies within --watch={folder}, where its overlays would be taken "
        "for images. Give another folder."
      )
    wanted = wanted._replace(resume=not wanted.overwrite)
    started = predicting.identity(run, category, wanted, limit) | {"watched": True}
    predicting.check_out(out, (), wanted, started)
    self._scorer = ready.Scorer(run, category)
    self._scorer.warm()
    rows = predicting.begin(out, wanted, started)
    self._verdicts = {row["id"]: row["verdict"] for row in rows}  # of what is scored
    self._normal = run.calibrations[category].normal[scoring.SCORE]
    self._folder, self._out, self._wanted, self._limit = folder, out, wanted, limit
    self._seen: dict[str, tuple[State, float]] = {}  # since when a file is like this
    self._bad: dict[str, tuple[State, records.Record, str]] = {}

  def watch(self, enough: Callable[[], bool]) -> None:
    """Looks again and again, until it is enough."""
    while not enough():
      self.look(time.monotonic(), enough)
      until = time.monotonic() + PAUSE
      while not enough() and time.monotonic() < until:
        time.sleep(NAP)

  def look(self, now: float, enough: Callable[[], bool] = lambda: False) -> int:
    """Scores what has arrived and is whole; returns how many images that were.

    Args:
      now: seconds on any clock that does not go back.
      enough: whether to leave the rest for another time.
    """
    batch, count = [], 0
    for record, state in self._whole(now):
      if enough():
        break
      sent = self._read(record, state)
      batch += [] if sent is None else [sent]
      if len(batch) == self._scorer.most:
        count += self._score(batch)
        batch = []
    return count + (self._score(batch) if batch else 0)

  def done(self) -> predicting.Done:
    """What scores.csv and errors.csv hold."""
    anomalous = sum(verdict == lines.ANOMALOUS for verdict in self._verdicts.values())
    return predicting.Done(len(self._verdicts), anomalous, len(self._bad))

  def _whole(self, now: float) -> Iterator[tuple[records.Record, State]]:
    """The images that are to be scored and have stopped growing."""
    seen = {}
    for path in listing.walk(self._folder):
      name = path.relative_to(self._folder).as_posix()
      if not listing.is_image(path) or lines.plain(name) in self._verdicts:
        continue
      try:
        stat = path.stat()
      except OSError:  # gone again
        continue
      state = State(stat.st_size, stat.st_mtime_ns)
      before, since = self._seen.get(name, (state, now))
      seen[name] = (state, since if before == state else now)
    self._seen = seen
    for name, (state, since) in sorted(seen.items()):
      known = name in self._bad and self._bad[name][0] == state
      if now - since >= SETTLED and not known:
        path = self._folder / name
        yield records.Record(name, "", "test", "", path), state

  def _read(
    self, record: records.Record, state: State
  ) -> tuple[records.Record, UInt8[np.ndarray, "h w 3"]] | None:
    """The image at the model's size; None of one that cannot be scored."""
    problems = predicting.unnamable([record])
    try:
      if problems:
        raise ValueError(problems[0][1])
      record = self._scorer.known(record)
      pixels = self._scorer.read(record)
    except (ValueError, FileNotFoundError) as error:
      if record.image.exists():  # else it is gone again
        logging.warning("%s", error)
        self._bad[record.id] = (state, record, str(error))
        self._tell_bad()
      return None
    if self._bad.pop(record.id, None):
      self._tell_bad()
    return record, pixels

  def _tell_bad(self) -> None:
    bad = [(record, reason) for _, record, reason in self._bad.values()]
    predicting.write_errors(self._out, bad)

  def _score(
    self, batch: list[tuple[records.Record, UInt8[np.ndarray, "h w 3"]]]
  ) -> int:
    """Scores these images and writes what is found."""
    images, pixels = zip(*batch, strict=True)
    count = 0
    for scored in self._scorer.score(images, pixels):
      where = (self._out, self._wanted, self._limit)
      try:
        (row,) = predicting.write([scored], self._normal, *where)
      except ValueError as error:  # gone or changed since it was read
        logging.warning("%s", error)
        continue
      self._verdicts[lines.plain(row["id"])] = row["verdict"]
      count += 1
    return count
