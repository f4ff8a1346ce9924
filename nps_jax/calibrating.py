"""Calibrates a run: learns each category's priors, scales and weights."""

from collections.abc import Sequence
import dataclasses

from absl import logging
import jax
from jaxtyping import Float, Float16, Float32, Int
import ml_collections
import numpy as np
from scipy import ndimage

from nps_jax import calibration as scales
from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import edits
from nps_jax import inference
from nps_jax import lessons
from nps_jax import map_scales
from nps_jax import scoring
from nps_jax import stored
from nps_jax.data import records
from nps_jax.models import counts
from nps_jax.models import memory
from nps_jax.runs import arrays
from nps_jax.runs import integrity

BLUR = 1.0  # cells by which codes are usual beside where normal images have them
POOL = 2**20  # patches of all images, that priors are chosen from at most
ENOUGH = 40  # edits of parts, below which the codes learn from all edits
AGAIN = 200  # training images, at most, that are looked at as if they were new

Pooled = dict[str, Float[np.ndarray, "_ _"]]


def calibrate(
  run: inference.Run,
  datasets: Sequence[records.Dataset],
  source: inference.Run | None = None,
  copier: lessons.Copier = lessons.copies,
) -> inference.Run:
  """Fits each category's scales on its normal images, stores them with the run.

  Scales that are there already, and intact, stay.

  Args:
    source: a calibrated run of the same training, whose priors are the same if their
      settings are.
    copier: lessons.copies, or what remembers those that it has made.
  """
  path, fitted = run.folder / inference.CALIBRATION, {}
  if distributed.all_hosts(integrity.intact(path)):
    there = stored.load(path, arrays.AGAIN)
    return dataclasses.replace(run, calibrations=there)
  for data in datasets:
    name = data.category
    if source is not None and _same_priors(run, source):
      priors = source.calibrations[name].priors
    else:
      priors = learn_priors(run, data)
    logging.info("Calibrating %s on %d validation images.", name, len(data.validation))
    fitted[name] = _fit(run, data, priors, copier)
    scales.tell(name, fitted[name])
  if distributed.is_lead():
    stored.save(path, fitted)
  distributed.barrier("calibration")
  return dataclasses.replace(run, calibrations=fitted)


def _same_priors(run: inference.Run, source: inference.Run) -> bool:
  books = [one.about.config.codebook for one in (run, source)]
  return all(len({book[name] for book in books}) == 1 for name in ("memory", "parts"))


