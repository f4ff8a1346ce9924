"""Settings: locked defaults, ranges with their messages, fingerprints, files."""

import hashlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import ml_collections
import pytest

from nps_jax import allowed
from nps_jax import config as settings
from nps_jax import geometry

FILES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
OTHER = ("ablation", "pretrain")  # variants; the settings of another training
FILES = [path for path in FILES if path.stem not in OTHER]
CHOICES = {
  "context.source": ("clip", "image", "vectors", "learned", "none"),
  "codebook.learning": ("ema", "gradient"),
  "codebook.where": ("embedding", "levels", "decoder"),
  "data.layout": ("auto", "loco", "mvtec_ad", "plain"),
  "data.source": ("folder", "tfds"),
  "encoder.dtype": ("float32", "bfloat16"),
  "logical.fusion": ("concat", "attention"),
  "loss.distance": ("cosine", "mse", "cosine_flat"),
  "scoring.fusion": ("learned", "equal"),
  "scoring.image": ("max", "top1"),
  "variant": ("default", "paper"),
}
AT_LEAST_ONE = (
  *("checkpoint.every", "checkpoint.keep", "codebook.groups", "codebook.size"),
  *("codebook.reseed_after", "context.width", "data.threads", "logical.embedding"),
  *("logical.strides", "logical.width", "structural.width", "train.batch_size"),
  *("train.log_every", "train.steps"),
)
AT_LEAST_ZERO = (
  *("codebook.parts", "logical.local_width", "scoring.edits", "structural.strides"),
  "train.edits",
)
MAPS = ("memory", "codes", "layout", "reconstruction", "discrepancy", "structural")
MULTIPLE = "a positive multiple of 32, two of them as (height, width), or 'auto'"
LEVELS = "rising levels out of 1..5, such as (2,3,4)"
DEEPEST = "0 (automatic), or a level 1..5 not below the highest of encoder.levels"
WRONG = (
  *(("image_size", value, MULTIPLE) for value in (0, -32, 250, 64.0, "big")),
  *(("image_size", value, MULTIPLE) for value in ((64, 0), (32, 64, 96), (64, 50))),
  *(("encoder.levels", value, LEVELS) for value in ((), (0, 1), (5, 6), (3, 2))),
  ("encoder.levels", (2, 2, 3), LEVELS),
  *(("encoder.deepest", value, DEEPEST) for value in (-1, 3, 6)),
  *(("data.validation_fraction", value, "in (0, 1)") for value in (0.0, 1.0, -0.1)),
  *(("codebook.decay", value, "in [0, 1)") for value in (-0.01, 1.0, float("nan"))),
  *(("codebook.memory", value, "in [0, 1]") for value in (-0.1, 1.1)),
  *(("scoring.maps", value, f"some of {MAPS}") for value in ((), ("memory", "x"))),
  ("scoring.pooled", ("codes", "other"), "some of ('features', 'residual', 'codes')"),
  *(("scoring.low", value, "a quantile below scoring.high") for value in (-0.1, 0.995)),
  *(("scoring.smoothing", value, "0 or more") for value in (-1.0, float("nan"))),
  *((name, -1, "0 or more") for name in AT_LEAST_ZERO),
  *((name, value, "1 or more") for name in AT_LEAST_ONE for value in (0, -2)),
  *((name, "other", f"one of {allowed}") for name, allowed in CHOICES.items()),
  ("encoder.name", "vgg", f"one of {tuple(geometry.ENCODERS)}"),
)
BLOCKS = "rising levels out of 1..12, such as (4,8,12), the highest at least 6"
OF_BLOCKS = {  # what a vision transformer takes, and what not
  "image_size": ((28, 448, (224, 252), "auto"), (256, 14, (224, 256))),
  "encoder.levels": (((6,), (1, 12), (3, 6, 9, 12)), ((2, 3, 4), (0, 7), (7, 13))),
  "encoder.deepest": ((0, 12), (-1, 7, 13)),
}
RIGHT = (
  *(("image_size", value) for value in (32, 512, (192, 384), "auto")),
  *(("encoder.levels", value) for value in ((1, 3), (4,), (1, 2, 3, 4, 5))),
  *(("encoder.deepest", value) for value in (0, 4, 5)),
  *(("data.validation_fraction", value) for value in (0.001, 0.999)),
  *(("codebook.decay", value) for value in (0.0, 0.999)),
  *(("codebook.memory", value) for value in (0.0, 0.1, 1.0)),
  *(("scoring.maps", value) for value in (MAPS, ("layout",), ("memory", "codes"))),
  *(("scoring.pooled", value) for value in ((), ("residual", "codes"))),
  *(("scoring.low", value) for value in (0.0, 0.99)),
  ("scoring.high", 1.0),
  ("scoring.smoothing", 0.0),
  *((name, 0) for name in AT_LEAST_ZERO),
  *((name, 1) for name in AT_LEAST_ONE),
  *((name, value) for name, allowed in CHOICES.items() for value in allowed),
)


