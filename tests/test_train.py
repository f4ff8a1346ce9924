"""The main job's door: how it ends, and what it does with a run that has ended."""

import pathlib
import signal
import types

import pytest
import runs

from nps_jax import inference
from nps_jax import train
from nps_jax.runs import files
from nps_jax.runs import interruption


@pytest.fixture
def door(root, tmp_path, monkeypatch):
  """The command's flags, without absl; its handler of SIGTERM is put back."""
  flags = {"WORKDIR": str(tmp_path), "MULTIHOST": False}
  monkeypatch.setattr(train.console, "chosen", lambda flag: runs.config(root))
  for name, value in flags.items():
    monkeypatch.setattr(train, name, types.SimpleNamespace(value=value))
  before = signal.getsignal(signal.SIGTERM)
  yield monkeypatch
  signal.signal(signal.SIGTERM, before)


def bare_run(folder):
  """A run of which only the folder is known."""
  run = object.__new__(inference.Run)
  object.__setattr__(run, "folder", folder)
  return run


def fails_with(error):
  def fit(config, workdir, trained):
    raise error

  return fit


@pytest.mark.parametrize(
  "error",
  [
    ValueError("a setting"),
    FloatingPointError("a loss"),
    OSError("the disk"),
    FileNotFoundError("a file"),
  ],
)
def test_errors_are_told_in_a_line(door, error):
  door.setattr(train.trainer, "fit", fails_with(error))
  with pytest.raises(SystemExit) as caught:
    train.main(["train"])
  assert caught.value.code == f"Error: {error}"


def test_a_stopped_training_has_its_own_exit_status(door, capsys):
  door.setattr(train.trainer, "fit", fails_with(KeyboardInterrupt()))
  with pytest.raises(SystemExit) as caught:
    train.main(["train"])
  assert caught.value.code == interruption.EXIT == 75
  assert "start the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket/run"])
def test_a_bucket_is_refused_not_taken_for_a_folder(door, address):
  door.setattr(train, "WORKDIR", types.SimpleNamespace(value=address))
  with pytest.raises(SystemExit, match=f"workdir is {address}; expected a folder"):
    train.main(["train"])
  assert not pathlib.Path(address.split("/")[0]).exists()


def test_results_that_are_there_are_shown_and_stay(door, tmp_path, capsys):
  run = bare_run(tmp_path)
  door.setattr(train.trainer, "fit", lambda config, workdir, trained: run)
  door.setattr(train.evaluating, "evaluate", fails_with(AssertionError()))
  for name, text in ((files.RESULTS, "[]"), ("results.md", "| a table |")):
    (tmp_path / name).write_text(text)
  train.main(["train"])
  told = capsys.readouterr().out
  assert "| a table |" in told and str(tmp_path / files.RESULTS) in told
  assert (tmp_path / files.RESULTS).read_text() == "[]"


def test_a_run_without_results_is_evaluated(door, tmp_path):
  run = bare_run(tmp_path)
  written = []
  door.setattr(train.trainer, "fit", lambda config, workdir, trained: run)
  door.setattr(train.evaluating, "evaluate", lambda given: [given])
  door.setattr(train.publishing, "publish", lambda *given: written.append(given))
  train.main(["train"])
  assert written == [([run], tmp_path / files.RESULTS)]
