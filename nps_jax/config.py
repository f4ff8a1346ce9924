"""Every setting of the project, once: its default and what it means."""

from collections.abc import Callable, Collection, Mapping
import hashlib
import json
from typing import Any

import ml_collections

PAPER = {  # what the published method has in place of ours; see README
  "codebook.where": "levels",
  "codebook.groups": 1,
  "codebook.parts": 0,
  "codebook.memory": 0.0,
  "logical.enabled": True,
  "structural.enabled": True,
  "train.edits": 0,
  "scoring.maps": ("reconstruction", "structural"),
  "scoring.fusion": "equal",
  "scoring.edits": 0,
  "scoring.pooled": (),
  "scoring.positionwise": False,
}
MAPS = (  # sources that see places
  "memory",  # distance to normal patches
  "codes",  # where the counted codes are, or should be, that are too many or too few
  "layout",  # codes that are rare where they are
  "reconstruction",  # M_LAD's
  "discrepancy",  # M_LAD's reconstruction against a local view of it
  "structural",  # M_SAD's
)
SCORED = (
  "codebook.memory",
  "codebook.parts",
  "scoring",
)  # read after the training only


def defaults() -> ml_collections.ConfigDict:
  """The paper's setting where it is known, common practice where it is not; locked."""
  config = ml_collections.ConfigDict()
  config.variant = "default"  # or "paper": the published form, PAPER below
  config.seed = 0  # seeds parameters, data order, and the validation split
  config.image_size = 256  # pixels, height and width; a multiple of 32

  config.data = data = ml_collections.ConfigDict()
  data.source = "folder"  # or "tfds": the root was written by nps_jax.data.tfds_loco
  data.root = ""  # folder that holds the category folders (or is one itself)
  data.category = "all"  # one name, several with commas, or "all": a unified model
  data.synthetic = False  # True: without a root, draw the category into the workdir
  data.layout = "auto"  # "auto", "loco", "mvtec_ad" or "plain"
  data.validation_fraction = 0.1  # of train, only where no validation folder exists;
  # at least 6 images, or a third if these are fewer
  data.bits = 0  # of grey in 16-bit files: 8 to 16; 0: as the training images have it
  data.threads = 2  # threads that decode images

  config.encoder = encoder = ml_collections.ConfigDict()
  encoder.name = "resnet101"  # resnet18|34|50|101, wide_resnet50_2|101_2
  encoder.weights = ""  # a .safetensors file, "hub", "builtin" or "random"
  encoder.levels = (2, 3, 4)  # feature levels that are rebuilt and compared
  encoder.deepest = 0  # level the one-class embedding reads; 0: deepest in the weights
  encoder.dtype = "float32"  # "float32" or "bfloat16": the frozen encoder's arithmetic

  config.context = context = ml_collections.ConfigDict()
  context.source = "clip"  # "clip" (the category's name), "image" (CLIP's vectors of
  # normal images, below), "vectors" (an .npz file), "learned" or "none"
  context.nearest = 3  # for "image": the nearest normal images that join their mean
  context.model = "openai/clip-vit-base-patch32"  # hub name[@revision], or a folder
  context.templates = ("{}",)  # prompts, averaged; {} becomes the category in words
  context.vectors = ""  # .npz of one vector per category, for source "vectors"
  context.cache = ""  # folder for CLIP vectors; "": ~/.cache/nps_jax
  context.width = 64  # channels of the context at each decoder level

  config.codebook = codebook = ml_collections.ConfigDict()
  codebook.enabled = True  # False: the decoder gets no codes
  codebook.where = "embedding"  # which features are quantised: "embedding", "levels"
  # (the encoder's) or "decoder" (the decoder's own, at each level)
  codebook.learning = "ema"  # of the codes: "ema" or "gradient"
  codebook.size = 512  # codes per group
  codebook.groups = 8  # channel groups, each with its own codes
  codebook.width = 64  # channels of a code, for "levels"
  codebook.parts = 512  # codes of f3's own scenes, whose shares are counted, where
  # encoder.levels have 3; 0: none
  codebook.memory = 0.1  # share of the normal patches that a memory keeps, the distance
  # to which is a map; 0: no memory
  codebook.decay = 0.99  # of the EMA statistics
  codebook.eps = 1e-5  # Laplace smoothing of the counts
  codebook.commitment = 0.25  # weight of the commitment loss
  codebook.reseed_after = 100  # steps without use after which a code is replaced

  config.logical = logical = ml_collections.ConfigDict()
  logical.enabled = True  # whether M_LAD, the decoder with priors, is trained
  logical.width = 256  # decoder channels at f4; half as many at each finer level
  logical.blocks = 2  # residual blocks per decoder level
  logical.embedding = 256  # channels of the one-class embedding
  logical.fusion = "concat"  # of decoder and priors: "concat" or "attention"
  logical.strides = 2  # stride-2 convolutions of the one-class embedding
  logical.local_width = 0  # of the local head at f4; half as many at each finer level;
  # 0: no such head, and no map of the discrepancy

  config.structural = structural = ml_collections.ConfigDict()
  structural.enabled = False  # whether M_SAD, the decoder without priors, is trained
  structural.width = 256  # decoder channels at f4; half as many at each finer level
  structural.blocks = 2  # residual blocks per decoder level
  structural.embedding = 256  # channels of the bottleneck
  structural.strides = 1  # stride-2 convolutions before it; 0: a bottleneck by width

  config.loss = loss = ml_collections.ConfigDict()
  loss.distance = "cosine"  # "cosine", "mse" or "cosine_flat"

  config.train = train = ml_collections.ConfigDict()
  train.steps = 20_000
  train.batch_size = 16  # over all devices of all hosts
  train.learning_rate = 1e-4
  train.weight_decay = 1e-5
  train.decay_at = 0.95  # share of the steps after which the rate falls to a tenth
  train.feature_cache = 4.0  # GiB a device may hold of the encoder's features; 0: none
  train.edits = 200  # edited copies of a category's images that the modules learn to
  # undo, beside the images themselves; 0: none
  train.log_every = 50  # steps between lines of metrics.jsonl

  config.scoring = scoring = ml_collections.ConfigDict()
  scoring.smoothing = 4.0  # sigma of the map's Gaussian in pixels at 256 px; 0: off
  scoring.positionwise = True  # scale each position by validation mean and spread
  scoring.low = 0.9  # quantile of validation pixels that becomes 0
  scoring.high = 0.995  # quantile of validation pixels that becomes 0.1
  scoring.maps = (*MAPS,)  # those of these that there are
  scoring.fusion = "learned"  # weights of the maps, on edits, or "equal"
  scoring.edits = 200  # edited copies of normal images that the maps' weights and the
  # statistics' measure are learned on; 0: neither is learned
  scoring.image = "max"  # the fused map's peak: "max", or "top1" (mean of its highest
  # 1 % of pixels)
  scoring.pooled = ("features", "codes")  # whose statistics over the whole image count
  # beside that peak in the image score: "features", "residual" (M_LAD's), "codes"
  # (shares of codebook.parts)

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 1000  # steps; the last step is always saved
  checkpoint.keep = 3  # newest checkpoints that stay

  return config.lock()