def assign(config: ml_collections.ConfigDict, path: str, value) -> None:
  *sections, name = path.split(".")
  for section in sections:
    config = config[section]
  config[name] = value


def leaves(config: ml_collections.ConfigDict) -> dict[str, object]:
  """Every setting by its dotted path."""
  found = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      found |= {f"{name}.{rest}": each for rest, each in leaves(value).items()}
    else:
      found[name] = value
  return found


def another(value):
  """A value of the same type that differs."""
  if isinstance(value, bool):
    return not value
  return value * 2 + (("x",) if isinstance(value, tuple) else type(value)(1))


def opened(path: pathlib.Path):
  """The module in a file of configs/."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_defaults_are_valid_and_not_shared():
  config = settings.defaults()
  allowed.validate(config)
  config.codebook.size = 3
  assert settings.defaults().codebook.size == 512


def test_defaults_are_those_of_the_method():
  """The paper's where it is known; else what the docstrings name as a source."""
  found = leaves(settings.defaults())
  want = {
    "image_size": 256,
    "encoder.name": "resnet101",
    "encoder.levels": (2, 3, 4),
    "codebook.size": 512,
    "codebook.decay": 0.99,
    "codebook.eps": 1e-5,
    "codebook.commitment": 0.25,
    "logical.strides": 2,
    "logical.enabled": True,
    "logical.local_width": 0,
    "structural.enabled": False,
    "loss.distance": "cosine",
    "train.learning_rate": 1e-4,
    "train.weight_decay": 1e-5,
    "train.decay_at": 0.95,
    "train.edits": 200,
    "scoring.smoothing": 4.0,
    "scoring.low": 0.9,
    "scoring.high": 0.995,
    "scoring.maps": MAPS,
    "scoring.fusion": "learned",
    "scoring.edits": 200,
    "scoring.image": "max",
  }
  assert {name: found[name] for name in want} == want


def test_every_section_is_locked_and_refuses_typos():
  config = settings.defaults()
  sections = [each for each in config.values() if hasattr(each, "is_locked")]
  assert len(sections) == 10
  for section in (config, *sections):
    first = next(iter(section))
    assert section.is_locked
    with pytest.raises(AttributeError, match=f'Did you mean "{first}"'):
      setattr(section, f"{first}_", 1)
    with pytest.raises(AttributeError, match=f'Did you mean "{first}"'):
      getattr(section, f"{first}_")
  with pytest.raises(KeyError, match=r'"sise" does not exist .* is locked'):
    config.update({"codebook": {"sise": 3}})
  assert leaves(config) == leaves(settings.defaults())


@pytest.mark.parametrize(
  ("name", "value"), [("train.steps", "many"), ("train.steps", 2.5), ("data.root", 3)]
)
def test_values_of_another_type_are_refused(name, value):
  with pytest.raises(TypeError, match=rf"'{name.split('.')[1]}'.*cannot be casted"):
    assign(settings.defaults(), name, value)


