"""Trains the built-in encoder on drawn scenes, to tell objects and to find new ones."""

import json
import math
import pathlib

from flax import struct
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import ml_collections
import numpy as np
import optax
import safetensors.numpy

from nps_jax import config as settings
from nps_jax import geometry
from nps_jax.models import encoder
from nps_jax.models import resnet_weights
from nps_jax.pretraining import contrast
from nps_jax.pretraining import filters
from nps_jax.pretraining import normalised
from nps_jax.pretraining import novelty
from nps_jax.pretraining import scenes
from nps_jax.runs import checkpoints
from nps_jax.runs import description
from nps_jax.runs import integrity
from nps_jax.runs import interruption
from nps_jax.runs import telemetry

FILE, SETTINGS = "encoder.safetensors", "pretrain.json"
FREE = ("log_every", "checkpoint_every")  # settings that may differ when it goes on
COMPARED = 2  # first level whose objects are compared
DEEPEST = 0.4  # times the deepest level: patches hear it less than the finer ones
SETTLING = 20  # batches over which a finished encoder's moments are averaged


@struct.dataclass
class State:
  """What the training changes."""

  step: Int[Array, ""]
  params: dict  # "encoder", with gains, and "maps", which read it
  opt: tuple


def fit(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> State:
  """Trains, from the newest checkpoint on, and writes the encoder's file.

  Raises:
    ValueError: a setting is wrong, or the workdir holds a training with other ones.
    KeyboardInterrupt: SIGTERM or SIGINT came; a checkpoint has been saved.
    OSError: a checkpoint or the file cannot be written.
    FloatingPointError: the loss is not finite.
  """
  validate(config)
  claim(config, workdir)
  optimizer = make_optimizer(config)
  state = create_state(config, optimizer)
  keeper = checkpoints.Checkpoints(workdir, 2)
  try:
    restored = keeper.restore(_items(state))
    if restored is not None:
      _, items = restored
      state = State(**items["state"])
    with interruption.Watch() as watch:
      state = train(config, optimizer, state, keeper, workdir, watch)
  finally:
    keeper.close()
  export(workdir / FILE, finished_encoder(config, state.params["encoder"]))
  return state


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError that lists every setting that is out of its range."""
  values = settings.leaves(config)
  at_least_one = ("steps", "kits", "log_every", "checkpoint_every")
  rules = {name: (config[name] >= 1, "1 or more") for name in at_least_one} | {
    "photographs": (config.photographs >= scenes.CHANGED, f"{scenes.CHANGED} or more"),
    "name": (config.name in filters.KINDS, f"one of {filters.KINDS}"),
    "deepest": (COMPARED < config.deepest <= encoder.DEEPEST, "3 to 5"),
    "image_size": (
      config.image_size > 0 and config.image_size % geometry.ResNet.multiple == 0,
      f"a positive multiple of {geometry.ResNet.multiple}",
    ),
    "learning_rate": (config.learning_rate > 0, "above 0"),
    "warmup": (config.warmup >= 0, "0 or more"),
    "weight_decay": (config.weight_decay >= 0, "0 or more"),
  }
  wrong = [
    f"config.{name} is {values[name]!r}; expected {what}."
    for name, (holds, what) in rules.items()
    if not holds
  ]
  if wrong:
    raise ValueError("\n".join(wrong))


def claim(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the settings to the workdir, or checks that those stored there are these.

  Raises:
    ValueError: they differ, or are damaged.
  """
  path, content = workdir / SETTINGS, config.to_dict()

  def deciding(values: dict) -> dict:
    return {f"config.{name}": values[name] for name in values if name not in FREE}

  def differences() -> list[str]:
    stored = json.loads(integrity.read(path, "Use another --workdir."))
    return description.compare(deciding(stored), deciding(content))

  description.claim(path, content, differences)


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam with decoupled weight decay; the rate rises, then falls as a cosine to 0."""
  rate = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, min(config.warmup, config.steps - 1), config.steps
  )
  adam = optax.adamw(rate, weight_decay=config.weight_decay)
  return optax.chain(optax.clip_by_global_norm(1.0), adam)


def _model(config: ml_collections.ConfigDict) -> encoder.Encoder:
  return encoder.Encoder(config.name, config.deepest)


def create_state(
  config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
) -> State:
  """The state before the first step, from the config's seed."""
  start = filters.initial(config.name, config.deepest, config.seed)
  moments = _make_moments(config)(start, jnp.int32(config.steps))
  levels = range(COMPARED, config.deepest + 1)
  widths = geometry.encoder(config.name).widths
  rows = {level: jnp.zeros((1, widths[level])) for level in levels}
  maps = contrast.Maps().init(jax.random.key(config.seed), rows)["params"]
  gains = filters.gains(config.name, config.deepest)
  params = {"encoder": normalised.with_gains(start, moments, gains), "maps": maps}
  return State(jnp.int32(0), params, optimizer.init(params))


def _draw(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> scenes.Scene:
  """The scenes of a step."""
  key = jax.random.fold_in(jax.random.key(config.seed + 1), step)
  return scenes.draw(key, config.kits, config.photographs, config.image_size)


def _make_moments(config: ml_collections.ConfigDict):
  """The jitted function params, step -> normalised.Moments of that step's scenes."""

  @jax.jit
  def moments(params, step):
    images = encoder.normalise(_draw(config, step).image)
    return normalised.apply(_model(config), params, images)[1]

  return moments


def finished_encoder(config: ml_collections.ConfigDict, params: dict) -> dict:
  """The encoder's own parameters, by the mean moments of scenes that come next."""
  moments_of, steps = (
    _make_moments(config),
    range(config.steps, config.steps + SETTLING),
  )
  moments = [moments_of(params, jnp.int32(step)) for step in steps]
  mean = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *moments)
  folded = normalised.fold(params, mean)
  return normalised.scaled(folded, config.deepest, DEEPEST)


def make_step(
  config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
):
  """The pure function state -> (state, loss terms); it draws its own scenes."""

  def update(state: State):
    scene = _draw(config, state.step)

    def objective(params):
      images = encoder.normalise(scene.image)
      levels, _ = normalised.apply(_model(config), params["encoder"], images)
      compared = {level: levels[level] for level in range(COMPARED, config.deepest + 1)}
      means, visible = contrast.means(compared, scene.item, scenes.ITEMS)
      mapped = contrast.Maps().apply({"params": params["maps"]}, means)
      kind = scene.kind.reshape(-1)
      terms = {
        f"contrast/f{level}": contrast.loss(rows, kind, visible)
        for level, rows in mapped.items()
      }
      changed = config.photographs // scenes.CHANGED
      for level, feats in compared.items():
        terms[f"novelty/f{level}"] = novelty.loss(
          feats, scene.new, config.kits, changed
        )
      return sum(terms.values()), terms

    def learned(change):
      encoder_change = normalised.learned_change(
        state.params["encoder"], change["encoder"]
      )
      return change | {"encoder": encoder_change}

    (loss, terms), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt = optimizer.update(learned(grads), state.opt, state.params)
    params = optax.apply_updates(state.params, learned(updates))
    return State(state.step + 1, params, opt), {"loss": loss, **terms}

  return update


def train(
  config: ml_collections.ConfigDict,
  optimizer: optax.GradientTransformation,
  state: State,
  keeper: checkpoints.Checkpoints,
  workdir: pathlib.Path,
  watch: interruption.Watch,
) -> State:
  """Runs the remaining steps; stops early, with a checkpoint, when a signal asks."""
  step, steps = int(state.step), config.steps
  photographs = config.kits * config.photographs
  update = jax.jit(make_step(config, optimizer), donate_argnums=0)
  log = telemetry.Telemetry(workdir, step=step, steps=steps, batch_size=photographs)
  try:
    while step < steps:
      state, terms = update(state)
      step += 1
      log.advance(step)
      stop = watch.asked
      saved = step % config.checkpoint_every == 0 or step == steps or stop
      if step % config.log_every == 0 or saved:
        values = finite(step, terms)
      if step % config.log_every == 0 or step == steps:
        log.write(step, values)
      if saved:
        keeper.save(step, _items(state))
      if stop:
        raise KeyboardInterrupt
  finally:
    log.close()
  return state


def finite(step: int, terms: dict[str, Float[Array, ""]]) -> dict[str, float]:
  """The loss terms as floats; FloatingPointError if their sum is not finite."""
  if not math.isfinite(terms["loss"]):
    raise FloatingPointError(
      f"At step {step} the loss is not finite. The last checkpoint is kept; lower "
      "config.learning_rate, in another --workdir."
    )
  return {name: float(value) for name, value in terms.items()}


def _items(state: State) -> dict:
  return {"state": {"step": state.step, "params": state.params, "opt": state.opt}}


def export(path: pathlib.Path, params: dict) -> None:
  """Writes the encoder as float16 in torchvision's names, with its sum beside it.

  Normalisation is folded away already: what the file holds of it only adds the bias.
  """
  tensors = {}
  for target, leaf in traverse_util.flatten_dict(jax.device_get(params)).items():
    conv, norm = resnet_weights.source_names(target[:-1])
    if target[-1] == "kernel":
      tensors[f"{conv}.weight"] = leaf.transpose(3, 2, 0, 1)
      for part, value in (("weight", 1), ("running_mean", 0), ("running_var", 1)):
        tensors[f"{norm}.{part}"] = np.full(leaf.shape[-1], value)
    else:
      tensors[f"{norm}.bias"] = leaf
  half = {
    name: np.array(tensor, np.float16, order="C") for name, tensor in tensors.items()
  }
  integrity.write(path, safetensors.numpy.save(half))