def learn_priors(run: inference.Run, data: records.Dataset) -> scoring.Priors:
  """A greedy choice of the training images' patches; codes of their scenes."""
  config = run.about.config
  counted = run.model.counted if config.codebook.parts else None

  @jax.jit
  def forward(frozen: inference.Tree, images):
    feats = run.model.features(frozen, images)
    wanted = {}
    if config.codebook.memory:
      wanted["memory"] = run.model.patches(feats)
    if counted is not None:
      wanted["vocabulary"] = counts.scenes(feats[counted])
    return jax.tree.map(lambda rows: rows.astype(np.float16), wanted)

  mesh = distributed.mesh(distributed.round_up(inference.BATCH))
  frozen, parts = distributed.put_replicated(mesh, run.frozen["encoder"]), {}
  zeros = [0] * len(data.train)  # their contexts, which are not looked at
  each = max(1, POOL // len(data.train))  # rows of an image that take part
  for rows in inference.batches(run, mesh, data.train, zeros, "priors"):
    index, wanted = distributed.gather((rows.index, forward(frozen, rows.image)))
    for name, values in wanted.items():
      for at in np.flatnonzero(index >= 0):
        own = values[at].reshape(-1, values.shape[-1])
        parts.setdefault(name, []).append(_some(own, each, config.seed, int(index[at])))
  chosen = {}
  for name in sorted(parts):
    by_image = parts.pop(name)
    rows = np.concatenate(by_image)
    if name == "memory":
      owners = np.repeat(np.arange(len(by_image)), [len(own) for own in by_image])
      count = max(1, round(config.codebook.memory * len(rows)))
      kept = memory.coreset(rows, count, config.seed)
      chosen[name] = memory.remember(rows[kept], owners[kept])
    else:
      chosen[name] = counts.learn(rows, config.codebook.parts, config.seed)
  return scoring.Priors(**chosen)


def _some(
  rows: Float[np.ndarray, "n d"], count: int, seed: int, index: int
) -> Float[np.ndarray, "_ d"]:
  """At most so many of an image's rows, in order, chosen by the image's place."""
  if len(rows) <= count:
    return rows
  chosen = np.random.default_rng((seed, index)).permutation(len(rows))[:count]
  return rows[np.sort(chosen)]


def _fit(
  run: inference.Run,
  data: records.Dataset,
  priors: scoring.Priors,
  copier: lessons.Copier,
) -> scoring.Calibration:
  """The category's scales, from its training and validation images and their edits."""
  config, name = run.about.config, data.category
  counted = run if scoring.RESIDUAL in config.scoring.pooled else without_modules(run)
  pooled, usual = summarise(counted, data.train, name, priors)
  moves, judged = {}, None
  if config.scoring.edits:
    size, count = settings.image_shape(config), config.scoring.edits
    copies = copier(data.train, size, count, config.seed)
    if copies.records:
      moved, _ = summarise(counted, copies.records, name, priors)
      moves = _moves(pooled, moved, copies)
  validation = inference.collect(run, data.validation, name, priors, "validation")
  if config.scoring.edits and config.scoring.fusion == "learned":
    copies = copier(data.validation, size, count, config.seed + 1)
    if copies.records:
      raw = inference.collect(run, copies.records, name, priors, "edited")
      judged = map_scales.Edited(raw, _on_grid(copies.masks))
  seen = None
  again = rows_again(len(data.train), len(data.validation))
  if len(again):
    images = [data.train[at] for at in again]
    raw = inference.collect(run, images, name, priors, "training images", again)
    seen = scales.Seen(raw, again)
  normal = scales.Normal(pooled, moves, usual, seen)
  return scales.fit(config.scoring, priors, normal, validation, judged)


def rows_again(train: int, validation: int) -> Int[np.ndarray, " t"]:
  """Which training images are looked at as if they were new: some if few are held out.

  A single one's patches are all that its memory has.
  """
  if validation >= scales.ENOUGH or train < 2:
    return np.zeros(0, np.int64)
  return np.unique(np.linspace(0, train - 1, AGAIN).round().astype(np.int64))


def without_modules(run: inference.Run) -> inference.Run:
  """The run as if it had no modules, whose maps take their time."""
  config = settings.assigned(
    ml_collections.ConfigDict(run.about.config),
    {"logical.enabled": False, "structural.enabled": False},
  )
  config = ml_collections.FrozenConfigDict(config)
  return dataclasses.replace(run, model=dataclasses.replace(run.model, config=config))


def summarise(
  run: inference.Run,
  images: Sequence[records.Record],
  category: str,
  priors: scoring.Priors,
) -> tuple[Pooled, Float16[np.ndarray, "h w k"] | None]:
  """The images' statistics, in order, and how usual each code is in each place."""
  priors = priors._replace(memory=None)  # its maps are not looked at
  parts, total = [], None
  for _, raw in inference.stream(run, images, category, priors, "statistics"):
    parts.append(raw.pooled)
    if raw.cells is not None:
      cells = raw.cells.astype(np.float32).sum(axis=0)
      total = cells if total is None else total + cells
  pooled = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  return pooled, None if total is None else _blurred(total / len(images))


def _blurred(usual: Float32[np.ndarray, "h w k"]) -> Float16[np.ndarray, "h w k"]:
  return ndimage.gaussian_filter(usual, (BLUR, BLUR, 0)).astype(np.float16)


def _moves(pooled: Pooled, moved: Pooled, copies: lessons.Copies) -> Pooled:
  """By how much each edit moved its image's statistics.

  Of codes only those that leave every place normal: that something there is odd, other
  sources see; what only counting sees, the counts are to look for.
  """
  moves = {name: rows - pooled[name][copies.sources] for name, rows in moved.items()}
  of_parts = np.isin(copies.kinds, edits.OF_PARTS)
  if scoring.CODES in moves and of_parts.sum() >= ENOUGH:
    moves[scoring.CODES] = moves[scoring.CODES][of_parts]
  return moves


def _on_grid(masks: np.ndarray) -> np.ndarray:
  """Which cells of the stride-4 grid an edit has changed by more than a half."""
  e, h, w = masks.shape
  stride = scoring.STRIDE
  return masks.reshape(e, h // stride, stride, w // stride, stride).mean((2, 4)) > 0.5