@pytest.mark.parametrize(("name", "value", "what"), WRONG)
def test_each_field_out_of_range_is_refused_alone(name, value, what):
  config = settings.defaults()
  assign(config, name, value)
  with pytest.raises(ValueError, match=rf"^config\.{re.escape(name)} is ") as caught:
    allowed.validate(config)
  assert str(caught.value) == f"config.{name} is {value!r}; expected {what}."


def test_a_high_quantile_above_one_is_refused():
  config = settings.defaults()
  config.scoring.high = 1.1
  with pytest.raises(ValueError, match=r"scoring\.high is 1\.1"):
    allowed.validate(config)


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_the_ends_of_each_range_are_accepted(name, value):
  config = settings.defaults()
  assign(config, name, value)
  allowed.validate(config)
  allowed.validate(ml_collections.FrozenConfigDict(config))


def test_a_vision_transformers_sizes_and_levels_are_its_own():
  """(2, 3, 4), which a ResNet's are, is refused: its early blocks say too little."""
  last = "0 (automatic), or a level 1..12 not below the highest of encoder.levels"
  words = {
    "image_size": MULTIPLE.replace("32", "28"),
    "encoder.levels": BLOCKS,
    "encoder.deepest": last,
  }
  right = {"encoder.name": "dinov2_vitb14_reg", "encoder.levels": (4, 8, 12)}
  whole = settings.assigned(settings.defaults(), right | {"image_size": 252})
  allowed.validate(whole)
  for name, (accepted, refused) in OF_BLOCKS.items():
    for value in accepted:
      allowed.validate(settings.assigned(whole, {name: value}))
    for value in refused:
      expected = f"config.{name} is {value!r}; expected {words[name]}."
      with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        allowed.validate(settings.assigned(whole, {name: value}))


def test_the_deepest_level_is_measured_against_the_compared_ones():
  config = settings.defaults()
  config.encoder.levels, config.encoder.deepest = (1, 3), 3
  allowed.validate(config)
  config.encoder.deepest = 2
  with pytest.raises(ValueError, match=r"^config\.encoder\.deepest is 2; expected 0"):
    allowed.validate(config)


@pytest.mark.parametrize(
  ("levels", "parts", "pooled"),
  [
    *(((1, 2), 9, ("features", "codes")), ((4,), 9, ("codes",)), ((3,), 0, ("codes",))),
  ],
)
def test_statistics_that_are_not_there_are_refused(levels, parts, pooled):
  config = settings.defaults()
  config.encoder.levels, config.codebook.parts = levels, parts
  config.scoring.pooled = pooled
  with pytest.raises(ValueError, match=r"^config\.scoring\.pooled is .*, none of"):
    allowed.validate(config)
  config.scoring.pooled = ()
  allowed.validate(config)
  config.scoring.pooled = (*pooled, "residual")
  allowed.validate(config)
  config.logical.enabled, config.structural.enabled = False, True
  with pytest.raises(ValueError, match=r"^config\.scoring\.pooled is .*, none of"):
    allowed.validate(config)


@pytest.mark.parametrize(
  ("changes", "maps", "other"),
  [
    ({"codebook.memory": 0.0}, ("memory",), "layout"),
    ({"codebook.parts": 0}, ("codes", "layout"), "memory"),
    ({"encoder.levels": (2, 4)}, ("codes", "layout"), "reconstruction"),
    (
      {"logical.enabled": False, "structural.enabled": True},
      ("reconstruction", "discrepancy"),
      "codes",
    ),
    ({}, ("discrepancy", "structural"), "reconstruction"),
    (
      {"logical.enabled": False, "logical.local_width": 8, "structural.enabled": True},
      ("discrepancy",),
      "structural",
    ),
  ],
)
def test_maps_that_are_not_there_are_refused(changes, maps, other):
  """One that is there is enough."""
  config = settings.defaults()
  settings.assign(config, changes)
  config.scoring.maps = maps
  with pytest.raises(ValueError, match=r"^config\.scoring\.maps is .*, none of"):
    allowed.validate(config)
  config.scoring.maps = (*maps, other)
  allowed.validate(config)


def test_a_run_without_modules_is_refused():
  config = settings.defaults()
  config.logical.enabled = False
  with pytest.raises(ValueError, match="nothing to train; enable one"):
    allowed.validate(config)
  config.structural.enabled = True
  allowed.validate(config)