def apply_variant(
  config: ml_collections.ConfigDict, given: Collection[str] = ()
) -> None:
  """Sets the fields of the config's variant, but for those that are given."""
  if config.variant == "paper":
    chosen = {name: value for name, value in PAPER.items() if name not in given}
    assign(config, chosen)


def assign(config: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> None:
  """Sets fields, which the config must have, by their dotted names."""
  for name, value in fields.items():
    section, _, field = name.rpartition(".")
    (_at(config, section) if section else config)[field] = value


def assigned(
  config: ml_collections.ConfigDict, fields: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """A locked copy of the config with other values for fields that it has."""
  copy = config.copy_and_resolve_references()
  assign(copy, fields)
  return copy.lock()


def leaves(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Every field's value by its dotted name."""
  values = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      values |= {f"{name}.{field}": inner for field, inner in leaves(value).items()}
    else:
      values[name] = value
  return values


def is_scored(name: str) -> bool:
  """Whether the field, by its dotted name, is read after the training only."""
  return name in SCORED or name.partition(".")[0] in SCORED


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """First 12 hex digits of the SHA-256 of the config's canonical JSON."""
  text = json.dumps(config.to_dict(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


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
DEEPEST = "0 (automatic), or a level 1..5 not below the highest of encoder.levels"
LOW = "a quantile below scoring.high"
COUNTED = ("features", "residual", "codes")  # statistics that scoring.pooled may name

# By field: in words and as a rule, what its value must be.
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
  "image_size": ("a positive multiple of 32", lambda v: v > 0 and v % 32 == 0),
  "encoder.levels": (
    "rising levels out of 1..5, such as (2,3,4)",
    lambda v: 0 < len(v) == len({1, 2, 3, 4, 5} & set(v)) and sorted(v) == list(v),
  ),
  "encoder.deepest": (DEEPEST, lambda v: v in range(6)),
  "data.bits": ("0 or 8 to 16", lambda v: v == 0 or 8 <= v <= 16),
  "data.validation_fraction": ("in (0, 1)", lambda v: 0 < v < 1),
  "codebook.decay": ("in [0, 1)", lambda v: 0 <= v < 1),
  "codebook.memory": ("in [0, 1]", lambda v: 0 <= v <= 1),
  "codebook.eps": ("above 0", lambda v: v > 0),
  "train.learning_rate": ("above 0", lambda v: v > 0),
  "scoring.high": ("a quantile in (0, 1]", lambda v: 0 < v <= 1),
  "scoring.low": (LOW, lambda v: v >= 0),
  "scoring.maps": (f"some of {MAPS}", lambda v: v and set(v) <= set(MAPS)),
  "scoring.pooled": (f"some of {COUNTED}", lambda v: set(v) <= set(COUNTED)),
}
RULES |= {
  name: ("0 or more", lambda v: v >= 0)
  for name in (
    "codebook.parts",
    "logical.local_width",
    "scoring.edits",
    "scoring.smoothing",
    "structural.strides",
    "train.edits",
  )
}
RULES |= {
  name: ("1 or more", lambda v: v >= 1)
  for name in (
    "checkpoint.every",
    "checkpoint.keep",
    "codebook.groups",
    "codebook.reseed_after",
    "codebook.size",
    "codebook.width",
    "context.nearest",
    "context.width",
    "data.threads",
    "logical.embedding",
    "logical.strides",
    "logical.width",
    "structural.embedding",
    "structural.width",
    "train.batch_size",
    "train.log_every",
    "train.steps",
  )
}


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks what types alone cannot.

  Raises:
    ValueError: lists every field that is out of its range, and the range.
  """
  values = leaves(config)
  wrong = [
    f"config.{name} is {values[name]!r}; expected one of {allowed}."
    for name, allowed in CHOICES.items()
    if values[name] not in allowed
  ]
  wrong += [
    f"config.{name} is {values[name]!r}; expected {what}."
    for name, (what, holds) in RULES.items()
    if not holds(values[name])
  ]
  wrong = wrong or _misfits(config)
  if wrong:
    raise ValueError("\n".join(wrong))


def _misfits(config: ml_collections.ConfigDict) -> list[str]:
  """What is wrong between fields, each of which is in its own range."""
  levels, deepest = config.encoder.levels, config.encoder.deepest
  low, wrong = config.scoring.low, []
  if 0 < deepest < max(levels):
    wrong.append(f"config.encoder.deepest is {deepest!r}; expected {DEEPEST}.")
  if low >= config.scoring.high:
    wrong.append(f"config.scoring.low is {low!r}; expected {LOW}.")
  if not (config.logical.enabled or config.structural.enabled):
    wrong.append(
      "config.logical.enabled and config.structural.enabled are False, so there is "
      "nothing to train; enable one. To score without its map, leave it out of "
      "config.scoring.maps."
    )
  counted = config.codebook.parts > 0 and 3 in levels
  there = {
    "memory": config.codebook.memory > 0,
    "codes": counted,
    "layout": counted,
    "reconstruction": config.logical.enabled,
    "discrepancy": config.logical.enabled and config.logical.local_width > 0,
    "structural": config.structural.enabled,
    "features": max(levels) >= 3,
    "residual": config.logical.enabled,
  }
  needs = (
    "the memory needs config.codebook.memory, codes and layout level 3 in "
    "config.encoder.levels and config.codebook.parts, reconstruction and "
    "residual config.logical.enabled, discrepancy config.logical.local_width besides, "
    "structural config.structural.enabled, features a level from 3 on"
  )
  for name in ("maps", "pooled"):
    asked = config.scoring[name]
    if asked and not any(map(there.get, asked)):
      wrong.append(
        f"config.scoring.{name} is {asked!r}, none of which is there: {needs}."
      )
  return wrong


def _at(config: ml_collections.ConfigDict, path: str):
  for name in path.split("."):
    config = config[name]
  return config
