"""Two simple detectors on the same frozen features: company for the method's figures.

Neither is part of the method. "patch-memory" (after PatchCore, Roth et al. 2022) knows
what is locally new, "pooled-gaussian" (as in PUAD, 2024) how much there is of what.
Both get all normal images that the method gets, those of validation too, as they have
nothing to calibrate on them, and both read the encoder's levels from COARSE on.
"""

from collections.abc import Mapping, Sequence
from functools import partial
import pathlib

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import ml_collections
import numpy as np

from nps_jax import checkpoints
from nps_jax import config as settings
from nps_jax import console
from nps_jax import detector
from nps_jax import evaluate
from nps_jax import gaussian
from nps_jax import inference
from nps_jax import scoring
from nps_jax import train
from nps_jax import variants
from nps_jax.data import checking
from nps_jax.data import decoding
from nps_jax.data import pipeline
from nps_jax.data import records
from nps_jax.data import sources
from nps_jax.metrics import category
from nps_jax.models import weights

RIVAL = flags.DEFINE_enum("rival", None, variants.RIVALS, "Which of the two.")
SHARE = 0.1  # of all patches that the memory keeps
PROJECTED = 64  # dimensions in which the patches to keep are chosen
ROUND = 512  # patches chosen between two passes over all of them
CANDIDATES = 8192  # patches that these are chosen among

MOMENTS = (np.mean, np.std)

Levels = Mapping[int, Float[np.ndarray, "_ _ _ _"]]  # all images, by level


def measure(name: str, model: detector.Detector, frozen, data: records.Dataset) -> dict:
  """A rival's results on the category's test images, as a run has them.

  The Gaussian has no map, hence no pixel's or region's figures: they are None.

  Args:
    name: one of variants.RIVALS.
    frozen: the encoder's parameters.
  """
  normal = features(model, frozen, (*data.train, *data.validation))
  test = features(model, frozen, data.test)
  if name == "patch-memory":
    grid = (model.config.image_size // scoring.STRIDE,) * 2
    maps = memory_maps(normal, test, grid, model.config)
    scores = maps.max(axis=(1, 2))
  else:
    scores = gaussian_scores(normal, test)
    maps = np.zeros((len(scores), 1, 1), np.float32)
  scored = (
    (record, inference.at_size(each, decoding.original_size(record)), float(score))
    for record, each, score in zip(data.test, maps, scores, strict=True)
  )
  found = category.measure(data, scored)
  if name != "patch-memory":
    pixels = ("au_spro", "au_pro", "pixel_auroc", "pixel_ap")
    found |= dict.fromkeys(pixels)
    found["region_by_kind"] = dict.fromkeys(found["region_by_kind"])
  return found


def features(
  model: detector.Detector, frozen, images: Sequence[records.Record]
) -> Levels:
  """The encoder's levels from COARSE on, of all images in order."""
  config = model.config
  forward, parts = jax.jit(model.features), []
  for batch in pipeline.eval_batches(
    images,
    [0] * len(images),
    batch_size=8,
    size=config.image_size,
    threads=config.data.threads,
  ):
    found, count = forward(frozen, batch.image), int(batch.valid.sum())
    coarse = [level for level in model.levels if level >= scoring.COARSE]
    parts.append({level: np.asarray(found[level])[:count] for level in coarse})
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def gaussian_scores(normal: Levels, test: Levels) -> Float[np.ndarray, " n"]:
  """The distance of each test image's pooled mean and spread from normal images'."""
  rows, others = (
    np.concatenate(
      [moment(feats, axis=(1, 2)) for feats in each.values() for moment in MOMENTS], 1
    )
    for each in (normal, test)
  )
  return gaussian.distance(gaussian.fit(rows), others)


def memory_maps(
  normal: Levels, test: Levels, grid: tuple[int, int], config
) -> Float[np.ndarray, "n y x"]:
  """The distance to the nearest patch of the memory, on the grid, smoothed."""
  held = patches(normal)
  memory = jnp.asarray(held[coreset(held, round(SHARE * len(held)), config.seed)])

  @jax.jit
  def nearest(rows: Float[Array, "p d"]) -> Float[Array, " p"]:
    return jnp.sqrt(jnp.min(squared_distances(rows, memory), axis=1))

  finest = next(iter(test.values()))
  maps = []
  for at in range(len(finest)):
    rows = patches({level: feats[at : at + 1] for level, feats in test.items()})
    maps.append(np.asarray(nearest(rows)).reshape(finest.shape[1:3]))
  gaps = scoring.on_grid(jnp.asarray(np.stack(maps)), grid)
  return scoring.smooth(np.asarray(gaps), config.scoring.smoothing)


def patches(levels: Levels) -> Float[np.ndarray, "p d"]:
  """Every cell of the finest level: the mean of 3 x 3 cells of each level, in a row.

  Coarser levels are resized to the finest one's grid, as in PatchCore.
  """
  rows = [
    np.asarray(_joined({level: feats[at] for level, feats in levels.items()}))
    for at in range(len(next(iter(levels.values()))))
  ]
  return np.concatenate(rows)


@jax.jit
def _joined(levels: Mapping[int, Float[Array, "_ _ _"]]) -> Float[Array, "p d"]:
  """One image's patches."""
  grid, parts = next(iter(levels.values())).shape[:2], []
  for feats in levels.values():
    padded = jnp.pad(feats, ((1, 1), (1, 1), (0, 0)), "edge")
    size = (3, 3, 1)
    mean = jax.lax.reduce_window(padded, 0.0, jax.lax.add, size, (1, 1, 1), "VALID") / 9
    parts.append(jax.image.resize(mean, (*grid, feats.shape[-1]), "bilinear"))
  return jnp.concatenate(parts, axis=-1).reshape(grid[0] * grid[1], -1)


def squared_distances(
  rows: Float[Array, "p d"], others: Float[Array, "q d"]
) -> Float[Array, "p q"]:
  """Between all pairs, at least 0."""
  inner = rows @ others.T
  lengths = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)[None]
  return jnp.maximum(lengths - 2 * inner, 0)


