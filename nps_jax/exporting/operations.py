"""What each of JAX's primitives is in ONNX."""

from typing import Any

import jax
import numpy as np
import onnx

from nps_jax.exporting import nodes as graphs

Nodes, Value = graphs.Nodes, graphs.Value
SAME = {  # primitives that are one node
  "abs": "Abs",
  "add": "Add",
  "add_any": "Add",
  "and": "And",
  "ceil": "Ceil",
  "div": "Div",
  "eq": "Equal",
  "erf": "Erf",
  "exp": "Exp",
  "floor": "Floor",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "not": "Not",
  "or": "Or",
  "sqrt": "Sqrt",
  "sub": "Sub",
  "tanh": "Tanh",
}
REDUCED = {
  "reduce_max": "ReduceMax",
  "reduce_min": "ReduceMin",
  "reduce_sum": "ReduceSum",
}
AS_IT_IS = ("copy", "copy_p", "stop_gradient", "optimization_barrier")


def write(nodes: Nodes, eqn: Any, values: list[Value]) -> list[Value]:
  """Writes an equation of a jaxpr; its results.

  Raises:
    NotImplementedError: there is no such primitive here.
  """
  name = eqn.primitive.name
  if name in AS_IT_IS:
    return values
  if name in SAME:
    return [nodes.add(SAME[name], *values)]
  if name in REDUCED:
    axes = np.array(eqn.params["axes"], np.int64)
    return [nodes.add(REDUCED[name], *values, axes, keepdims=0)]
  if name in TABLE:
    return [TABLE[name](nodes, eqn, *values)]
  if name == "top_k":
    return _top_k(nodes, eqn, *values)
  raise NotImplementedError(f"the primitive {name!r} has no form in ONNX here")


def shapes(eqn: Any) -> list[graphs.Shape]:
  """The shapes of what an equation reads."""
  return [variable.aval.shape for variable in eqn.invars]


def _number(eqn: Any, value: int) -> np.ndarray:
  """A number of the type of the equation's first argument."""
  return np.array(value, eqn.invars[0].aval.dtype)


def _type(dtype: Any) -> int:
  return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _iota(nodes: Nodes, eqn: Any) -> Value:
  """Rising numbers along one axis."""
  given = eqn.params
  along = np.arange(given["shape"][given["dimension"]], dtype=given["dtype"])
  shape = [1] * len(given["shape"])
  shape[given["dimension"]] = -1
  return nodes.expand(along.reshape(shape), along.reshape(shape).shape, given["shape"])


def _ne(nodes: Nodes, eqn: Any, one: Value, other: Value) -> Value:
  return nodes.add("Not", nodes.add("Equal", one, other))


