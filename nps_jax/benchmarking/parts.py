"""The parts of a run that a device does, beside the bare encoder as the yardstick."""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from nps_jax import calibrating
from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import inference
from nps_jax import scoring
from nps_jax import updates
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.data import reading
from nps_jax.data import records

SOURCE = 2  # times the model's height and width: the images that `read` decodes
BATCHES = 8  # of these, in `read`

Result = dict[str, Any]  # what a part costs, ready for JSON


def result(part: str, run: inference.Run, figures: Mapping[str, Any]) -> Result:
  """The figures of a part with what they hold for."""
  return {
    "part": part,
    "device": timing.device(),
    "image_size": list(settings.image_shape(run.about.config)),
    **figures,
    "peak_mib": timing.peak(),
  }


def predict(
  run: inference.Run,
  priors: scoring.Priors,
  batches: Sequence[int],
  rival: Mapping[int, timing.Call],
) -> Result:
  """Milliseconds an image of the detector and of its bare encoder, by batch.

  Args:
    rival: by batch another encoder to call in the same turns.
  """
  mesh = distributed.mesh(distributed.round_up(1))
  priors = jax.tree.map(np.float32, priors)
  place = run.frozen["encoder"], run.variables, run.model.vectors, priors
  frozen, variables, vectors, priors = distributed.put_replicated(mesh, place)
  encode, rows = jax.jit(run.model.features), {}
  timing.forget_peak()
  for count in dict.fromkeys(map(distributed.round_up, batches)):
    batch = distributed.put_rows(mesh, random_batch(run, count))
    calls = {
      "detector_ms": lambda batch=batch: run.forward(
        frozen, variables, vectors, priors, batch
      ),
      "encoder_ms": lambda batch=batch: encode(frozen, batch.image),
    }
    if count in rival:
      calls["torch_ms"] = rival[count]
    rows[str(count)] = each(timing.interleaved(calls), count)
  return result("predict", run, {"batch": rows})


def train(run: inference.Run) -> Result:
  """Milliseconds an image of a training step on kept features, and of the encoder."""
  config = run.about.config
  count = config.train.batch_size
  mesh = distributed.mesh(count)
  frozen = distributed.put_replicated(mesh, run.frozen["encoder"])
  batch = distributed.put_rows(mesh, random_batch(run, count))
  encode = jax.jit(run.model.features)
  step = stepper(run, distributed.put_replicated(mesh, encode(frozen, batch.image)))
  timing.forget_peak()
  calls = {
    "step_ms": lambda: step(batch),
    "encoder_ms": lambda: encode(frozen, batch.image),
  }
  row = {str(count): each(timing.interleaved(calls), count)}
  return result("train", run, {"batch": row})


def stepper(run: inference.Run, kept: inference.Tree):
  """A function of a batch that makes a step of training, on the features kept."""
  optimizer = updates.make_optimizer(run.about.config.train)
  update = jax.jit(updates.make_step(run.model, optimizer, cached=True))
  state = state_of(run, optimizer)

  def step(batch: records.Batch) -> Any:
    with jax.set_mesh(distributed.mesh(len(batch.valid))):
      return update(state, kept, batch, batch)

  return step


def state_of(
  run: inference.Run, optimizer: optax.GradientTransformation
) -> updates.State:
  """The state of a training with the run's parameters."""
  params, codes = run.variables["params"], run.variables["codes"]
  opt = {name: optimizer.init(params[name]) for name in params}
  return updates.State(jnp.int32(0), params, codes, opt)


def read(run: inference.Run) -> Result:
  """Milliseconds an image to decode it and bring it to the model's size."""
  config = run.about.config
  count, size = config.train.batch_size, settings.image_shape(config)
  images = pictures(BATCHES * count, (SOURCE * size[0], SOURCE * size[1]))

  def all_of_them() -> None:
    stream = reading.eval_batches(
      images,
      [0] * len(images),
      batch_size=count,
      size=size,
      threads=config.data.threads,
    )
    for _ in stream:
      pass

  mesh = distributed.mesh(count)
  frozen = distributed.put_replicated(mesh, run.frozen["encoder"])
  batch = distributed.put_rows(mesh, random_batch(run, count))
  encode = jax.jit(run.model.features)
  timing.forget_peak()
  calls = {"read_ms": all_of_them, "encoder_ms": lambda: encode(frozen, batch.image)}
  seconds = timing.interleaved(calls)
  row = {
    "read_ms": each(seconds, len(images))["read_ms"],
    "encoder_ms": each(seconds, count)["encoder_ms"],
  }
  return result("input", run, {"batch": {str(count): row}})


def calibrate(run: inference.Run, folder: pathlib.Path, images: int) -> Result:
  """Seconds of learning the priors of a drawn category, and of fitting the scales.

  Args:
    folder: for its images, and what is fitted.
    images: to train on; a fifth as many are held out.
  """
  data = subjects.draw(run, folder / "data", images, max(2, images // 5))
  run = dataclasses.replace(run, folder=folder)
  timing.forget_peak()
  start = time.perf_counter()
  priors = calibrating.learn_priors(run, data)
  learned = time.perf_counter()
  source = dataclasses.replace(run, calibrations=_only(data.category, priors))
  calibrating.calibrate(run, [data], source)
  seconds = {"priors": learned - start, "scales": time.perf_counter() - learned}
  numbers = {"train": len(data.train), "validation": len(data.validation)}
  return result("calibrate", run, {"images": numbers, "seconds": rounded(seconds)})


def _only(category: str, priors: scoring.Priors) -> dict[str, scoring.Calibration]:
  """A calibration that has priors and nothing else."""
  none = dict.fromkeys(scoring.Calibration._fields)
  return {category: scoring.Calibration(**{**none, "priors": priors})}


def each(seconds: Mapping[str, float], images: int) -> dict[str, float]:
  """Milliseconds an image, of seconds for several."""
  return {name: round(1000 * value / images, 3) for name, value in seconds.items()}


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
  """The seconds to the millisecond."""
  return {name: round(value, 3) for name, value in seconds.items()}


def random_batch(run: inference.Run, count: int) -> records.Batch:
  """A batch of noise."""
  size = settings.image_shape(run.about.config)
  image = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
  rows, context = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
  return records.Batch(image, context, np.ones(count, np.float32), rows)


def pictures(count: int, size: tuple[int, int]) -> tuple[records.Record, ...]:
  """Records of smooth noise, as PNG files in memory."""
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
  file = io.BytesIO()
  coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(file, "PNG")
  return tuple(
    records.Record(f"noise/train/good/{at}", "noise", "train", "good", file.getvalue())
    for at in range(count)
  )