def coreset(
  rows: Float[np.ndarray, "n d"], count: int, seed: int
) -> Int[np.ndarray, " count"]:
  """Rows, each the farthest from those before it; the first at random.

  Distances are those of a random projection to PROJECTED dimensions. The farthest row
  is sought among CANDIDATES only, for as long as no other row can be farther: those
  others' distances are brought up to date after ROUND choices, and only ever fall.
  """
  rng = np.random.default_rng(seed)
  if rows.shape[1] > PROJECTED:
    rows = rows @ rng.normal(size=(rows.shape[1], PROJECTED)).astype(np.float32)
  points = jnp.asarray(rows, jnp.float32)
  gap = jnp.full(len(rows), jnp.inf)
  chosen, fresh = [], [int(rng.integers(len(rows)))]
  while True:
    chosen += fresh
    if len(chosen) >= count:
      return np.array(chosen[:count])
    fresh = np.resize(fresh, ROUND)  # repeated, for one compiled shape
    gap = _nearer(gap, points, points[fresh])
    found, held = _farthest(gap, points, min(CANDIDATES, len(rows) - 1))
    fresh = np.asarray(found)[: int(held)].tolist()


@jax.jit
def _nearer(
  gap: Float[Array, " n"], points: Float[Array, "n d"], fresh: Float[Array, "r d"]
) -> Float[Array, " n"]:
  return jnp.minimum(gap, jnp.min(squared_distances(points, fresh), axis=1))


@partial(jax.jit, static_argnums=2)
def _farthest(
  gap: Float[Array, " n"], points: Float[Array, "n d"], candidates: int
) -> tuple[Int[Array, " r"], Int[Array, ""]]:
  """Up to ROUND next choices among the candidates, and how many there are."""
  top, index = jax.lax.top_k(gap, candidates + 1)
  others, top, index = top[-1], top[:-1], index[:-1]
  near = points[index]

  def more(carry):
    held, _, top = carry
    return (held < ROUND) & (
      (jnp.max(top) >= others) & (jnp.max(top) > 0) | (held == 0)
    )

  def choose(carry):
    held, found, top = carry
    best = jnp.argmax(top)
    gaps = jnp.sum((near - near[best][None]) ** 2, axis=1)
    return held + 1, found.at[held].set(index[best]), jnp.minimum(top, gaps)

  start = (jnp.int32(0), jnp.zeros(ROUND, index.dtype), top)
  held, found, _ = jax.lax.while_loop(more, choose, start)
  return found, held


def run(name: str, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Measures a rival on the config's categories; writes results as a training does.

  Raises:
    ValueError, FileNotFoundError: a setting, the data or the weights are wrong, or the
      workdir holds another run.
  """
  settings.validate(config)
  datasets = sources.open_all(config.data, config.seed)
  names = tuple(each.category for each in datasets)
  checking.check(datasets)
  loaded = weights.load(
    config.encoder.weights, config.encoder.name, config.encoder.deepest
  )
  config = ml_collections.FrozenConfigDict(config)
  sums = checking.fingerprint(datasets)
  about = (config, names, loaded.deepest, loaded.identity, sums)
  checkpoints.describe(workdir, checkpoints.Description(*about))
  model = detector.Detector(config, names, loaded.deepest, None)
  results = [measure(name, model, loaded.params, data) for data in datasets]
  extra = {"steps": 0, "seconds": None, "config_hash": settings.fingerprint(config)}
  evaluate.publish([each | extra for each in results], workdir / evaluate.RESULTS)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  try:
    run(RIVAL.value, train.chosen(), train.local(train.WORKDIR.value))
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  flags.mark_flags_as_required(["rival", "config", "workdir"])
  app.run(main)