def test_the_settings_that_are_read_after_the_training_are_told_apart():
  after = {"codebook.memory", "codebook.parts"}
  for name in leaves(settings.defaults()):
    assert settings.is_scored(name) == (name in after or name.startswith("scoring."))


def test_all_wrong_fields_are_listed_at_once():
  config = settings.defaults()
  for name in ("train.steps", "codebook.size", "image_size"):
    assign(config, name, 0)
  config.loss.distance = "l1"
  with pytest.raises(ValueError, match=r"config\.loss\.distance is 'l1'") as caught:
    allowed.validate(config)
  assert sorted(str(caught.value).split("\n")) == [
    "config.codebook.size is 0; expected 1 or more.",
    f"config.image_size is 0; expected {MULTIPLE}.",
    f"config.loss.distance is 'l1'; expected one of {CHOICES['loss.distance']}.",
    "config.train.steps is 0; expected 1 or more.",
  ]


def test_fingerprint_is_the_hash_of_canonical_json():
  """Sections and fields in any order, frozen or not, tuples as lists."""
  config = ml_collections.ConfigDict({"b": {"d": (2, 3), "c": "x"}, "a": 0.5})
  text = b'{"a": 0.5, "b": {"c": "x", "d": [2, 3]}}'
  want = hashlib.sha256(text).hexdigest()[:12]
  assert settings.fingerprint(config) == want
  turned = ml_collections.ConfigDict({"a": 0.5, "b": {"c": "x", "d": (2, 3)}})
  assert settings.fingerprint(ml_collections.FrozenConfigDict(turned)) == want


def test_fingerprint_is_the_same_in_another_process():
  code = "from nps_jax import config; print(config.fingerprint(config.defaults()))"
  found = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert found.stdout.strip() == settings.fingerprint(settings.defaults())


def test_fingerprint_changes_with_every_field():
  start = settings.defaults()
  seen = {settings.fingerprint(start)}
  for name, value in leaves(start).items():
    config = settings.defaults()
    assign(config, name, another(value))
    seen.add(settings.fingerprint(config))
    assign(config, name, value)
    assert settings.fingerprint(config) == settings.fingerprint(start)
  assert len(seen) == 1 + len(leaves(start))


def test_there_are_files_to_check():
  names = {path.stem for path in FILES}
  assert names >= {"folder", "loco", "mvtec_ad", "synthetic"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_gives_a_locked_config_that_validates(path):
  module = opened(path)
  config = module.get_config()
  allowed.validate(config)
  assert config.is_locked
  assert set(leaves(config)) == set(leaves(settings.defaults()))
  assert leaves(config) != leaves(settings.defaults())
  assert leaves(module.get_config()) == leaves(config)
  assert f"--config=configs/{path.name} " in module.__doc__


def test_the_paper_s_variant_sets_its_fields_but_for_those_that_are_given():
  config = settings.defaults()
  settings.apply_variant(config)
  assert config == settings.defaults()
  config.variant, config.codebook.groups = "paper", 2
  settings.apply_variant(config, ("variant", "codebook.groups"))
  allowed.validate(config)
  own = settings.PAPER | {"variant": "paper", "codebook.groups": 2}
  assert leaves(config) == leaves(settings.defaults()) | own


def test_the_variant_is_a_flag_of_the_command(tmp_path):
  """It is applied before anything else is found wrong, here the missing data."""
  code = f"""
import sys
from absl import app, flags
from nps_jax import train, trainer
def fit(config, workdir, trained):
  print(config.variant, config.scoring.image, config.scoring.edits)
  raise ValueError("enough")
trainer.fit = fit
sys.argv = ["train", "--config={FILES[0].parent / "loco.py"}", "--workdir={tmp_path}",
  "--config.variant=paper", "--config.scoring.edits=2"]
app.run(train.main)
"""
  found = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert found.stdout == "paper max 2\n", found.stderr
  assert found.stderr.rstrip().endswith("Error: enough")
