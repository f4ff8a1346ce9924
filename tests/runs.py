"""Tiny data sets and trainings for the end-to-end tests."""

import importlib.util
import pathlib

from nps_jax.drawn import synthetic

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
COUNTS = synthetic.Counts(train=12, validation=4, good=5, per_flaw=2)
SETTINGS = {
  "image_size": 64,
  "encoder.weights": "random",
  "encoder.levels": (3, 4),
  "encoder.deepest": 4,  # the images are too small for the next level
  "data.category": "tray,bottle",
  "codebook.size": 16,
  "codebook.groups": 2,
  "codebook.parts": 32,
  "logical.width": 16,
  "logical.embedding": 16,
  "structural.width": 16,
  "structural.embedding": 8,
  "train.edits": 6,
  "train.learning_rate": 1e-3,
  "train.steps": 6,
  "train.log_every": 1,
  "scoring.edits": 8,
  "checkpoint.every": 3,
}


def draw(root: pathlib.Path) -> pathlib.Path:
  synthetic.write(root, ("tray", "bottle"), size=64, counts=COUNTS)
  return root


def config(root: pathlib.Path, **changes):
  """configs/synthetic.py at the tests' size; in `changes` __ stands for the dot."""
  spec = importlib.util.spec_from_file_location("light", CONFIGS / "synthetic.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  found = module.get_config()
  named = {name.replace("__", "."): value for name, value in changes.items()}
  for name, value in (SETTINGS | {"data.root": str(root)} | named).items():
    *sections, field = name.split(".")
    section = found
    for each in sections:
      section = section[each]
    section[field] = value
  return found


def overrides(root: pathlib.Path, **changes) -> list[str]:
  """The same settings as flags of nps_jax.train."""
  named = {name.replace("__", "."): value for name, value in changes.items()}
  settings = SETTINGS | {"data.root": str(root)} | named
  return [f"--config.{name}={value}" for name, value in settings.items()]
