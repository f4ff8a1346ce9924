"""One step of training: what it changes, and the update."""

from collections.abc import Sequence
import math
from typing import Any

from absl import logging
from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import ml_collections
import numpy as np
import optax

from nps_jax import config as settings
from nps_jax import detector
from nps_jax import distributed
from nps_jax.data import reading
from nps_jax.data import records

Tree = Any


@struct.dataclass
class State:
  """What training changes; `opt` holds one optimiser state for each module."""

  step: Int[Array, ""]
  params: Tree
  codes: Tree
  opt: Tree


def make_optimizer(
  config: ml_collections.FrozenConfigDict,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay; the rate falls to a tenth late in training."""
  drop = max(1, round(config.decay_at * config.steps))
  rate = optax.piecewise_constant_schedule(config.learning_rate, {drop: 0.1})
  return optax.adamw(rate, weight_decay=config.weight_decay)


def create_state(
  model: detector.Detector, optimizer: optax.GradientTransformation
) -> State:
  """The state before the first step, from the config's seed."""
  params, codes = jax.jit(model.init)(jax.random.key(model.config.seed))
  opt = {name: optimizer.init(params[name]) for name in params}
  return State(jnp.int32(0), params, codes, opt)


def cached_features(
  model: detector.Detector,
  mesh: jax.sharding.Mesh,
  frozen: Tree,
  images: Sequence[records.Record],
) -> detector.Levels | None:
  """The encoder's features of all images on every device, where they fit.

  Each image is the same in every epoch, so the frozen encoder need see it only once.
  None, and a line of the log, if they would take more than config.train.feature_cache
  GiB.
  """
  config = model.config
  forward = jax.jit(model.features)
  batch_size = distributed.round_up(config.train.batch_size)
  size = settings.image_shape(config)
  blank = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
  one = jax.eval_shape(model.features, frozen, blank)
  bytes_each = sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(one)
  )
  need, most = len(images) * bytes_each / 2**30, config.train.feature_cache
  if need > most:
    logging.info(
      "The encoder's features of %d images take %.2f GiB, more than the %.2f GiB of "
      "config.train.feature_cache: it sees every batch anew, which takes longer.",
      *(len(images), need, most),
    )
    return None
  whole = jax.tree.map(
    lambda leaf: np.empty((len(images), *leaf.shape[1:]), leaf.dtype), one
  )
  for batch in reading.eval_batches(
    images,
    [0] * len(images),
    batch_size=batch_size,
    size=size,
    threads=config.data.threads,
    shard_index=distributed.host_index(),
    shard_count=distributed.host_count(),
  ):
    rows = distributed.put_rows(mesh, batch)
    index, feats = distributed.gather((rows.index, forward(frozen, rows.image)))
    for level, values in feats.items():
      whole[level][index[index >= 0]] = values[index >= 0]
  return distributed.put_replicated(mesh, whole)


def make_step(
  model: detector.Detector, optimizer: optax.GradientTransformation, *, cached: bool
):
  """The pure function (state, source, seen, normal) -> (state, loss terms by name).

  The source is the encoder's parameters or, if `cached`, its features of all images.
  """

  def features(source: Tree, batch: records.Batch) -> detector.Levels:
    if cached:
      return {level: rows[batch.index] for level, rows in source.items()}
    return model.features(source, batch.image)

  def update(state: State, source: Tree, seen: records.Batch, normal: records.Batch):
    feats, wanted = features(source, seen), features(source, normal)
    key = jax.random.fold_in(jax.random.key(model.config.seed), state.step)
    by_image = model.config.context.source == "image"
    row = normal.index if by_image else normal.context

    def objective(params):
      return model.objective(params, state.codes, feats, wanted, row, seen.valid, key)

    (loss, (codes, terms)), grads = jax.value_and_grad(objective, has_aux=True)(
      state.params
    )
    params, opt = {}, {}
    for name in state.params:
      updates, opt[name] = optimizer.update(
        grads[name], state.opt[name], state.params[name]
      )
      params[name] = optax.apply_updates(state.params[name], updates)
    state = State(state.step + 1, params, codes, opt)
    return state, {"loss": loss, **terms}

  return update
