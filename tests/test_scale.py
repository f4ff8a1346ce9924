"""One device or many, one process or two: the same training, and what they exchange."""

import collections
import functools
import math
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import jax
from jax.sharding import AxisType, Mesh
import ml_collections
import numpy as np
import pytest
import runs

from nps_jax import detector
from nps_jax import distributed
from nps_jax import lessons
from nps_jax import trainer
from nps_jax import updates
from nps_jax.data import folder
from nps_jax.data import pipeline
from nps_jax.data import records
from nps_jax.models import weights
from nps_jax.runs import checkpoints
from nps_jax.runs import interruption
from nps_jax.runs import telemetry

STEPS = 20
SMALL = {
  "encoder__levels": (3,),
  "encoder__deepest": 3,
  "logical__local_width": 16,
  "structural__enabled": True,
}
COLLECTIVE = (
  r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
HOST = """
import runpy, sys
from nps_jax.data import reading
read, log = reading.read_image, open(sys.argv.pop(1), "a", buffering=1)
def logged(images, size, index):
  log.write(f"{len(images)} {index}\\n")
  return read(images, size, index)
reading.read_image = logged
runpy.run_module("nps_jax.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def parts(root):
  """The data sets, the model and the encoder's parameters at the tests' size."""
  config = runs.config(root, train__steps=STEPS, checkpoint__every=10, **SMALL)
  config = ml_collections.FrozenConfigDict(config)
  datasets = folder.open_all(config.data, config.seed)
  loaded = weights.load("random", config.encoder.name, config.encoder.deepest)
  names = tuple(each.category for each in datasets)
  return datasets, detector.Detector(config, names, loaded.deepest, None), loaded.params


def trained(parts, workdir, count, start=None):
  """The loss curve of a training on so many devices, from a start if there is one."""
  datasets, model, params = parts
  mesh = Mesh(jax.devices()[:count], ("data",), axis_types=(AxisType.Auto,))
  optimizer = updates.make_optimizer(model.config.train)
  state = distributed.put_replicated(mesh, updates.create_state(model, optimizer))
  frozen = distributed.put_replicated(mesh, params)
  keeper = checkpoints.Checkpoints(start or workdir, 3)
  state = trainer.restore(keeper, state)
  prepare = functools.partial(lessons.prepare, model.config, datasets)
  with interruption.Watch() as watch:
    trainer.train(
      *(model, optimizer, mesh, frozen, state, prepare, keeper, workdir, watch)
    )
  keeper.close()
  lines = telemetry.read(workdir)
  return {line["step"]: [line["loss"], line["logical/local"]] for line in lines}


@pytest.fixture(scope="module")
def eight(parts, tmp_path_factory):
  """The folder of a training on eight devices, and its loss curve."""
  workdir = tmp_path_factory.mktemp("eight")
  return workdir, trained(parts, workdir, 8)


@pytest.mark.slow
def test_one_two_four_and_eight_devices_have_one_loss_curve(parts, eight, tmp_path):
  curves = {n: trained(parts, tmp_path / str(n), n) for n in (1, 2, 4)}
  workdir, curves[8] = eight
  assert list(curves[1]) == list(range(1, STEPS + 1))
  one = np.array(list(curves[1].values()))
  assert one[-1, 0] < 0.9 * one[0, 0]
  for count in (2, 4, 8):
    found = np.array(list(curves[count].values()))
    np.testing.assert_allclose(found, one, rtol=1e-5)
  # A run of eight devices goes on upon two, from the step in its middle.
  start = shutil.copytree(workdir, tmp_path / "start")
  shutil.rmtree(start / checkpoints.STEPS / str(STEPS))
  rest = trained(parts, tmp_path / "rest", 2, start=start)
  assert list(rest) == list(range(11, STEPS + 1))
  np.testing.assert_allclose(list(rest.values()), one[10:], rtol=1e-5)


@pytest.mark.slow
def test_each_gradient_is_exchanged_once_and_codes_read_one_gathering(parts):
  """The compiled step's text, with the features of the encoder at hand."""
  _, model, _ = parts
  mesh, optimizer = distributed.mesh(8), updates.make_optimizer(model.config.train)
  rows, whole = distributed.by_row(mesh), distributed.replicated(mesh)
  state = updates.create_state(model, optimizer)
  cache = {3: np.zeros((24, 8, 8, 128), np.float32)}
  batch = records.Batch(
    *(np.zeros((8, 64, 64, 3), np.uint8), np.zeros(8, np.int32)),
    *(np.ones(8, np.float32), np.arange(8, dtype=np.int32)),
  )
  update = updates.make_step(model, optimizer, cached=True)

  def step(held, source, seen, normal):
    state, terms = update(updates.State(**held), source, seen, normal)
    return vars(state), terms

  compiled = jax.jit(step, in_shardings=(whole, whole, rows, rows), out_shardings=whole)
  with jax.set_mesh(mesh):
    text = compiled.lower(vars(state), cache, batch, batch).compile().as_text()

  found = collections.defaultdict(collections.Counter)
  for line in text.splitlines():
    if match := re.search(COLLECTIVE, line):
      assert "while" not in line
      for shape in re.findall(r"\w\d+\[([\d,]*)\]", line[: match.start()]):
        size = math.prod(int(each) for each in shape.split(",") if each)
        found[match[1]][size] += 1
  # The one-class embedding, a 2 x 2 grid of 16 channels, and which cells are valid.
  assert found.pop("all-gather") == {8 * 2 * 2: 1, 8 * 2 * 2 * 16: 1}
  reduced = found.pop("all-reduce")
  assert not found
  gradients = collections.Counter(
    math.prod(each.shape) for each in jax.tree.leaves(state.params)
  )
  assert not gradients - reduced
  rest = reduced - gradients
  scalars = rest.pop(1)
  assert 0 < scalars <= 25  # the terms of the loss, the number of valid rows
  assert not rest


def free_port() -> int:
  with socket.socket() as held:
    held.bind(("127.0.0.1", 0))
    return held.getsockname()[1]


def hosts(root: pathlib.Path, workdir: pathlib.Path, place: pathlib.Path) -> None:
  """The training command as two processes of four devices each."""
  port = free_port()
  flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
  started = []
  for host in range(2):
    env = os.environ | {
      "XLA_FLAGS": flags,
      "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
      "JAX_NUM_PROCESSES": "2",
      "JAX_PROCESS_ID": str(host),
    }
    command = [sys.executable, "-c", HOST, str(place / f"read{host}"), "--multihost"]
    command += [f"--config={runs.CONFIGS / 'synthetic.py'}", f"--workdir={workdir}"]
    command += runs.overrides(root, train__feature_cache=0.0, **SMALL)
    with (place / f"log{host}").open("w") as log:
      started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
  codes = [each.wait(timeout=400) for each in started]
  assert codes == [0, 0], (place / "log0").read_text() + (place / "log1").read_text()


@pytest.mark.slow
def test_two_processes_train_as_one_and_read_only_their_shards(eight, root, tmp_path):
  """The first six of the steps; until then the learning rate is the same.

  The two encode their images anew in each step, the one has their features at hand.
  """
  hosts(root, tmp_path / "two", tmp_path)
  losses = [line["loss"] for line in telemetry.read(tmp_path / "two")]
  np.testing.assert_allclose(losses, [eight[1][at][0] for at in range(1, 7)], rtol=1e-5)
  config = ml_collections.FrozenConfigDict(runs.config(root))
  taught = lessons.prepare(config, folder.open_all(config.data, 0))
  count = len(taught.seen)
  assert count > 24  # with edited copies
  for host in range(2):
    lines = (tmp_path / f"read{host}").read_text().splitlines()
    read = {int(line.split()[1]) for line in lines if line.startswith(f"{count} ")}
    batches = pipeline.train_batches(
      taught.seen,
      taught.contexts,
      **{"batch_size": 8, "size": (64, 64), "seed": 0, "threads": 1},
      **{"shard_index": host, "shard_count": 2},
    )
    mine = [set(next(batches).index.tolist()) for _ in range(9)]
    batches.close()
    # All that the six steps need, and at most three batches that were read ahead.
    assert set.union(*mine[:6]) <= read <= set.union(*mine)
    assert all(len(each) == 4 for each in mine)
  log = (tmp_path / "log0").read_text()
  assert "RANDOM ENCODER WEIGHTS" in log
  assert "| mean |" in log and "| mean |" not in (tmp_path / "log1").read_text()
