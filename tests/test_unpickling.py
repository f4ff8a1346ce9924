"""Nothing is unpickled and no text is run: read from the source of every module."""

import ast
import pathlib

import pytest

import nps_jax

MODULES = {
  *("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal"),
  *("shelve", "yaml", "torch", "pandas"),
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
READERS = {"load", "read_array", "open_memmap"}  # of NumPy, which may unpickle


def dotted(node):
  """The name that is called, such as np.lib.format.read_array; ?.f of what has none."""
  parts = []
  while isinstance(node, ast.Attribute):
    parts.append(node.attr)
    node = node.value
  return ".".join([node.id if isinstance(node, ast.Name) else "?", *parts[::-1]])


def breaches(text):
  """What a module's source does that could run what a file holds."""
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import | ast.ImportFrom):
      module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
      names = [*module, *(alias.name for alias in node.names)]
      yield from (f"imports {name}" for name in names if MODULES & {*name.split(".")})
    if not isinstance(node, ast.Call):
      continue
    name, given = dotted(node.func), {each.arg: each.value for each in node.keywords}
    root, last = name.split(".")[0], name.split(".")[-1]
    if name in BUILTINS or root in MODULES or last.endswith("pickle"):
      yield f"calls {name}"
    allowed = given.get("allow_pickle")
    denied = isinstance(allowed, ast.Constant) and allowed.value is False
    wanted = root in ("np", "numpy", "jnp") and last in READERS
    if (wanted or allowed is not None) and not denied:
      yield f"calls {name} without allow_pickle=False"


def test_no_module_could_run_what_a_file_holds():
  root = pathlib.Path(nps_jax.__file__).parent
  paths = sorted(root.rglob("*.py"))
  texts = {each.relative_to(root).as_posix(): each.read_text("utf-8") for each in paths}
  assert sum("allow_pickle=False" in text for text in texts.values()) >= 3
  found = {name: list(breaches(text)) for name, text in texts.items()}
  # Computes with PyTorch where that is there, beside ours; reads no file with it.
  rival = {"benchmarking/rival.py": ["imports torch"]}
  assert {name: lines for name, lines in found.items() if lines} == rival


@pytest.mark.parametrize(
  ("text", "wanted"),
  [
    ("import pickle", "imports pickle"),
    ("def f():\n  from torch import load", "imports torch"),
    ("import yaml as y", "imports yaml"),
    ("import numpy as np\nnp.load(path)", "calls np.load without allow_pickle=False"),
    ("np.load(path, allow_pickle=True)", "calls np.load without allow_pickle=False"),
    ("np.load(path, allow_pickle=any)", "calls np.load without allow_pickle=False"),
    ("np.lib.format.read_array(f)", "calls np.lib.format.read_array without allow_"),
    ("save(x, allow_pickle=True)", "calls save without allow_pickle=False"),
    ("jnp.load(path)", "calls jnp.load without allow_pickle=False"),
    ("torch.load(path)", "calls torch.load"),
    ("table.read_pickle(path)", "calls table.read_pickle"),
    ("eval('1')", "calls eval"),
    ("exec(text)", "calls exec"),
  ],
)
def test_each_breach_is_found(text, wanted):
  assert any(line.startswith(wanted) for line in breaches(text))


def test_what_only_looks_alike_is_no_breach():
  text = (
    "jax.eval_shape(f)\nre.compile(p)\njson.load(f)\nnp.load(p, allow_pickle=False)\n"
    "jax.jit(f).lower(x).compile()"
  )
  assert list(breaches(text)) == []
