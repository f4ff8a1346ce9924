"""What single images and steps cost here: a short measurement at a config's sizes."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nps_jax import calibrating
from nps_jax import calibration as scales
from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import edits
from nps_jax import geometry
from nps_jax import inference
from nps_jax import map_scales
from nps_jax import predicting
from nps_jax import scoring
from nps_jax import updates
from nps_jax.benchmarking import parts
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records
from nps_jax.metrics import category as measures
from nps_jax.models import counts
from nps_jax.models import memory
from nps_jax.report import figures
from nps_jax.report import gallery

MIB = 2**20
SHOWN = 4  # images that are read, edited and evaluated
EDITED = 3  # edited copies of each
CHOSEN = memory.ROUND  # patches that are chosen among all
CODES = 16  # of the vocabulary's, that are learned
ODD = "odd"
SEED = 0


class Rates(NamedTuple):
  """Seconds of each piece of work, and MiB of what is held."""

  read: float  # of an image: decoded and brought to the model's size
  survey: float  # of an image, before it is edited
  edit: float  # of an edited copy
  write: float  # of an image's map and overlay
  evaluate: float  # of an image's map, measured and drawn for the page
  encode: float  # of an image by the encoder
  count: float  # of an image by the encoder, and its statistics
  detect: float  # of an image by the whole detector
  judge: float  # of an image, from raw to calibrated
  step: float  # of training, on kept features
  choose: float  # of a patch for the memory among `pool`
  remember: float  # of such a patch
  learn: float  # of all codes of the vocabulary
  gaussians: float  # of a calibration's
  fit: float  # of an image, held out or edited, by a calibration
  compile_encoder: float
  compile_step: float
  compile_detector: float
  places: int  # of an image's patches
  pool: int  # patches
  patch: float  # MiB of a patch, in float16
  kept: float  # MiB of an image's features
  cells: float  # MiB of an image's raw scores
  working: float  # MiB of the largest program's intermediate values
  state: float  # MiB of parameters, gradients and what the optimiser keeps
  base: float  # MiB of the process before
  own_memory: bool  # of the device


class Program(NamedTuple):
  """A compiled function, and what it took to compile it."""

  call: Callable[..., Any]
  seconds: float
  working: float  # MiB


def measure(
  config: ml_collections.ConfigDict, images: int, pictures: Sequence[records.Record]
) -> Rates:
  """The rates at a config's sizes.

  Args:
    images: to train on, which decide how many patches the memory has.
    pictures: some images as they are to come, to read, edit and evaluate.
  """
  base = timing.peak()["host"]
  with _nothing_kept():
    run = subjects.run(config, subjects.NOWHERE)
    rates, raw = _of_programs(run, images)
    return Rates(
      **rates,
      **_of_priors(run, images),
      **_of_scales(run, images, raw),
      **_of_pictures(run, pictures[:SHOWN]),
      base=base,
      own_memory=timing.peak()["device"] is not None,
    )


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
  """What is compiled is not kept on disk, so that compiling is measured each time."""
  name = "jax_persistent_cache_min_compile_time_secs"
  before = getattr(jax.config, name)
  jax.config.update(name, float("inf"))
  try:
    yield
  finally:
    jax.config.update(name, before)


def _program(function: Callable[..., Any], *arguments: Any) -> Program:
  # As a list of leaves: JAX describes a compiled function's arguments in trees of their
  # types, whose annotations the descriptions do not keep.
  leaves, form = jax.tree.flatten(arguments)

  def flat(leaves: list[Any]) -> Any:
    return function(*jax.tree.unflatten(form, leaves))

  start = time.perf_counter()
  compiled = jax.jit(flat).lower(leaves).compile()
  seconds = time.perf_counter() - start
  about = compiled.memory_analysis()
  working = about.temp_size_in_bytes / MIB if about else 0.0
  return Program(lambda *rows: compiled(jax.tree.leaves(rows)), seconds, working)


def _of_programs(
  run: inference.Run, images: int
) -> tuple[dict[str, float], scoring.RawScores]:
  """Rates of the encoder, a step of training and the detector; what that gives."""
  config, rows = run.about.config, distributed.round_up(inference.BATCH)
  batch = jax.tree.map(jnp.asarray, parts.random_batch(run, rows))
  frozen, vectors = run.frozen["encoder"], run.model.vectors
  encode = _program(run.model.features, frozen, batch.image)
  feats = encode.call(frozen, batch.image)

  optimizer = updates.make_optimizer(config.train)
  state = parts.state_of(run, optimizer)
  taught = parts.random_batch(run, config.train.batch_size)
  taught = jax.tree.map(jnp.asarray, taught._replace(index=taught.index % rows))
  make = updates.make_step(run.model, optimizer, cached=True)
  step = _program(make, state, feats, taught, taught)

  start = time.perf_counter()
  given = subjects.priors(run, images)
  remembered = time.perf_counter() - start
  given = jax.tree.map(np.float32, given)
  arguments = frozen, run.variables, vectors, given, batch
  detect = _program(run.jitted, *arguments)
  plain = frozen, run.variables, vectors, given._replace(memory=None), batch
  count = _program(calibrating.without_modules(run).jitted, *plain)
  seconds = timing.interleaved(
    {
      "encode": lambda: encode.call(frozen, batch.image),
      "count": lambda: count.call(*plain),
      "detect": lambda: detect.call(*arguments),
      "step": lambda: step.call(state, feats, taught, taught),
    }
  )
  raw = jax.device_get(detect.call(*arguments))
  programs = encode, step, detect
  rates = {
    "encode": seconds["encode"] / rows,
    "count": seconds["count"] / rows,
    "detect": seconds["detect"] / rows,
    "step": seconds["step"],
    "remember": remembered / subjects.patch_count(run, images),
    "compile_encoder": encode.seconds,
    "compile_step": step.seconds,
    "compile_detector": detect.seconds,
    "kept": _mib(feats) / rows,
    "cells": _mib(raw) / rows,
    "working": max(program.working for program in programs),
    "state": _mib(state) + _mib(state.params),
  }
  return rates, raw


def _mib(tree: Any) -> float:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / MIB


def _of_priors(run: inference.Run, images: int) -> dict[str, float]:
  """Rates of choosing the memory's patches, and learning the vocabulary's codes."""
  config, rng = run.about.config, np.random.default_rng(SEED)
  _, height, width, wide = subjects.patches_of(run).shape
  pool = subjects.pool(run, images)
  rates = {"choose": 0.0, "learn": 0.0}
  rates |= {"places": height * width, "pool": pool, "patch": 2 * wide / MIB}
  if config.codebook.memory:
    # As wide as they are chosen by: the projection to that is little of the work.
    points = rng.standard_normal((pool, memory.PROJECTED), np.float32)
    number = min(CHOSEN, pool)
    rates["choose"] = _second_time(memory.coreset, points, number, SEED) / number
  level = run.model.counted
  if config.codebook.parts and level is not None:
    kind = geometry.encoder(config.encoder.name)
    cells = kind.layout(run.about.deepest).grid(level, settings.image_shape(config))
    sample = min(counts.SAMPLE, images * math.prod(cells))
    deep = kind.widths[level]
    scenes = rng.standard_normal((sample, deep), np.float32)
    number = min(CODES, config.codebook.parts)
    seconds = _second_time(counts.learn, scenes, number, SEED)
    rates["learn"] = seconds * config.codebook.parts / number
  return rates


def _of_scales(
  run: inference.Run, images: int, raw: scoring.RawScores
) -> dict[str, float]:
  """Rates of a calibration's scales, on some images' raw scores, and of judging."""
  config, rng = run.about.config, np.random.default_rng(SEED)
  usual = None if raw.cells is None else raw.cells[0]
  pooled = {
    name: rng.random((images, rows.shape[1]))  # shares are 0 or more
    for name, rows in raw.pooled.items()
  }
  moves = {
    name: rng.standard_normal((config.scoring.edits, rows.shape[1]))
    for name, rows in raw.pooled.items()
  }
  normal = scales.Normal(pooled, moves if config.scoring.edits else {}, usual)
  priors = subjects.priors(run, 1)._replace(memory=None)

  def fit(count: int) -> scoring.Calibration:
    some = jax.tree.map(lambda leaf: leaf[:count], raw)
    masks = np.zeros((count, *next(iter(raw.maps.values())).shape[1:]), bool)
    masks[:, 4:8, 4:8] = True
    learned = config.scoring.edits and config.scoring.fusion == "learned"
    edited = map_scales.Edited(some, masks) if learned else None
    return scales.fit(config.scoring, priors, normal, some, edited)

  rows = len(next(iter(raw.maps.values())))
  fit(rows // 2)  # compiles what it needs
  marks = [time.perf_counter()]
  for count in (rows // 2, rows):
    fitted = fit(count)
    marks.append(time.perf_counter())
  few, many = marks[1] - marks[0], marks[2] - marks[1]
  own = max(0.0, many - few) / rows  # half as many held out, and as many edited
  calibrated = dataclasses.replace(run, calibrations={subjects.CATEGORY: fitted})
  images_of = parts.pictures(rows, settings.image_shape(config))
  judge = _second_time(
    lambda: list(inference.judge(calibrated, images_of, subjects.CATEGORY, raw))
  )
  rates = {"fit": own, "gaussians": max(0.0, few - rows * own), "judge": judge / rows}
  return rates


def _second_time(call: Callable[..., Any], *arguments: Any) -> float:
  """Seconds of a call that has been made before."""
  for _ in range(2):
    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    seconds = time.perf_counter() - start
  return seconds


def _of_pictures(
  run: inference.Run, pictures: Sequence[records.Record]
) -> dict[str, float]:
  """Rates of what the host does with images."""
  size = settings.image_shape(run.about.config)
  start = time.perf_counter()
  pixels = [decoding.decode(record, size) for record in pictures]
  read = time.perf_counter() - start
  marks = []
  for copies in (0, EDITED):
    start = time.perf_counter()
    made = edits.make(pixels, copies, SEED)
    marks.append(time.perf_counter() - start)
  survey, edited = marks
  return {
    "read": read / len(pictures),
    "survey": survey / len(pictures),
    "edit": max(0.0, edited - survey) / max(1, len(made)),
    "evaluate": _evaluation(pictures) / len(pictures),
    "write": _writing(pictures) / len(pictures),
  }


def _writing(pictures: Sequence[records.Record]) -> float:
  """Seconds to make the map's and the overlay's files of these images."""
  start = time.perf_counter()
  for record in pictures:
    full = inference.at_size(np.zeros((64, 64)), decoding.original_size(record))
    predicting.tiff(full)
    encoded.png(figures.overlay(decoding.decode(record), full))
  return time.perf_counter() - start


def _evaluation(pictures: Sequence[records.Record]) -> float:
  """Seconds to measure random maps of these images, and to draw their pictures."""
  rng, test, maps = np.random.default_rng(SEED), [], []
  for at, record in enumerate(pictures):
    height, width = decoding.original_size(record)
    mask = np.zeros((height, width, 3), np.uint8)
    mask[: height // 4, : width // 4] = 255
    odd = at % 2  # every other image has a defect
    kind = ODD if odd else records.GOOD
    name = f"{ODD}/test/{kind}/{at}"
    masks = (encoded.png(mask),) if odd else ()
    test.append(record._replace(id=name, split="test", kind=kind, masks=masks))
    maps.append(rng.standard_normal((height, width), np.float32))
  data = records.Dataset(ODD, "mvtec_ad", (), (), tuple(test))
  start = time.perf_counter()
  measures.measure(data, [(*pair, 0.0) for pair in zip(test, maps, strict=True)])
  for record, values in zip(test, maps, strict=True):
    shot = gallery.shot(record, values, {}, data)
    gallery.pictures(shot, 0.0, 1.0)
  return time.perf_counter() - start