def _square(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.add("Mul", value, value)


def _power(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.add("Pow", value, _number(eqn, eqn.params["y"]))


def _rsqrt(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.add("Reciprocal", nodes.add("Sqrt", value))


def _log1p(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.add("Log", nodes.add("Add", value, _number(eqn, 1)))


def _select(nodes: Nodes, eqn: Any, which: Value, no: Value, yes: Value) -> Value:
  return nodes.add("Where", which, yes, no)


def _clamp(nodes: Nodes, eqn: Any, low: Value, value: Value, high: Value) -> Value:
  return nodes.add("Min", nodes.add("Max", value, low), high)


def _cast(nodes: Nodes, eqn: Any, value: Value) -> Value:
  old, new = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
  return value if old == new else nodes.add("Cast", value, to=_type(new))


def _round(nodes: Nodes, eqn: Any, value: Value) -> Value:
  """To fewer bits of float32's 23, as Dekker (1971) splits a number."""
  if eqn.params["exponent_bits"] != 8 or eqn.invars[0].aval.dtype != np.float32:
    raise NotImplementedError(f"rounding to {eqn.params}")
  lost = 23 - eqn.params["mantissa_bits"]
  large = nodes.add("Mul", value, _number(eqn, 2**lost + 1))
  return nodes.add("Sub", large, nodes.add("Sub", large, value))


def _reshape(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.reshape(value, *shapes(eqn), eqn.outvars[0].aval.shape)


def _transpose(nodes: Nodes, eqn: Any, value: Value) -> Value:
  return nodes.transpose(value, eqn.params["permutation"])


def _broadcast(nodes: Nodes, eqn: Any, value: Value, *_: Value) -> Value:
  (old, *_), new = shapes(eqn), eqn.outvars[0].aval.shape
  between = [1] * len(new)
  for axis, side in zip(eqn.params["broadcast_dimensions"], old, strict=True):
    between[axis] = side
  return nodes.expand(nodes.reshape(value, old, tuple(between)), tuple(between), new)


def _concatenate(nodes: Nodes, eqn: Any, *values: Value) -> Value:
  there = zip(values, shapes(eqn), strict=True)
  values = tuple(value for value, shape in there if 0 not in shape)
  return nodes.add("Concat", *values, axis=int(eqn.params["dimension"]))


def _stack(nodes: Nodes, eqn: Any, *values: Value) -> Value:
  axis = np.array([eqn.params.get("dimension", eqn.params.get("axis", 0))], np.int64)
  rows = [nodes.add("Unsqueeze", value, axis) for value in values]
  return nodes.add("Concat", *rows, axis=int(axis[0]))


def _slice(nodes: Nodes, eqn: Any, value: Value) -> Value:
  (shape,), strides = shapes(eqn), eqn.params["strides"]
  bounds = zip(eqn.params["start_indices"], eqn.params["limit_indices"], strict=True)
  cut = [
    (axis, int(low), int(high), 1 if strides is None else int(strides[axis]))
    for axis, (low, high) in enumerate(bounds)
    if high != shape[axis] or low != 0 or (strides and strides[axis] != 1)
  ]
  if not cut:
    return value
  axes, starts, ends, steps = np.array(cut, np.int64).T.copy()
  return nodes.add("Slice", value, starts, ends, axes, steps)


def _pad(nodes: Nodes, eqn: Any, value: Value, filled: Value) -> Value:
  config = eqn.params["padding_config"]
  if any(low < 0 or high < 0 or inner for low, high, inner in config):
    raise NotImplementedError(f"a padding of {config}")
  pads = [low for low, _, _ in config] + [high for _, high, _ in config]
  return nodes.add("Pad", value, np.array(pads, np.int64), filled)


def _extreme(nodes: Nodes, eqn: Any, value: Value) -> Value:
  """The place of the maximum or minimum."""
  kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[eqn.primitive.name]
  (axis,) = eqn.params["axes"]
  place = nodes.add(kind, value, axis=int(axis), keepdims=0)
  return nodes.add("Cast", place, to=_type(eqn.params["index_dtype"]))


def _top_k(nodes: Nodes, eqn: Any, value: Value) -> list[Value]:
  count = np.array([eqn.params["k"]], np.int64)
  if eqn.params["axis"] not in (-1, len(shapes(eqn)[0]) - 1):
    raise NotImplementedError("the highest along another axis than the last")
  values, places = nodes.add_all(2, "TopK", value, count)
  return [values, nodes.add("Cast", places, to=_type(eqn.outvars[1].aval.dtype))]


def _gather(nodes: Nodes, eqn: Any, value: Value, index: Value) -> Value:
  """Rows along one axis, at places that are in bounds."""
  numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
  (shape, places), mode = shapes(eqn), eqn.params["mode"]
  axes, rank = numbers.start_index_map, len(places) - 1
  whole = len(axes) == 1 and numbers.collapsed_slice_dims == tuple(axes)
  whole = whole and all(
    size == (1 if axis == axes[0] else side)
    for axis, (size, side) in enumerate(zip(sizes, shape, strict=True))
  )
  before = axes[0] if axes else 0
  beside = (*range(before), *range(before + rank, len(shape) - 1 + rank))
  safe = mode == jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
  if not whole or not safe or tuple(numbers.offset_dims) != beside:
    raise NotImplementedError(f"gathering by {numbers}, {sizes}, {mode}")
  index = nodes.reshape(index, places, places[:-1])
  return nodes.add("Gather", value, index, axis=int(axes[0]))


def _product(nodes: Nodes, eqn: Any, one: Value, other: Value) -> Value:
  """A product of matrices: batch axes, free ones, and one that both lose."""
  (lost, lost_other), (many, many_other) = eqn.params["dimension_numbers"]
  shape, shape_other = shapes(eqn)
  free = [a for a in range(len(shape)) if a not in (*lost, *many)]
  free_other = [
    a for a in range(len(shape_other)) if a not in (*lost_other, *many_other)
  ]
  one = nodes.transpose(one, (*many, *free, *lost))
  other = nodes.transpose(other, (*many_other, *lost_other, *free_other))

  def sides(shape: graphs.Shape, axes: Any) -> graphs.Shape:
    return tuple(shape[axis] for axis in axes)

  batch, inner = sides(shape, many), sides(shape, lost)
  rows, columns = sides(shape, free), sides(shape_other, free_other)
  across = int(np.prod(inner, dtype=np.int64))
  flat = rows if not batch and len(rows) > 1 else (_times(rows),)
  one = nodes.reshape(one, batch + rows + inner, (*batch, *flat, across))
  other = nodes.reshape(
    other, batch + inner + columns, (*batch, across, _times(columns))
  )
  result = nodes.add("MatMul", one, other)
  wanted = eqn.outvars[0].aval.shape
  return nodes.reshape(result, (*batch, *flat, _times(columns)), wanted)


def _times(sides: graphs.Shape) -> Any:
  product = 1
  for side in sides:
    product = side * product
  return product


def _convolution(nodes: Nodes, eqn: Any, images: Value, kernel: Value) -> Value:
  given = eqn.params
  numbers = given["dimension_numbers"]
  if set(given["lhs_dilation"]) != {1} or given["batch_group_count"] != 1:
    raise NotImplementedError("a transposed convolution")
  lows, highs = zip(*given["padding"], strict=True)
  result = nodes.add(
    "Conv",
    nodes.transpose(images, numbers.lhs_spec),
    nodes.transpose(kernel, numbers.rhs_spec),
    strides=[int(side) for side in given["window_strides"]],
    pads=[int(side) for side in (*lows, *highs)],
    dilations=[int(side) for side in given["rhs_dilation"]],
    group=int(given["feature_group_count"]),
  )
  return nodes.transpose(result, np.argsort(numbers.out_spec).tolist())


def _window(nodes: Nodes, eqn: Any, value: Value) -> Value:
  """The maximum or the sum of windows of rows and columns, channels last."""
  given, (shape,) = eqn.params, shapes(eqn)
  window, strides = given["window_dimensions"], given["window_strides"]
  alone = (*window[:-3], window[-1], *strides[:-3], strides[-1])
  if set(alone) != {1} or {*given["base_dilation"], *given["window_dilation"]} != {1}:
    raise NotImplementedError(f"windows of {window}, {strides} apart")
  lows, highs = zip(*given["padding"][-3:-1], strict=True)
  plain = (_times(shape[:-3]), *shape[-3:])
  value = nodes.transpose(nodes.reshape(value, shape, plain), (0, 3, 1, 2))
  sides = [int(side) for side in window[-3:-1]]
  attributes = {
    "kernel_shape": sides,
    "strides": [int(side) for side in strides[-3:-1]],
    "pads": [int(side) for side in (*lows, *highs)],
  }
  if eqn.primitive.name == "reduce_window_max":
    value = nodes.add("MaxPool", value, **attributes)
  else:
    value = nodes.add("AveragePool", value, count_include_pad=1, **attributes)
    value = nodes.add("Mul", value, _number(eqn, sides[0] * sides[1]))
  value = nodes.transpose(value, (0, 2, 3, 1))
  new = eqn.outvars[0].aval.shape
  return nodes.reshape(value, (plain[0], *new[-3:]), new)


TABLE = {
  "argmax": _extreme,
  "argmin": _extreme,
  "broadcast_in_dim": _broadcast,
  "clamp": _clamp,
  "concatenate": _concatenate,
  "conv_general_dilated": _convolution,
  "convert_element_type": _cast,
  "dot_general": _product,
  "expand_dims": _reshape,
  "gather": _gather,
  "iota": _iota,
  "integer_pow": _power,
  "log1p": _log1p,
  "ne": _ne,
  "pad": _pad,
  "reduce_precision": _round,
  "reduce_window_max": _window,
  "reduce_window_sum": _window,
  "reshape": _reshape,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "square": _square,
  "squeeze": _reshape,
  "stack": _stack,
  "transpose": _transpose,
}
