"""A function of images in JAX -> the same in ONNX, for any number of images.

The function is traced once, and each primitive of its jaxpr is written as nodes. What
depends on constants alone is computed here; arrays go into the graph as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import onnx

from nps_jax.exporting import nodes as graphs
from nps_jax.exporting import operations

LARGEST = 2**31 - 1  # bytes of a model in one file


def convert(
  function: Callable[[Any], tuple[Any, ...]],
  images: tuple[int, int, int],
  names: Sequence[str],
  about: str,
) -> onnx.ModelProto:
  """The function of uint8 images as a model.

  Args:
    function: of images, batch x height x width x 3, to a tuple.
    images: height, width and 3.
    names: of the results.
    about: what the model is.

  Raises:
    ValueError: it does something that has no form in ONNX, or has over 2 GB.
  """
  (batch,) = export.symbolic_shape("batch")
  closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *images), jnp.uint8))
  nodes = graphs.Nodes(batch)
  try:
    results = _walk(nodes, closed.jaxpr, closed.consts, [graphs.INPUT])
  except NotImplementedError as error:
    raise ValueError(
      f"This run cannot be exported to ONNX: {error}. Use --format=stablehlo."
    ) from error
  shapes = [variable.aval.shape for variable in closed.jaxpr.outvars]
  model = nodes.model(list(zip(names, results, shapes, strict=True)), images, about)
  if model.ByteSize() > LARGEST:
    raise ValueError(
      f"The ONNX model would have {model.ByteSize() / 1e9:.1f} GB, and one file takes "
      "2.1 GB at most: lower config.codebook.memory, or use --format=stablehlo."
    )
  return model


def _walk(
  nodes: graphs.Nodes, jaxpr: Any, consts: Sequence[Any], values: Sequence[graphs.Value]
) -> list[graphs.Value]:
  """Writes the equations of a jaxpr; its results."""
  known: dict[Any, graphs.Value] = {}
  for variable, const in zip(jaxpr.constvars, consts, strict=True):
    known[variable] = np.asarray(const)
  known |= dict(zip(jaxpr.invars, values, strict=True))

  def read(variable: Any) -> graphs.Value:
    if isinstance(variable, jax.extend.core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return known[variable]

  for eqn in _needed(jaxpr):
    if _is_empty(eqn):
      results = [np.zeros(0)] * len(eqn.outvars)
    else:
      results = _write(nodes, eqn, [read(variable) for variable in eqn.invars])
    known |= dict(zip(eqn.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
  """The equations that the results need, in order."""
  wanted, needed = set(map(id, jaxpr.outvars)), []
  for eqn in reversed(jaxpr.eqns):
    if wanted & set(map(id, eqn.outvars)):
      needed.append(eqn)
      wanted |= set() if _is_empty(eqn) else set(map(id, eqn.invars))
  return needed[::-1]


def _is_empty(eqn: Any) -> bool:
  """Whether the results have no values, as a border of width 0, which nothing needs."""
  return all(0 in variable.aval.shape for variable in eqn.outvars)


def _write(
  nodes: graphs.Nodes, eqn: Any, values: list[graphs.Value]
) -> list[graphs.Value]:
  """Writes an equation, and those within it; its results."""
  if eqn.primitive.name == "scan":
    return _unrolled(nodes, eqn, values)
  for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
    inner = eqn.params.get(name)
    if isinstance(inner, jax.extend.core.ClosedJaxpr):
      return _walk(nodes, inner.jaxpr, inner.consts, values)
    if isinstance(inner, jax.extend.core.Jaxpr):
      return _walk(nodes, inner, (), values)
  return operations.write(nodes, eqn, values)


def _unrolled(
  nodes: graphs.Nodes, eqn: Any, values: list[graphs.Value]
) -> list[graphs.Value]:
  """Writes a scan turn by turn."""
  given = eqn.params
  length, constants, carried = given["length"], given["num_consts"], given["num_carry"]
  if not graphs.is_number(length):
    raise NotImplementedError("a loop over the images")
  fixed, carry = values[:constants], values[constants : constants + carried]
  rows = values[constants + carried :]
  turns = []
  for turn in range(length)[:: -1 if given["reverse"] else 1]:
    at = np.array(turn, np.int64)
    own = [
      value[turn] if isinstance(value, np.ndarray) else nodes.add("Gather", value, at)
      for value in rows
    ]
    inner = given["jaxpr"]
    results = _walk(nodes, inner.jaxpr, inner.consts, [*fixed, *carry, *own])
    carry = results[:carried]
    turns.append(results[carried:])
  if given["reverse"]:
    turns.reverse()
  first = np.array([0], np.int64)
  stacked = [
    nodes.add("Concat", *(nodes.add("Unsqueeze", row, first) for row in rows), axis=0)
    for rows in zip(*turns, strict=True)
  ]
  return [*carry, *stacked]
