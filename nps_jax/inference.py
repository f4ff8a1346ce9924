"""Opens a run; streams its scores back in record order."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import operator
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int
import numpy as np
from PIL import Image

from nps_jax import config as settings
from nps_jax import detector
from nps_jax import distributed
from nps_jax import reasons
from nps_jax import scoring
from nps_jax import stored
from nps_jax import tracing
from nps_jax.data import decoding
from nps_jax.data import reading
from nps_jax.data import records
from nps_jax.models import image_context
from nps_jax.runs import arrays
from nps_jax.runs import description
from nps_jax.runs import telemetry

Tree = Any
CALIBRATION = "calibration.npz"
BATCH = 8  # images at once
ROWS = 64  # of a map that PIL hands over at once


class Scored(NamedTuple):
  """What a run says of one image."""

  record: records.Record
  map: Float[np.ndarray, "y x"]
  score: float
  reason: reasons.Reason


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained detector with its parameters and, once calibrated, its scales."""

  folder: pathlib.Path
  step: int
  about: description.Description
  model: detector.Detector
  frozen: Tree  # the encoder's parameters, and the context's vectors
  variables: Tree
  calibrations: dict[str, scoring.Calibration]

  programs: dict[Any, Any] = dataclasses.field(  # of this model, by arguments' shapes
    default_factory=dict, init=False, repr=False, compare=False
  )

  def forward(self, *arguments: Tree) -> scoring.RawScores:
    """The raw scores of (frozen, variables, vectors, priors, batch).

    One more argument: of each image, by its index, which training image it is, so that
    the memory passes over its own patches.
    """
    leaves, tree = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    if (tree, shapes) not in self.programs:

      def flat(*leaves):
        return self.jitted(*jax.tree.unflatten(tree, leaves))._asdict()

      model = self.model
      what = f"{model.config.to_json_best_effort()} {model.categories} {model.deepest}"
      program = tracing.traced(jax.jit(flat), leaves, f"{what} {tree}")
      self.programs[tree, shapes] = program
    return scoring.RawScores(**self.programs[tree, shapes](*leaves))

  @functools.cached_property
  def jitted(self):
    """`forward` as JAX compiles it."""

    def forward(frozen, variables, vectors, priors, batch: records.Batch, own=None):
      model = dataclasses.replace(self.model, vectors=vectors)
      feats = model.features(frozen, batch.image)
      params, codes = variables["params"], variables["codes"]
      own = None if own is None else own[batch.index]
      rows = batch.context, batch.valid
      return model.raw_scores(params, codes, feats, *rows, priors, own)

    return jax.jit(forward)


def open_run(workdir: pathlib.Path, *, calibrated: bool = True) -> Run:
  """The run in a folder, at its newest checkpoint.

  Raises:
    FileNotFoundError: the folder is not a run, or has no checkpoint or calibration.
  """
  about = description.read(workdir)
  # JAX arrays: a NumPy table cannot be indexed by a traced value.
  frozen = jax.tree.map(jnp.asarray, arrays.read(workdir / arrays.FROZEN))
  vectors = frozen.get("context", {}).get("vectors")
  model = detector.Detector(about.config, about.categories, about.deepest, vectors)
  if (workdir / arrays.MODULES).exists():
    variables = stored.load_modules(workdir / arrays.MODULES)
  else:
    variables = _newest(workdir, model)
  path = workdir / CALIBRATION
  if calibrated and not path.exists():
    raise FileNotFoundError(
      f"{path} is missing: the training has not ended. Start the same training command "
      "again; it goes on where it stopped."
    )
  calibrations = stored.load(path, arrays.AGAIN) if calibrated else {}
  step, variables = int(variables["step"]), jax.device_put(variables)
  return Run(workdir, step, about, model, frozen, variables, calibrations)


def _newest(workdir: pathlib.Path, model: detector.Detector) -> Tree:
  """The variables of the newest checkpoint.

  Raises:
    FileNotFoundError: there is none.
  """
  from nps_jax.runs import checkpoints  # noqa: PLC0415 - takes a second, rarely needed

  params, codes = jax.eval_shape(model.init, jax.random.key(0))
  like = {"step": jax.ShapeDtypeStruct((), jnp.int32), "params": params, "codes": codes}
  keeper = checkpoints.Checkpoints(workdir, model.config.checkpoint.keep)
  restored = keeper.restore({"variables": like})
  keeper.close()
  if restored is None:
    raise FileNotFoundError(
      f"{workdir} has no checkpoint that can be read: its training has not come that "
      "far. Start the same training command again."
    )
  return restored[1]["variables"]


