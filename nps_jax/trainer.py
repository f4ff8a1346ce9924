"""Training: `fit` reads top to bottom, from the devices to the calibrated run."""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
import math
import pathlib
from typing import Any

from absl import logging
import jax
from jaxtyping import Array, Float32
import ml_collections
import numpy as np
import optax

from nps_jax import allowed
from nps_jax import calibrating
from nps_jax import config as settings
from nps_jax import detector
from nps_jax import distributed
from nps_jax import inference
from nps_jax import lessons
from nps_jax import publishing
from nps_jax import stored
from nps_jax import updates
from nps_jax.data import checking
from nps_jax.data import pipeline
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.data import sources
from nps_jax.models import context
from nps_jax.models import image_context
from nps_jax.models import weights
from nps_jax.runs import arrays
from nps_jax.runs import checkpoints
from nps_jax.runs import description
from nps_jax.runs import files
from nps_jax.runs import integrity
from nps_jax.runs import interruption
from nps_jax.runs import locking
from nps_jax.runs import provenance
from nps_jax.runs import telemetry

Tree = Any


def fit(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  trained: pathlib.Path | None = None,
) -> inference.Run:
  """Trains the modules that are enabled, calibrates, and opens the finished run.

  Goes on from the newest checkpoint in the workdir, if there is one. More steps than
  the run there had extend it: see `extend`.

  Args:
    trained: a run that has ended and whose training this one takes over; its settings
      may differ in those of config.SCORED.

  Raises:
    ValueError, FileNotFoundError: a setting, the data or the weights are wrong, or the
      workdir holds another run, or another process trains there.
    FloatingPointError: a loss is not finite; names the step, the term and the level.
    OSError: a checkpoint cannot be saved.
    KeyboardInterrupt: SIGTERM or SIGINT came; a checkpoint has been saved.
  """
  allowed.validate(config)
  mesh = distributed.mesh(config.train.batch_size)
  datasets = sources.open_all(config.data, config.seed)
  if (workdir / description.CONFIG).exists():
    known = description.read(workdir).categories
    datasets = sources.renamed(datasets, known)
  names = tuple(data.category for data in datasets)
  checking.check(datasets)
  sources.settle(config, datasets)

  loaded = weights.load(
    config.encoder.weights, config.encoder.name, config.encoder.deepest
  )
  vectors, constants = contexts(config.context, datasets)
  config = ml_collections.FrozenConfigDict(config)
  about = description.Description(
    config=config,
    categories=names,
    deepest=loaded.deepest,
    encoder=loaded.identity,
    images=checking.digests(datasets),
  )
  path = workdir / inference.CALIBRATION
  calibrated = distributed.all_hosts(integrity.intact(path))
  source = None if trained is None or calibrated else open_trained(trained, about)
  description.write(workdir, about, longer=True)
  with locking.alone(workdir):
    extend(workdir, about)
    if source is not None:
      checkpoints.adopt(source.folder, workdir)
    if distributed.is_lead():
      regions.keep(config.data.region, workdir)
    arrays.write_once(workdir / arrays.FROZEN, {"encoder": loaded.params, **constants})

    model = detector.Detector(config, names, loaded.deepest, vectors)
    optimizer = updates.make_optimizer(config.train)
    state = distributed.put_replicated(mesh, updates.create_state(model, optimizer))
    copier = functools.cache(lessons.copies)  # of modules and of statistics
    frozen = distributed.put_replicated(mesh, loaded.params)
    keeper = checkpoints.Checkpoints(workdir, config.checkpoint.keep)
    try:
      state = restore(keeper, state)
      with provenance.timed(workdir, "train"), interruption.Watch() as watch:
        taught = functools.partial(lessons.prepare, config, datasets, copier)
        state = train(
          model, optimizer, mesh, frozen, state, taught, keeper, workdir, watch
        )
    finally:
      keeper.close()

    keep_modules(workdir, state)
    run = inference.open_run(workdir, calibrated=False)
    if not calibrated and distributed.is_lead():
      publishing.withdraw(workdir / files.RESULTS, names)  # of other scales, if there
    with provenance.timed(workdir, "calibrate"):
      return calibrating.calibrate(run, datasets, source, copier)


def extend(workdir: pathlib.Path, about: description.Description) -> None:
  """Makes the run in the folder one of more steps, if so many are asked for.

  Results and calibration go first, so that none is ever there of other steps than
  config.json has. The lead host does it.

  Raises:
    ValueError: the run there differs in something else, or has more steps.
  """
  if distributed.is_lead():
    before, steps = (
      description.read(workdir).config.train.steps,
      about.config.train.steps,
    )
    if steps > before:
      logging.info(
        "Extending the run from %d to %d steps. The learning rate falls late in these, "
        "so it will not be bit for bit a run that had %d from the start.",
        *(before, steps, steps),
      )
      publishing.withdraw(workdir / files.RESULTS, about.categories)
      for name in (inference.CALIBRATION, arrays.MODULES):
        path = workdir / name
        for old in (path, path.with_suffix(integrity.SUFFIX)):
          old.unlink(missing_ok=True)
    description.extend(workdir, about)
  distributed.barrier("extended run")


