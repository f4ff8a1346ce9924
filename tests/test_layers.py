"""Imports only go down: the floors of the house, read from the source text."""

import ast
import graphlib
import pathlib

import pytest

import nps_jax

# The floors of the house; a package stands for every module in it.
FLOORS = {
  7: "benchmark doctor evaluate export predict pretrain serve sweep train",
  6: "benchmarking estimating evaluating exporting predicting publishing serving study "
  "trainer watching",
  5: "calibrating inference ready updates",
  4: "detector lessons pretraining",
  3: "calibration drawn edits gaussian judging losses map_scales metrics models parts "
  "reasons "
  "report scoring stored tracing verdict",
  2: "data pretrained",
  1: "runs",
  0: "allowed compiling config console distributed geometry runtime",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
FLOOR[""] = -1  # nps_jax/__init__.py, which every import runs first
FOREIGN = {"torch", "torchvision", "tensorflow"}
ALONE = {  # what one module alone may import
  "onnxruntime": "runtime",
  "torch": "benchmarking.rival",
  "transformers": "pretrained.clip",
}
LONGEST = 350  # lines


def sources(root):
  """The text of every module under a package, by dotted name without the package."""
  found = {}
  for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    found[name] = path.read_text(encoding="utf-8")
  return found


def imported(text):
  """Every dotted name that a module imports, at its top or within a function."""
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      yield from (f"{base}.{alias.name}" for alias in node.names)


def house(texts):
  """Each module with the modules of the package that it imports."""
  edges = {}
  for name, text in texts.items():
    inner = [each for each in imported(text) if each.split(".")[0] == "nps_jax"]
    edges[name] = {module(each.partition(".")[2], texts) for each in inner}
  return edges


def module(name, texts):
  """The module that an imported name is, or is defined in."""
  while name and name not in texts:
    name = name.rpartition(".")[0]
  return name


def problems(texts):
  """What breaks the rules, one line each."""
  lines = []
  for name, targets in house(texts).items():
    own = FLOOR.get(name.split(".")[0])
    if own is None:
      lines.append(f"{name} has no floor")
      continue
    for target in sorted(targets):
      floor = FLOOR.get(target.split(".")[0])
      if floor is None:
        lines.append(f"{name} imports {target}, which has no floor")
      elif floor > own:
        lines.append(f"{name} (floor {own}) imports {target} (floor {floor})")
  for name, text in texts.items():
    for each in imported(text):
      alone = ALONE.get(each.split(".")[0]) == name
      if FOREIGN & set(each.split(".")) and not alone:
        lines.append(f"{name} imports {each}")
      if name != ALONE.get(each.split(".")[0], name):
        lines.append(f"{name} imports {each}, which is {ALONE[each.split('.')[0]]}'s")
      if each.startswith("."):
        lines.append(f"{name} imports {each}, relative to itself")
    if text.count("\n") > LONGEST:
      lines.append(f"{name} has {text.count(chr(10))} lines")
  try:
    graphlib.TopologicalSorter(house(texts)).prepare()
  except graphlib.CycleError as error:
    lines.append("cycle: " + " <- ".join(error.args[1]))
  return lines


def test_the_house_stands():
  texts = sources(pathlib.Path(nps_jax.__file__).parent)
  assert {"", "trainer", "drawn.box", "models.encoder"} <= set(texts)
  edges = house(texts)
  assert {"inference", "data.pipeline", "models.weights"} <= edges["trainer"]
  for outer, name in ALONE.items():
    assert outer in imported(texts[name])
  assert {target for targets in edges.values() for target in targets} <= set(texts)
  assert problems(texts) == []


def test_every_name_in_the_table_is_a_module():
  root = pathlib.Path(nps_jax.__file__).parent
  there = {name.split(".")[0] for name in sources(root)}
  assert set(FLOOR) <= there


@pytest.mark.parametrize(
  ("texts", "wanted"),
  [
    (
      {"scoring": "from nps_jax import detector\n", "detector": ""},
      "scoring (floor 3) imports detector (floor 4)",
    ),
    (
      {"data.masks": "def f():\n  import nps_jax.trainer\n", "trainer": ""},
      "data.masks (floor 2) imports trainer (floor 6)",
    ),
    (
      {"": "from nps_jax.data import masks\n", "data.masks": ""},
      " (floor -1) imports data.masks (floor 2)",
    ),
    ({"sprocket": ""}, "sprocket has no floor"),
    (
      {"train": "from nps_jax.sprocket import turn\n", "sprocket": "turn = 1\n"},
      "train imports sprocket, which has no floor",
    ),
    (
      {
        "trainer": "from nps_jax import inference\n",
        "inference": "from nps_jax.trainer import fit\n",
      },
      "cycle: trainer <- inference <- trainer",
    ),
    (
      {"models.weights": "def f():\n  from safetensors.torch import load_file\n"},
      "models.weights imports safetensors.torch.load_file",
    ),
    ({"losses": "import tensorflow as tf\n"}, "losses imports tensorflow"),
    (
      {"models.context": "def f():\n  from transformers.models import clip\n"},
      "models.context imports transformers.models.clip, which is pretrained.clip's",
    ),
    (
      {"models.logical": "from . import fusion\n"},
      "models.logical imports ..fusion, relative to itself",
    ),
    ({"losses": "\n" * 351}, "losses has 351 lines"),
  ],
)
def test_each_breach_is_found(texts, wanted):
  assert wanted in problems(texts)


def test_the_same_floor_may_be_imported_where_nothing_leads_back():
  texts = {
    "train": "import os, nps_jax\nfrom nps_jax import trainer, __version__\n",
    "trainer": "from nps_jax import inference\nimport torchlike, tensorflow_datasets\n",
    "inference": "from nps_jax.data import masks\n",
    "data.masks": "\n" * 350,
    "data": "",
    "": '"""Words."""\n',
  }
  assert problems(texts) == []
