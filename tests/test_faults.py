"""Faults of machines: kills, signals, full disks and flipped bits lose nothing."""

import json
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import time

import faulty
import numpy as np
import pytest

from nps_jax import inference
from nps_jax import trainer
from nps_jax.runs import arrays
from nps_jax.runs import checkpoints
from nps_jax.runs import description
from nps_jax.runs import integrity
from nps_jax.runs import interruption
from nps_jax.runs import locking
from nps_jax.runs import provenance
from nps_jax.runs import telemetry

pytestmark = pytest.mark.slow

KILLS = 30
LONGEST = 120  # seconds that a start may take before a test gives up
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["faulty"])  # imported once, forked for each start


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """Where every start finds what an earlier one has compiled."""
  return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(root, cache, tmp_path_factory):
  """The folder of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp("whole")
  assert finished(start(root, workdir, cache)) == 0
  return workdir


def start(root, workdir, cache, limit=None):
  process = PROCESSES.Process(target=faulty.train, args=(root, workdir, cache, limit))
  process.start()
  return process


def finished(process) -> int:
  process.join(LONGEST)
  code = process.exitcode
  process.kill()
  assert code is not None, "the training hangs"
  return code


def steps(workdir: pathlib.Path) -> list[str]:
  place = workdir / checkpoints.STEPS
  return sorted(each.name for each in place.iterdir()) if place.exists() else []


def wait(process, holds) -> None:
  """Waits until it holds, the process ends, or the time is up."""
  for _ in range(LONGEST * 200):
    if holds() or not process.is_alive():
      return
    time.sleep(0.005)
  raise AssertionError("nothing happens")


def saving(workdir: pathlib.Path) -> bool:
  return any("tmp" in name for name in steps(workdir))


def outcome(workdir: pathlib.Path):
  """All that a run has learnt, as bytes, and its losses."""
  run = inference.open_run(workdir)
  flat = checkpoints._sums({"variables": run.variables})
  timed = ("seconds", "images_per_second")
  lines = [
    {name: value for name, value in line.items() if name not in timed}
    for line in telemetry.read(workdir)
  ]
  calibration = np.load(workdir / inference.CALIBRATION)
  scales = {name: calibration[name].tobytes() for name in calibration.files}
  return run.step, flat, lines, scales


def test_thirty_kills_lose_nothing_and_change_nothing(root, whole, cache, tmp_path):
  """A third each: while a save is under way, a moment after one, and at any moment.

  Each run is killed until it has had its share or has ended, then left to end.
  """
  chance = random.Random(0)
  kills, caught, runs_ended = 0, 0, 0
  while kills < KILLS:
    workdir = tmp_path / str(runs_ended)
    for _ in range(faulty.STEPS - 4):
      process = start(root, workdir, cache)
      before = steps(workdir)
      if kills % 3 == 0:
        wait(process, lambda: saving(workdir))  # noqa: B023 - called at once
      else:
        wait(process, lambda: steps(workdir) != before)  # noqa: B023
        time.sleep(chance.uniform(0, 0.02 if kills % 3 == 1 else 0.5))
      caught += saving(workdir)
      process.kill()
      process.join()
      if process.exitcode == 0:
        break  # it has ended before the kill
      assert process.exitcode == -signal.SIGKILL
      kills += 1
      if kills == KILLS:
        break
    assert finished(start(root, workdir, cache)) == 0
    assert outcome(workdir) == outcome(whole)
    runs_ended += 1
  assert caught > 0, "no kill came while a step was being saved"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_with_a_checkpoint_and_its_own_exit_code(
  root, whole, cache, tmp_path, name
):
  process = start(root, tmp_path, cache)
  wait(process, lambda: len(telemetry.read(tmp_path)) >= 2)
  os.kill(process.pid, signal.Signals[name])
  assert finished(process) == interruption.EXIT
  last = max(int(each) for each in steps(tmp_path))
  assert len(telemetry.read(tmp_path)) == last < faulty.STEPS
  assert finished(start(root, tmp_path, cache)) == 0
  assert outcome(tmp_path) == outcome(whole)


def test_a_full_disk_stops_the_run_and_the_older_checkpoint_opens(
  root, whole, cache, tmp_path
):
  """The limit on a file's size stands for the disk: writing fails in earnest."""
  process = start(root, tmp_path, cache)
  wait(process, lambda: "2" in steps(tmp_path))
  process.kill()
  process.join()
  held = max(int(each) for each in steps(tmp_path) if each.isdecimal())
  limit = (16384, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
  assert finished(start(root, tmp_path, cache, limit)) == 1
  told = (cache / faulty.ERROR).read_text()
  assert told.startswith(f"Checkpoint {held + 1} cannot be saved in ")
  assert "Make room or mend the disk, then start the same command again" in told
  assert max(int(each) for each in steps(tmp_path) if each.isdecimal()) == held
  assert finished(start(root, tmp_path, cache)) == 0
  assert outcome(tmp_path) == outcome(whole)


def test_a_flip_in_any_stored_file_is_noticed(root, whole, tmp_path, caplog):
  """Every file but the lock and what is only told; each is named, and mended."""
  run = shutil.copytree(whole, tmp_path / "run")
  paths = [
    each
    for each in sorted(run.rglob("*"))
    if each.is_file()
    and each.name not in (telemetry.FILE, locking.FILE, provenance.FILE)
    and "tensorboard" not in each.parts
  ]
  newest = run / checkpoints.STEPS / str(faulty.STEPS)
  modules, aside = run / arrays.MODULES, tmp_path / arrays.MODULES
  assert {each.name for each in run.iterdir() if each.is_file()} >= {
    *("config.json", arrays.FROZEN, arrays.MODULES, "calibration.npz")
  }
  assert sum(newest in each.parents for each in paths) > 8
  chance = random.Random(1)
  for path in paths:
    content = path.read_bytes()
    at = chance.randrange(len(content))
    changed = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)])
    path.write_bytes(changed + content[at + 1 :])
    caplog.clear()
    if path.is_relative_to(run / checkpoints.STEPS):
      step = path.relative_to(run / checkpoints.STEPS).parts[0]
      assert integrity.breach(run / checkpoints.STEPS / step) is not None
      assert inference.open_run(run).step == faulty.STEPS  # by the modules' own file
      modules.rename(aside)
      other = str(faulty.STEPS - 1) if step == str(faulty.STEPS) else str(faulty.STEPS)
      assert str(inference.open_run(run).step) == other
      assert (f"Checkpoint {step} is damaged" in caplog.text) == (other < step)
      aside.rename(modules)
    else:
      with pytest.raises(ValueError, match=rf"{path.stem}\.\w+ is damaged: its SHA"):
        inference.open_run(run)
    path.write_bytes(content)
  assert outcome(run) == outcome(whole)


def test_training_mends_what_it_can_and_refuses_the_rest(root, whole, tmp_path):
  run = shutil.copytree(whole, tmp_path / "run")
  for name in (arrays.FROZEN, arrays.MODULES, "calibration.npz"):
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 4
    (run / name).write_bytes(content)
  trainer.fit(faulty.config(root, train__batch_size=8), run)
  for name in (arrays.FROZEN, arrays.MODULES, "calibration.npz"):
    assert integrity.intact(run / name)
  about = json.loads((run / description.CONFIG).read_text())
  about["config"]["seed"] = 5
  (run / description.CONFIG).write_text(json.dumps(about, indent=2) + "\n")
  with pytest.raises(ValueError, match=r"config\.json is damaged: its SHA-256"):
    trainer.fit(faulty.config(root), run)