def open_trained(
  trained: pathlib.Path, about: description.Description
) -> inference.Run:
  """A run that has ended, and was trained as the run of `about` would be.

  Raises:
    FileNotFoundError, ValueError: there is no such run, it has not ended, its files are
      damaged, or it was trained otherwise.
  """
  description.check_trained(trained, about)
  return inference.open_run(trained)


def contexts(
  config: ml_collections.ConfigDict, datasets: Sequence[records.Dataset]
) -> tuple[Float32[np.ndarray, "k t"] | None, Tree]:
  """The rows that the global context reads, and what a run stores of them.

  A row for each category or, with the source "image", for each training image.
  """
  if config.source == "image":
    banks = {
      data.category: image_context.image_vectors(config, data.train)
      for data in datasets
    }
    rows = [image_context.around(bank, bank, config.nearest) for bank in banks.values()]
    vectors = np.concatenate(rows)
    return vectors, {"context": {"vectors": vectors, "bank": banks}}
  vectors = context.category_vectors(config, [data.category for data in datasets])
  return vectors, {} if vectors is None else {"context": {"vectors": vectors}}


def restore(keeper: checkpoints.Checkpoints, state: updates.State) -> updates.State:
  """The newest readable checkpoint's state, else the same state."""
  restored = keeper.restore(_items(state))
  if restored is None:
    return state
  step, items = restored
  logging.info("Going on from step %d.", step)
  return updates.State(**items["variables"], opt=items["opt"])


def keep_modules(workdir: pathlib.Path, state: updates.State) -> None:
  """Stores what a run is used with; the lead host does it."""
  if distributed.is_lead():
    variables = jax.device_get(_items(state)["variables"])
    stored.save_modules(workdir / arrays.MODULES, variables)
  distributed.barrier("modules")


def train(
  model: detector.Detector,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  frozen: Tree,
  state: updates.State,
  prepare: Callable[[], lessons.Lessons],
  keeper: checkpoints.Checkpoints,
  workdir: pathlib.Path,
  watch: interruption.Watch,
) -> updates.State:
  """Runs the remaining steps on what `prepare` makes; saves the last one always.

  Stops early, with a checkpoint, when a signal asks for it.
  """
  config = model.config
  step, steps = int(state.step), config.train.steps
  if step >= steps:
    return state
  taught = prepare()
  streams = [
    pipeline.train_batches(
      images,
      taught.contexts,
      batch_size=config.train.batch_size,
      size=settings.image_shape(config),
      seed=config.seed,
      threads=config.data.threads,
      start_step=step,
      shard_index=distributed.host_index(),
      shard_count=distributed.host_count(),
    )
    for images in (taught.seen, taught.normal)
  ]
  by_row, replicated = distributed.by_row(mesh), distributed.replicated(mesh)
  cache = updates.cached_features(model, mesh, frozen, taught.seen)
  update = jax.jit(
    updates.make_step(model, optimizer, cached=cache is not None),
    in_shardings=(replicated, replicated, by_row, by_row),
    out_shardings=(replicated, replicated),
    donate_argnums=0,
  )
  source = frozen if cache is None else cache
  log = telemetry.Telemetry(
    workdir, step=step, steps=steps, batch_size=config.train.batch_size
  )
  terms = {}
  try:
    for seen, normal in itertools.islice(zip(*streams, strict=True), steps - step):
      previous = terms
      at_home = normal._replace(index=taught.home[normal.index])
      rows = [distributed.put_rows(mesh, batch) for batch in (seen, at_home)]
      with jax.set_mesh(mesh):
        state, terms = update(state, source, *rows)
      finite(step, previous)  # waits for it, so that few steps are under way at once
      step += 1
      if step % config.train.log_every == 0 or step == steps:
        log.write(step, finite(step, terms))
      log.advance(step)
      stop = should_stop(watch, step, config.train.log_every)
      if step % config.checkpoint.every == 0 or step == steps or stop:
        finite(step, terms)
        keeper.save(step, _items(state))
      if stop:
        raise KeyboardInterrupt
  finally:
    for stream in streams:
      stream.close()
    log.close()
  return state


def should_stop(watch: interruption.Watch, step: int, every: int) -> bool:
  """Whether to stop after this step; several hosts agree at each `every` steps."""
  if distributed.host_count() == 1:
    return watch.asked
  return step % every == 0 and not distributed.all_hosts(not watch.asked)


def finite(step: int, terms: Mapping[str, Array]) -> dict[str, float]:
  """The loss terms as floats.

  Raises:
    FloatingPointError: one of them is not finite.
  """
  values = {name: float(value) for name, value in terms.items()}
  bad = [name for name, value in values.items() if not math.isfinite(value)]
  if bad:
    levels = sorted(name.rpartition("/f")[2] for name in bad if "/f" in name)
    where = f"; the first bad level is f{levels[0]}" if levels else ""
    raise FloatingPointError(
      f"At step {step} these loss terms are not finite: {', '.join(bad)}{where}. The "
      "last checkpoint is kept; lower config.train.learning_rate or look at the images."
    )
  return values


def _items(state: updates.State) -> dict[str, Tree]:
  """What a checkpoint holds: using a run needs only the first."""
  variables = {"step": state.step, "params": state.params, "codes": state.codes}
  return {"variables": variables, "opt": state.opt}
