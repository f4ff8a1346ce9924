"""The nodes and constants of an ONNX graph while it is being written."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Shaped
import numpy as np
import onnx
from onnx import reference

OPSET = 18
INPUT = "images"
FOLDED = 2**20  # values that a constant is spread to here
Constant = Shaped[np.ndarray, "..."]
Value = str | Constant  # a tensor's name, or an array that is known already
Shape = tuple[Any, ...]  # of numbers and of multiples of the batch


def is_number(side: Any) -> bool:
  """Whether a side of a shape does not depend on the batch."""
  return isinstance(side, int | np.integer)


def _reference(node: onnx.NodeProto) -> reference.ReferenceEvaluator:
  return reference.ReferenceEvaluator(node, opsets={"": OPSET})


class Nodes:
  """Nodes in order, and the constants that they read."""

  def __init__(self, batch: Any):
    self._batch = batch  # the symbol
    self._nodes: list[onnx.NodeProto] = []
    self._constants: dict[str, Constant] = {}
    self._names: dict[int, str] = {}  # of constants, by identity
    self._count = 0
    self._rows = ""

  def add(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
    """Adds a node; its result."""
    (name,) = self.add_all(1, kind, *inputs, **attributes)
    return name

  def add_all(
    self, count: int, kind: str, *inputs: Value, **attributes: Any
  ) -> list[Value]:
    """Adds a node of so many results; what depends on arrays alone is computed."""
    results = [self._new("v") for _ in range(count)]
    if kind != "Expand" and not any(isinstance(value, str) for value in inputs):
      names = [f"i{place}" for place in range(len(inputs))]
      node = onnx.helper.make_node(kind, names, results, **attributes)
      arrays = dict(zip(names, inputs, strict=True))
      return [np.asarray(row) for row in _reference(node).run(None, arrays)]
    names = [self.named(value) for value in inputs]
    self._nodes.append(onnx.helper.make_node(kind, names, results, **attributes))
    return results

  def named(self, value: Value) -> str:
    """The tensor's name; an array becomes a constant of the graph."""
    if isinstance(value, str):
      return value
    if id(value) not in self._names:
      name = self._new("c")
      self._names[id(value)], self._constants[name] = name, value
    return self._names[id(value)]

  def reshape(self, value: Value, old: Shape, new: Shape) -> Value:
    """The value in another shape; at most one side depends on the batch."""
    if tuple(old) == tuple(new):
      return value
    sides = [int(side) if is_number(side) else -1 for side in new]
    if sides.count(-1) > 1:
      raise NotImplementedError(f"a reshape to {new}")
    if isinstance(value, np.ndarray):
      return value.reshape(sides)
    return self.add("Reshape", value, np.array(sides, np.int64))

  def transpose(self, value: Value, order: Sequence[int]) -> Value:
    """The value with its axes in this order."""
    order = [int(axis) for axis in order]
    if order == sorted(order):
      return value
    if isinstance(value, np.ndarray):
      return np.asarray(value.transpose(order), order="C")
    return self.add("Transpose", value, perm=order)

  def expand(self, value: Value, old: Shape, new: Shape) -> Value:
    """The value repeated along its sides of 1 where the new shape has more."""
    if tuple(old) == tuple(new):
      return value
    if all(is_number(side) for side in new):
      if isinstance(value, np.ndarray) and np.prod(new) <= FOLDED:
        return np.broadcast_to(value, new).copy()
      return self.add("Expand", value, np.array(new, np.int64))
    kept = [side == before for side, before in zip(new, old, strict=True)]
    parts = [
      np.array([1 if stays else int(side)], np.int64)
      if stays or is_number(side)
      else self._multiple(side)
      for side, stays in zip(new, kept, strict=True)
    ]
    return self.add("Expand", value, self.add("Concat", *parts, axis=0))

  def model(
    self,
    outputs: Sequence[tuple[str, Value, Shape]],
    images: tuple[int, int, int],
    about: str,
  ) -> onnx.ModelProto:
    """The graph as a model, without what no output needs.

    Args:
      outputs: of each the name, the value and the shape.
      images: the input's shape but for the batch.
      about: what the model is.
    """
    nodes = list(self._nodes)
    for name, value, _ in outputs:
      read = self.named(value)
      nodes.append(onnx.helper.make_node("Identity", [read], [name]))
    wanted, needed = {name for name, _, _ in outputs}, []
    for node in reversed(nodes):
      if wanted & set(node.output):
        needed.append(node)
        wanted |= set(node.input)
    described = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
      needed[::-1],
      "nps_jax",
      [described(INPUT, onnx.TensorProto.UINT8, ["batch", *images])],
      [
        described(name, onnx.TensorProto.FLOAT, ["batch", *map(int, shape[1:])])
        for name, _, shape in outputs
      ],
      [
        onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
        for name, array in self._constants.items()
        if name in wanted
      ],
    )
    return onnx.helper.make_model(
      graph,
      opset_imports=[onnx.helper.make_opsetid("", OPSET)],
      ir_version=10,  # which runtimes of the last years read
      producer_name="nps_jax",
      doc_string=about,
    )

  def _new(self, kind: str) -> str:
    self._count += 1
    return f"{kind}{self._count}"

  def _multiple(self, side: Any) -> str:
    """A vector of one number: a multiple of the images' number."""
    if not self._rows:
      self._rows = self.add("Shape", INPUT, start=0, end=1)
    times = side // self._batch
    if not is_number(times) or times * self._batch != side:
      raise NotImplementedError(f"a side of {side}")
    if times == 1:
      return self._rows
    return self.add("Mul", self._rows, np.array([times], np.int64))
