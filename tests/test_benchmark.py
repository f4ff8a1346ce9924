"""The benchmark measures what it says, in the shape that it promises."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import runs

from nps_jax.benchmarking import metrics
from nps_jax.benchmarking import rival
from nps_jax.benchmarking import running
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.data import records


def tiny():
  return runs.config("", data__category="tray", train__batch_size=8)


def test_calls_take_turns_after_a_warming_and_the_median_counts():
  order, waits = [], {"a": iter([0.3, 0.3, 0.0, 0.03, 0.03, 0.03, 0.2])}

  def call(name):
    order.append(name)
    time.sleep(next(waits.get(name, iter(())), 0.0))

  seconds = timing.interleaved({"a": lambda: call("a"), "b": lambda: call("b")})
  assert order[:14] == ["a", "b"] * 7 and len(order) == 2 * (2 + timing.MOST)
  assert set(seconds) == {"a", "b"} and seconds["a"] < 0.02


def test_a_command_that_fails_shows_what_it_said():
  spent = timing.command([sys.executable, "-c", "b = bytes(2**26)"])
  assert spent.peak_mib > 64 and spent.cpu_seconds > 0
  with pytest.raises(ValueError, match=r"failed: Error: no"):
    timing.command([sys.executable, "-c", "raise SystemExit('Error: no')"])


def test_predict_is_told_in_the_promised_shape():
  """On eight devices a batch has eight rows at least."""
  wanted = running.Wanted(("predict",), images=5, batches=(1, 16))
  (told,) = running.measure(tiny(), wanted)
  told = json.loads(json.dumps(told))
  assert list(told) == ["part", "device", "image_size", "batch", "peak_mib"]
  assert told["part"] == "predict" and told["device"] == "cpu: cpu x 8"
  assert told["image_size"] == [64, 64]
  assert list(told["batch"]) == ["8", "16"]
  for row in told["batch"].values():
    assert list(row) == ["detector_ms", "encoder_ms"]
    assert 0 < row["encoder_ms"] < row["detector_ms"]
  assert told["peak_mib"]["host"] > 50 and told["peak_mib"]["device"] is None
  row = {"detector_ms": 20.0, "encoder_ms": 10.0}
  text = running.to_text(
    told | {"batch": {"8": row, "16": {**row, "detector_ms": 4.0}}}
  )
  assert "detector     20.00 ms an image   encoder 10.00 ms (2.00 x)   50.0 im" in text
  assert text.endswith("best at batch 16: 250.0 images/s")


def test_training_and_reading_stand_beside_the_encoder():
  told = list(running.measure(tiny(), running.Wanted(("train", "input"), images=5)))
  assert [one["part"] for one in told] == ["train", "input"]
  for one, name in zip(told, ("step_ms", "read_ms"), strict=True):
    row = one["batch"]["8"]
    assert list(row) == [name, "encoder_ms"] and min(row.values()) > 0


def test_a_random_run_has_the_memory_of_so_many_images(tmp_path):
  run = subjects.run(tiny(), tmp_path)
  priors = subjects.priors(run, 10)
  # A tenth of 8 x 8 patches of ten images, of ResNet-18's f3 and f4 side by side.
  assert priors.memory.patches.shape == (64, 128 + 256)
  assert priors.vocabulary.codes.shape == (32, 128)
  assert run.about.deepest == 4


def test_a_trained_run_is_measured_as_it_is(run):
  wanted = running.Wanted(("predict",), run=run.folder, batches=(8,))
  (told,) = running.measure(tiny(), wanted)
  assert told["image_size"] == [64, 64] and list(told["batch"]) == ["8"]


def test_the_calibration_is_of_as_many_images_as_were_asked_for():
  config = tiny()
  config.scoring.edits = 4
  (told,) = running.measure(config, running.Wanted(("calibrate",), images=10))
  assert told["images"] == {"train": 10, "validation": 2}
  assert min(told["seconds"].values()) > 0
  assert "priors" in running.to_text(told)


@pytest.mark.slow
def test_startup_has_its_steps_cold_and_warm_of_a_stored_random_run():
  config = tiny()
  (told,) = running.measure(config, running.Wanted(("startup",), images=5))
  for state in ("cold", "warm"):
    steps = told["seconds"][state]
    assert list(steps) == [
      *("command", "command_cpu"),
      *("imports", "opening", "compiling", "image"),
    ]
    assert steps["imports"] > 0 and steps["command"] > steps["image"]
  text = running.to_text(told)
  assert "  cold: command " in text and "  warm: command " in text


class Tensor:
  """What `rival.check` asks of PyTorch's."""

  def __init__(self, values):
    self.values = np.float32(values)

  def cpu(self):
    return self

  def numpy(self):
    return self.values


def test_another_encoder_must_give_the_same():
  ours = np.float32(np.arange(24).reshape(1, 2, 3, 4))
  theirs = ours.transpose(0, 3, 1, 2)
  assert rival.check({2: ours}, {2: Tensor(theirs)}) == 0
  assert rival.check({2: ours}, {2: Tensor(theirs + 0.02)}) < 1e-3
  with pytest.raises(ValueError, match=r"differs from ours by 0.0013 .* at most 0.001"):
    rival.check({2: ours}, {2: Tensor(theirs + 0.03)})


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"parts": ()}, "Nothing cannot be measured; name some of predict, train"),
    ({"parts": ("predict", "speed")}, "^speed cannot be measured"),
    ({"images": 0}, "--images is 0"),
    ({"batches": (1, 0)}, r"--batches \[1, 0\]; expected numbers of 1 or more"),
    ({"against": "keras"}, "--against is 'keras'; expected torch"),
    ({"against": "torch", "parts": ("train",)}, "goes with the part predict"),
    ({"against": "torch"}, "needs PyTorch, which is not installed here"),
  ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
  monkeypatch, changes, words
):
  monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
  wanted = running.Wanted(("predict",))._replace(**changes)
  with pytest.raises(ValueError, match=words):
    list(running.measure(tiny(), wanted))


def test_a_folder_that_is_no_run_is_named(tmp_path):
  wanted = running.Wanted(("predict",), run=tmp_path)
  with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
    list(running.measure(tiny(), wanted))


def test_the_metrics_benchmark_evaluates_all_its_maps(tmp_path, monkeypatch):
  counts = {records.GOOD: 2, records.LOGICAL: 2, records.STRUCTURAL: 1}
  monkeypatch.setattr(metrics, "COUNTS", counts)
  monkeypatch.setattr(metrics, "SIDE", 200)
  told = metrics.evaluate(tmp_path)
  assert told["images"] == 5 and told["image_size"] == [200, 200]
  assert told["seconds"]["command"] > 0 and told["peak_mib"]["host"] > 20
  (result,) = json.loads((tmp_path / "results.json").read_text())
  assert result["n_test"] == 5 and result["n_by_kind"] == {"half": 3, "few": 1}
  assert set(result["au_spro"]["mean"]) == {"0.01", "0.05", "0.1", "0.3", "1.0"}


def test_the_command_takes_parts_by_place_and_a_config_only_where_it_is_named():
  command = [sys.executable, "-m", "nps_jax.benchmark"]

  def said(*words):
    done = subprocess.run(
      [*command, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]

  assert said("speed") == (
    "Error: speed cannot be measured; name some of predict, train, input, calibrate, "
    "metrics, startup."
  )
  assert "--batches is ['x']; expected numbers" in said("predict", "--batches=x")
  assert "There is no file lost.py" in said("predict", "--config=lost.py")
