"""Kept traces: the same results, of nothing that has changed since."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import tracing
from nps_jax.runs import integrity


@pytest.fixture
def place(tmp_path, monkeypatch):
  """The folder of what is compiled, on a machine of one device."""
  monkeypatch.setattr(tracing.compiling, "place", lambda: tmp_path)
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  return tmp_path


def test_the_second_time_nothing_is_traced(place):
  calls = []

  def double(values):
    calls.append(values.shape)
    return {"twice": 2 * values, "none": None, "some": [values]}

  values = jnp.arange(6.0).reshape(2, 3)
  for _ in range(2):
    program = tracing.traced(jax.jit(double), [values], "double")
    found = program(values)
    np.testing.assert_array_equal(found["twice"], 2 * np.asarray(values))
    assert found["none"] is None and len(found["some"]) == 1
  assert calls == [(2, 3)]


def test_other_shapes_types_names_and_sources_are_traced_anew(place, monkeypatch):
  function = jax.jit(lambda values: {"values": values})
  square, row = jnp.zeros((2, 2)), jnp.zeros((4,))
  for leaf, name in ((square, "a"), (row, "a"), (square.astype(int), "a"), (row, "b")):
    tracing.traced(function, [leaf], name)
  assert len(list(place.glob("*.stablehlo"))) == 4
  monkeypatch.setattr(tracing, "_versions", lambda: "of tomorrow")
  tracing.traced(function, [row], "b")
  assert len(list(place.glob("*.stablehlo"))) == 5


def test_a_damaged_trace_is_made_anew(place):
  function, values = jax.jit(lambda values: {"sum": values.sum()}), jnp.arange(3.0)
  tracing.traced(function, [values], "sum")
  (path,) = place.glob("*.stablehlo")
  content = path.read_bytes()
  for changed in (b"", content[:-9], content[:40] + b"?" + content[41:]):
    path.write_bytes(changed)
    assert tracing.traced(function, [values], "sum")(values)["sum"] == 3
    assert integrity.intact(path)


def test_where_it_cannot_be_kept_the_function_is_traced_as_ever(
  place, monkeypatch, caplog
):
  function, values = jax.jit(lambda values: {"sum": values.sum()}), jnp.arange(3.0)
  (place / "file").write_text("no folder")
  monkeypatch.setattr(tracing.compiling, "place", lambda: place / "file")
  assert tracing.traced(function, [values], "sum")(values)["sum"] == 3
  assert "What was traced cannot be kept" in caplog.text
  monkeypatch.setattr(tracing.compiling, "place", lambda: None)
  assert tracing.traced(function, [values], "sum") is function


def test_what_has_no_lasting_form_is_traced_each_time(place):
  def told(values):
    jax.debug.callback(lambda _: None, values)
    return {"values": values}

  function = jax.jit(told)
  assert tracing.traced(function, [jnp.zeros(2)], "told") is function
  assert not list(place.iterdir())


def test_several_devices_trace_for_themselves(place, monkeypatch):
  function = jax.jit(lambda values: {"sum": values.sum()})
  monkeypatch.setattr(jax, "device_count", lambda: 2)
  assert tracing.traced(function, [jnp.zeros(2)], "sum") is function
