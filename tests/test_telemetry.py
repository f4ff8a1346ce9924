"""metrics.jsonl over interruptions, the progress bar, and who writes them."""

import importlib.machinery
import json
import sys
import types

import pytest

from nps_jax import distributed
from nps_jax.runs import telemetry


@pytest.fixture(autouse=True)
def clock(monkeypatch):
  """A clock that tests set, and no TensorBoard."""
  now = types.SimpleNamespace(seconds=100.0)
  fake = types.SimpleNamespace(perf_counter=lambda: now.seconds)
  monkeypatch.setattr(telemetry, "time", fake)
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  return now


def opened(workdir, step=0):
  return telemetry.Telemetry(workdir, step=step, steps=10, batch_size=4)


def lines(workdir):
  return (workdir / telemetry.FILE).read_text().splitlines()


def test_each_write_is_a_line_with_speed_and_time(tmp_path, clock):
  log = opened(tmp_path)
  clock.seconds += 2.0
  log.write(3, {"loss": 0.5, "commitment": 0.25})
  first = {"step": 3, "loss": 0.5, "commitment": 0.25}
  first |= {"images_per_second": 6.0, "seconds": 2.0}  # 3 steps of 4 images in 2 s
  assert [json.loads(each) for each in lines(tmp_path)] == [first]
  clock.seconds += 0.3
  log.write(4, {"loss": 0.125})
  log.close()
  second = {"step": 4, "loss": 0.125, "images_per_second": 13.33, "seconds": 2.3}
  assert telemetry.read(tmp_path) == [first, second]
  assert list(json.loads(lines(tmp_path)[0])) == list(first)


def test_a_resumed_run_drops_later_lines_and_adds_up_the_seconds(tmp_path, clock):
  log = opened(tmp_path)
  for step in (2, 4, 6):
    clock.seconds += 10.0
    log.write(step, {"loss": 1.0})
  log.close()
  kept = lines(tmp_path)[:2]
  clock.seconds += 5000.0  # while nothing runs
  log = opened(tmp_path, step=4)
  assert lines(tmp_path) == kept
  clock.seconds += 1.5
  log.write(6, {"loss": 0.5})
  log.close()
  assert lines(tmp_path)[:2] == kept
  found = telemetry.read(tmp_path)
  assert [each["step"] for each in found] == [2, 4, 6]
  assert [each["seconds"] for each in found] == [10.0, 20.0, 21.5]
  assert found[2]["images_per_second"] == 5.33  # 2 steps of 4 images in 1.5 s


def test_a_run_that_starts_again_starts_a_new_file(tmp_path, clock):
  log = opened(tmp_path)
  clock.seconds += 10.0
  log.write(2, {"loss": 1.0})
  log.close()
  log = opened(tmp_path, step=0)
  assert lines(tmp_path) == []
  clock.seconds += 3.0
  log.write(2, {"loss": 1.0})
  log.close()
  assert [each["seconds"] for each in telemetry.read(tmp_path)] == [3.0]


def test_a_half_written_last_line_is_ignored_and_then_replaced(tmp_path, clock):
  log = opened(tmp_path)
  clock.seconds += 1.0
  log.write(2, {"loss": 1.0})
  log.close()
  whole = (tmp_path / telemetry.FILE).read_text()
  for length in range(1, len(whole) - 1):
    (tmp_path / telemetry.FILE).write_text(whole + whole[:length])
    assert telemetry.read(tmp_path) == [json.loads(whole)]
  log = opened(tmp_path, step=2)
  clock.seconds += 1.0
  log.write(4, {"loss": 0.5})
  log.close()
  assert [json.loads(each)["seconds"] for each in lines(tmp_path)] == [1.0, 2.0]


def test_a_folder_without_metrics_reads_as_no_lines(tmp_path):
  assert telemetry.read(tmp_path) == []


def test_hosts_that_do_not_lead_write_nothing(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(distributed, "is_lead", lambda: False)
  log = opened(tmp_path / "run")
  log.advance(3)
  log.write(3, {"loss": 0.5})
  log.close()
  assert list(tmp_path.iterdir()) == []
  assert capsys.readouterr() == ("", "")


def test_the_bar_shows_steps_loss_and_speed(tmp_path, clock, capsys):
  log = opened(tmp_path, step=4)
  assert "4/10" in capsys.readouterr().err
  log.advance(7)
  clock.seconds += 0.5
  log.write(7, {"loss": 0.12345})
  log.advance(8)
  log.close()
  shown = capsys.readouterr().err
  assert "8/10" in shown and "loss 0.1235, 24.0 images/s" in shown


class Board:
  """Stands in for tensorboardX.SummaryWriter."""

  def __init__(self, folder):
    self.folder, self.scalars, self.closed = folder, [], False

  def add_scalar(self, name, value, step):
    self.scalars.append((name, value, step))

  def close(self):
    self.closed = True


def test_tensorboard_gets_the_same_numbers_where_it_is_installed(
  tmp_path, clock, monkeypatch
):
  made = []
  module = types.ModuleType("tensorboardX")
  module.__spec__ = importlib.machinery.ModuleSpec("tensorboardX", None)
  module.SummaryWriter = lambda folder: made.append(Board(folder)) or made[-1]
  monkeypatch.setitem(sys.modules, "tensorboardX", module)
  log = opened(tmp_path)
  clock.seconds += 2.0
  log.write(3, {"loss": 0.5})
  log.close()
  (board,) = made
  assert board.folder == str(tmp_path / "tensorboard") and board.closed
  (line,) = telemetry.read(tmp_path)
  assert line["loss"] == 0.5
  assert {(name, value, 3) for name, value in line.items()} == set(board.scalars)


def test_a_full_disk_is_named_with_the_way_out(tmp_path):
  log = telemetry.Telemetry(tmp_path, step=0, steps=9, batch_size=4)
  log._file.close()
  with open("/dev/full", "w") as full:
    log._file = full
    told = r"cannot be written to \(No space left on device\)\. Make room or mend"
    with pytest.raises(OSError, match=told):
      log.write(1, {"loss": 0.5})
    with pytest.raises(OSError, match=told):
      log.close()
