"""Two simple detectors on the same frozen features: company for the method's figures.

Neither is part of the method. "patch-memory" (after PatchCore, Roth et al. 2022) scores
what is locally new, "pooled-gaussian" (as in PUAD, 2024) how much there is of what.
Both get all normal images that the method gets, those of validation too, as they have
nothing to calibrate on them, and both read the encoder's coarse levels.
"""

from collections.abc import Mapping, Sequence
import pathlib

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
from jaxtyping import Float
import ml_collections
import numpy as np

from nps_jax import allowed
from nps_jax import compiling
from nps_jax import config as settings
from nps_jax import console
from nps_jax import detector
from nps_jax import gaussian
from nps_jax import inference
from nps_jax import scoring
from nps_jax.data import checking
from nps_jax.data import decoding
from nps_jax.data import reading
from nps_jax.data import records
from nps_jax.data import sources
from nps_jax.metrics import category
from nps_jax.models import memory
from nps_jax.models import weights
from nps_jax.report import table
from nps_jax.runs import description
from nps_jax.runs import files
from nps_jax.study import variants

SHARE = 0.1  # of all patches that the memory keeps

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
  queries = features(model, frozen, data.test)
  if name == "patch-memory":
    shape = settings.image_shape(model.config)
    grid = tuple(pixels // scoring.STRIDE for pixels in shape)
    maps = memory_maps(normal, queries, grid, model.config)
    scores = maps.max(axis=(1, 2))
  else:
    scores = gaussian_scores(normal, queries)
    maps = np.zeros((len(scores), 1, 1), np.float32)
  scored = (
    (record, inference.at_size(values, decoding.original_size(record)), float(score))
    for record, values, score in zip(data.test, maps, scores, strict=True)
  )
  results = category.measure(data, scored)
  if name != "patch-memory":
    results |= dict.fromkeys(("au_spro", "au_pro", "pixel_auroc", "pixel_ap"))
    results["region_by_kind"] = dict.fromkeys(results["region_by_kind"])
  return results


def features(
  model: detector.Detector, frozen, images: Sequence[records.Record]
) -> Levels:
  """The encoder's coarse levels, of all images in order."""
  config = model.config
  forward, parts = jax.jit(model.features), []
  for batch in reading.eval_batches(
    images,
    [0] * len(images),
    batch_size=8,
    size=settings.image_shape(config),
    threads=config.data.threads,
  ):
    levels, count = forward(frozen, batch.image), int(batch.valid.sum())
    parts.append({level: np.asarray(levels[level])[:count] for level in model.coarse})
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def gaussian_scores(normal: Levels, queries: Levels) -> Float[np.ndarray, " n"]:
  """The distance of each query image's pooled mean and spread from normal images'."""
  return gaussian.distance(gaussian.fit(_moments(normal)), _moments(queries))


def _moments(levels: Levels) -> Float[np.ndarray, "n s"]:
  """Each image's mean and spread over positions, channel by channel, of all levels."""
  moments = [
    moment(feats, axis=(1, 2)) for feats in levels.values() for moment in MOMENTS
  ]
  return np.concatenate(moments, axis=1)


def memory_maps(
  normal: Levels, queries: Levels, grid: tuple[int, int], config
) -> Float[np.ndarray, "n y x"]:
  """The distance to the nearest patch of the memory, on the grid, smoothed."""
  rows = _patches(normal)
  rows = rows.reshape(-1, rows.shape[-1])
  kept = memory.coreset(rows, round(SHARE * len(rows)), config.seed)
  held, distance = memory.remember(rows[kept]), jax.jit(memory.distance)
  gaps = [np.asarray(distance(image[None], held)) for image in _patches(queries)]
  maps = scoring.on_grid(jnp.asarray(np.concatenate(gaps)), grid)
  return scoring.smooth(np.asarray(maps), config.scoring.smoothing)


def _patches(levels: Levels) -> Float[np.ndarray, "n h w d"]:
  """All images' patches, computed one image at a time."""
  patches, count = jax.jit(memory.patches), len(next(iter(levels.values())))
  images = [
    patches({level: feats[row : row + 1] for level, feats in levels.items()})
    for row in range(count)
  ]
  return np.concatenate([np.asarray(image) for image in images])


def run(name: str, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Measures a rival on the config's categories; writes results as a training does.

  Raises:
    ValueError, FileNotFoundError: a setting, the data or the weights are wrong, or the
      workdir holds another run.
  """
  allowed.validate(config)
  datasets = sources.open_all(config.data, config.seed)
  names = tuple(data.category for data in datasets)
  checking.check(datasets)
  sources.settle(config, datasets)
  loaded = weights.load(
    config.encoder.weights, config.encoder.name, config.encoder.deepest
  )
  config = ml_collections.FrozenConfigDict(config)
  about = description.Description(
    config=config,
    categories=names,
    deepest=loaded.deepest,
    encoder=loaded.identity,
    images=checking.digests(datasets),
  )
  description.write(workdir, about)
  model = detector.Detector(config, names, loaded.deepest, None)
  results = [measure(name, model, loaded.params, data) for data in datasets]
  extra = {"steps": 0, "seconds": None, "config_hash": settings.fingerprint(config)}
  results = [result | extra for result in results]
  table.publish(results, workdir / files.RESULTS)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  compiling.prepare()
  try:
    run(flags.FLAGS.rival, console.chosen("config"), files.local(flags.FLAGS.workdir))
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  console.define_config()
  flags.DEFINE_string("workdir", None, "Folder of its results.")
  flags.DEFINE_enum("rival", None, variants.RIVALS, "Which of the two.")
  flags.mark_flags_as_required(["rival", "workdir"])
  console.run(main)
