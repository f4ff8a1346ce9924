"""What is measured: a run as a training leaves it, at a config's sizes, untrained."""

import dataclasses
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nps_jax import calibrating
from nps_jax import config as settings
from nps_jax import detector
from nps_jax import geometry
from nps_jax import inference
from nps_jax import scoring
from nps_jax.data import records
from nps_jax.data import sources
from nps_jax.drawn import synthetic
from nps_jax.models import counts
from nps_jax.models import memory
from nps_jax.models import weights
from nps_jax.runs import description

CATEGORY = "tray"  # a drawn product
CLIP = 512  # numbers of CLIP's vectors, where the context is made of these
SMALL = 0.02  # spread of random parameters
NOWHERE = pathlib.Path()  # the folder of a run that has none
SIZE = 256  # pixels of an image's sides, where the data are to decide: "auto"
OURS = ("", "hub", "random")  # weights of all levels


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> inference.Run:
  """A run with random weights and, as yet, no calibration; nothing is in its folder."""
  config = settled(config)
  loaded = random_encoder(config)
  vectors = None
  if config.context.source not in ("learned", "none"):
    vectors = np.random.default_rng(0).normal(size=(1, CLIP)).astype(np.float32)
  frozen = ml_collections.FrozenConfigDict(config)
  about = description.Description(frozen, (CATEGORY,), loaded.deepest, loaded.identity)
  model = detector.Detector(frozen, (CATEGORY,), loaded.deepest, vectors)
  params, codes = random_parameters(model)
  constants = {} if vectors is None else {"context": {"vectors": vectors}}
  return inference.Run(
    folder=folder,
    step=0,
    about=about,
    model=model,
    frozen={"encoder": jax.tree.map(jnp.asarray, loaded.params), **constants},
    variables={"step": jnp.int32(0), "params": params, "codes": codes},
    calibrations={},
  )


def random_parameters(model: detector.Detector) -> tuple[Any, Any]:
  """Parameters and codes in the shapes of fresh ones, which would be compiled first."""
  rng = np.random.default_rng(0)

  def values(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(SMALL * rng.standard_normal(leaf.shape, np.float32))

  return jax.tree.map(values, jax.eval_shape(model.init, jax.random.key(0)))


def settled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with a size of images, and a context that asks for no other network."""
  fields: dict[str, Any] = {}
  if config.image_size == settings.AUTO:
    fields["image_size"] = SIZE
  if config.context.source in ("clip", "image"):
    fields["context.source"] = "vectors"
  return settings.assigned(config, fields)


def random_encoder(config: ml_collections.ConfigDict) -> weights.Loaded:
  """An encoder as deep as the config's, with random weights."""
  deepest = config.encoder.deepest
  if not deepest and config.encoder.weights not in OURS:
    source = config.encoder.weights, config.encoder.name, 0
    try:
      deepest = weights.load(*source).deepest
    except (ValueError, OSError) as error:
      logging.warning("All levels of the encoder are measured: %s", error)
  widths = geometry.encoder(config.encoder.name).widths
  return weights.random(config.encoder.name, deepest or max(widths))


def with_edits(run: inference.Run, count: int) -> inference.Run:
  """The run with so many edited images in its calibration, at most."""
  config = ml_collections.ConfigDict(run.about.config)
  count = min(count, config.scoring.edits)
  config = ml_collections.FrozenConfigDict(
    settings.assigned(config, {"scoring.edits": count})
  )
  return dataclasses.replace(run, about=run.about._replace(config=config))


def draw(
  run: inference.Run, folder: pathlib.Path, train: int, validation: int
) -> records.Dataset:
  """A drawn category of so many images, written to a folder."""
  size = settings.image_shape(run.about.config)
  numbers = synthetic.Counts(train, validation, good=0, per_flaw=0)
  synthetic.write(folder, [CATEGORY], size=max(size), counts=numbers)
  fields = {"data.root": str(folder), "data.category": CATEGORY, "data.layout": "auto"}
  fields |= {"data.source": "folder", "data.region": ""}
  config = settings.assigned(ml_collections.ConfigDict(run.about.config), fields)
  (data,) = sources.open_all(config.data, config.seed)
  return data


def priors(run: inference.Run, images: int) -> scoring.Priors:
  """Random priors, as many as so many training images leave."""
  config, rng = run.about.config, np.random.default_rng(0)
  remembered = vocabulary = None
  if config.codebook.memory:
    shape = patch_count(run, images), patches_of(run).shape[-1]
    rows = rng.standard_normal(shape, np.float32).astype(np.float16)
    remembered = memory.remember(rows)
  if config.codebook.parts and run.model.counted is not None:
    width = geometry.encoder(config.encoder.name).widths[run.model.counted]
    codes = rng.standard_normal((config.codebook.parts, width), np.float32)
    vocabulary = counts.Vocabulary(codes, np.float32(1))
  return scoring.Priors(remembered, vocabulary)


def patch_count(run: inference.Run, images: int) -> int:
  """How many patches the memory of so many training images keeps."""
  return max(1, round(run.about.config.codebook.memory * pool(run, images)))


def pool(run: inference.Run, images: int) -> int:
  """How many patches these are chosen from."""
  _, height, width, _ = patches_of(run).shape
  return images * min(height * width, max(1, calibrating.POOL // images))


def patches_of(run: inference.Run) -> jax.ShapeDtypeStruct:
  """The shape of one image's patches."""
  size = settings.image_shape(run.about.config)
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
  feats = jax.eval_shape(run.model.features, run.frozen["encoder"], image)
  return jax.eval_shape(run.model.patches, feats)
