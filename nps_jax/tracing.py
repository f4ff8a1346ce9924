"""Programs traced once for many commands: their StableHLO, kept with what is compiled.

Tracing a detector takes seconds in which nothing is scored.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import pathlib

from absl import logging
import flax
import jax
from jax import export
import jaxlib

import nps_jax
from nps_jax import compiling
from nps_jax.runs import integrity

ANEW = "It is traced anew."


def traced(
  function: jax.stages.Wrapped, leaves: Sequence[jax.Array], what: str
) -> Callable[..., dict]:
  """The function, by a trace that is kept; the function itself where none is.

  Traces are kept for one device. They lie where JAX keeps compiled programs, under
  names that also stand for the arrays' shapes, the package and JAX.

  Args:
    function: of arrays alone; gives dicts, lists and arrays.
    leaves: arrays as it is to be called with.
    what: names all else that the trace depends on.
  """
  place = compiling.place()
  if place is None or jax.device_count() > 1:
    return function
  shapes = [f"{leaf.dtype} {leaf.shape}" for leaf in leaves]
  settings = str(sorted(jax.config.values.items()))
  parts = (what, *shapes, jax.default_backend(), settings, _versions())
  name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
  path = place / f"{name}.stablehlo"
  try:
    program = export.deserialize(bytearray(integrity.read(path, ANEW)))
  except (FileNotFoundError, ValueError):
    try:
      program = export.export(function)(*leaves)
      _keep(path, bytes(program.serialize()))
    except (ValueError, NotImplementedError) as error:  # it calls what may not last
      logging.info("What was traced cannot be kept: %s", error)
      return function
  return jax.jit(program.call)


def _keep(path: pathlib.Path, content: bytes) -> None:
  """Writes the file, or says why it is not there the next time."""
  try:
    integrity.write(path, content)
  except OSError as error:
    logging.warning("What was traced cannot be kept: %s.", error)


@functools.cache
def _versions() -> str:
  """Stands for the source of this package and of what it is traced by."""
  digest = hashlib.sha256()
  for path in sorted(pathlib.Path(nps_jax.__file__).parent.rglob("*.py")):
    digest.update(path.read_bytes())
  versions = (jax.__version__, jaxlib.__version__, flax.__version__)
  return f"{digest.hexdigest()} {versions}"
