"""What a run says of itself: metrics.jsonl, a progress bar, TensorBoard."""

from collections.abc import Iterator, Mapping
import contextlib
import importlib.util
import json
import pathlib
import time

import tqdm

from nps_jax import distributed
from nps_jax.runs import files

FILE = "metrics.jsonl"


class Telemetry:
  """Writes scalars by step; on hosts other than the lead it does nothing.

  Raises OSError where it cannot write, and says what to do.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int, steps: int, batch_size: int):
    """Goes on after `step`: what an interrupted run wrote of later steps is dropped."""
    self._lead = distributed.is_lead()
    if not self._lead:
      return
    self._path = workdir / FILE
    keep = [line for line in read(workdir) if line["step"] <= step]
    text = "".join(json.dumps(line) + "\n" for line in keep)
    files.write_text(self._path, text)
    self._file = self._path.open("a", encoding="utf-8")
    self._bar = tqdm.tqdm(total=steps, initial=step, desc="train", unit="step")
    self._batch_size = batch_size
    self._since = (step, time.perf_counter())
    self._seconds = keep[-1]["seconds"] if keep else 0.0
    self._board = None
    if importlib.util.find_spec("tensorboardX"):
      import tensorboardX  # noqa: PLC0415 - an extra

      self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"))

  def advance(self, step: int) -> None:
    """Moves the progress bar."""
    if self._lead:
      self._bar.update(step - self._bar.n)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One line of metrics.jsonl; shows loss and images/s on the bar."""
    if not self._lead:
      return
    before, then = self._since
    now = time.perf_counter()
    speed = (step - before) * self._batch_size / max(now - then, 1e-9)
    self._since = (step, now)
    self._seconds += now - then
    line = {"step": step, **scalars}
    line |= {"images_per_second": round(speed, 2), "seconds": round(self._seconds, 3)}
    with self._clear_errors():
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
      if self._board is not None:
        for name, value in line.items():
          self._board.add_scalar(name, value, step)
    self._bar.set_postfix_str(f"loss {scalars['loss']:.4f}, {speed:.1f} images/s")

  def close(self) -> None:
    """Closes the file and the bar."""
    if not self._lead:
      return
    self._bar.close()
    with self._clear_errors():
      self._file.close()
      if self._board is not None:
        self._board.close()

  @contextlib.contextmanager
  def _clear_errors(self) -> Iterator[None]:
    """A failure to write names the folder and the way out."""
    try:
      yield
    except OSError as error:
      raise OSError(
        f"{self._path.parent} cannot be written to ({error.strerror}). Make room or "
        "mend the disk, then start the same command again: it goes on from the newest "
        "checkpoint."
      ) from error


def bar(images: int, what: str) -> tqdm.tqdm:
  """A progress bar in images, with images/s and the time left; on terminals only."""
  hidden = None if distributed.is_lead() else True
  return tqdm.tqdm(total=images, desc=what, unit=" images", disable=hidden)


def read(workdir: pathlib.Path) -> list[dict]:
  """The lines written so far; a half-written last line is passed over."""
  path = workdir / FILE
  if not path.exists():
    return []
  lines = []
  for text in path.read_text(encoding="utf-8").splitlines():
    try:
      lines.append(json.loads(text))
    except json.JSONDecodeError:
      break
  return lines