def collect(
  run: Run,
  images: Sequence[records.Record],
  category: str,
  priors: scoring.Priors,
  what: str = "score",
  own: Int[np.ndarray, " n"] | None = None,
) -> scoring.RawScores:
  """The raw scores of all the images, in order; the arguments are those of `stream`."""
  parts = [rows for _, rows in stream(run, images, category, priors, what, own)]
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def scores(
  run: Run, images: Sequence[records.Record], category: str
) -> Iterator[Scored]:
  """Each record with its score, its map on the stride-4 grid, and the reason."""
  priors = run.calibrations[category].priors
  for index, raw in stream(run, images, category, priors):
    yield from judge(run, [images[at] for at in index], category, raw)


def judge(
  run: Run, images: Sequence[records.Record], category: str, raw: scoring.RawScores
) -> Iterator[Scored]:
  """What the raw scores, a row for each of these records, say of it."""
  config, calibration = run.about.config.scoring, run.calibrations[category]
  for row, record in enumerate(images):
    # One by one: sums over a batch end in other last digits than those of another.
    one = jax.tree.map(operator.itemgetter(slice(row, row + 1)), raw)
    judged = scoring.score(config, calibration, one)
    inside = decoding.region_at(record, judged.maps.shape[1:])
    if inside is not None:
      judged = scoring.within(judged, inside)
    (why,) = reasons.explain(calibration, one, judged)
    yield Scored(record, judged.maps[0], float(judged.scores[0]), why)


def at_size(
  values: Float[np.ndarray, "y x"], size: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
  """The map in float32 at an image's height and width, bilinear."""
  small = Image.fromarray(np.asarray(values, np.float32))
  image = small.resize(size[::-1], Image.Resampling.BILINEAR)
  full = np.empty(size, np.float32)
  for top in range(0, size[0], ROWS):  # at once, PIL would hold it three times
    bottom = min(top + ROWS, size[0])
    full[top:bottom] = np.asarray(image.crop((0, top, size[1], bottom)))
  return full


def stream(
  run: Run,
  images: Sequence[records.Record],
  category: str,
  priors: scoring.Priors,
  what: str = "score",
  own: Int[np.ndarray, " n"] | None = None,
) -> Iterator[tuple[Int[np.ndarray, " n"], scoring.RawScores]]:
  """Batches of (record indices, raw scores), without padding rows, in order.

  Args:
    what: the images are seen for, as the progress bar says it.
    own: which training images they are, whose patches the memory then passes over.
  """
  mesh = distributed.mesh(distributed.round_up(BATCH))
  frozen = distributed.put_replicated(mesh, run.frozen["encoder"])
  variables = distributed.put_replicated(mesh, run.variables)
  vectors, rows_of = contexts(run, images, category)
  vectors = distributed.put_replicated(mesh, vectors)
  priors, own = distributed.put_replicated(
    mesh, (jax.tree.map(np.float32, priors), own)
  )
  for rows in batches(run, mesh, images, rows_of, what):
    raw = run.forward(frozen, variables, vectors, priors, rows, own)
    index, valid, raw = distributed.gather((rows.index, rows.valid, raw))
    keep = np.flatnonzero(valid)
    yield index[keep], jax.tree.map(operator.itemgetter(keep), raw)


def batch_size() -> int:
  """How many images are scored at once."""
  return distributed.round_up(BATCH)


def batches(
  run: Run,
  mesh: jax.sharding.Mesh,
  images: Sequence[records.Record],
  contexts: Sequence[int],
  what: str,
) -> Iterator[records.Batch]:
  """The images' batches, spread over all devices, under a progress bar."""
  size = batch_size()
  with telemetry.bar(len(images), what) as bar:
    for batch in reading.eval_batches(
      images,
      contexts,
      batch_size=size,
      size=settings.image_shape(run.about.config),
      threads=run.about.config.data.threads,
      shard_index=distributed.host_index(),
      shard_count=distributed.host_count(),
    ):
      yield distributed.put_rows(mesh, batch)
      bar.update(min(size, len(images) - bar.n))


def contexts(
  run: Run, images: Sequence[records.Record], category: str
) -> tuple[Float32[np.ndarray, "k t"] | None, Sequence[int]]:
  """The rows that the global context reads, and which of them is each image's."""
  config = run.about.config.context
  if config.source != "image":
    row = run.about.categories.index(category)
    return run.model.vectors, [row] * len(images)
  bank = np.asarray(run.frozen["context"]["bank"][category])
  queries = image_context.image_vectors(config, images)
  return image_context.around(bank, queries, config.nearest), range(len(images))
