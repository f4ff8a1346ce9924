"""Every setting of the project, once: its default and what it means."""

from collections.abc import Collection, Mapping
import hashlib
import json
from typing import Any

import ml_collections

PAPER = {  # what the published method has in place of ours; see README
  "codebook.where": "levels",
  "codebook.groups": 1,
  "codebook.parts": 0,
  "codebook.memory": 0.0,
  "logical.maps": "reconstruction",
  "scoring.image": "max",
  "scoring.global_weight": 0.0,
  "scoring.positionwise": False,
}
SCORED = ("codebook.memory", "logical.maps", "scoring")  # read after the training only


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
  data.validation_fraction = 0.1  # of train, only where no validation folder exists
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
  codebook.parts = 2048  # codes of f3's own scenes, whose shares are counted, where
  # encoder.levels have 3; 0: none
  codebook.parts_decay = 0.99  # of their EMA statistics; lower for short trainings
  codebook.memory = 0.1  # share of the normal patches that two memories keep, the
  # distances to which are maps; 0: no memories
  codebook.decay = 0.99  # of the EMA statistics
  codebook.eps = 1e-5  # Laplace smoothing of the counts
  codebook.commitment = 0.25  # weight of the commitment loss
  codebook.reseed_after = 100  # steps without use after which a code is replaced

  config.logical = logical = ml_collections.ConfigDict()
  logical.width = 256  # decoder channels at f4; half as many at each finer level
  logical.blocks = 2  # residual blocks per decoder level
  logical.embedding = 256  # channels of the one-class embedding
  logical.fusion = "concat"  # of decoder and priors: "concat" or "attention"
  logical.strides = 2  # stride-2 convolutions of the one-class embedding
  logical.local_width = 128  # of the local head at f4; half as many at each finer level
  logical.maps = "both"  # "reconstruction", "discrepancy" or "both"

  config.structural = structural = ml_collections.ConfigDict()
  structural.enabled = True  # False: the logical module alone
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
  train.log_every = 50  # steps between lines of metrics.jsonl

  config.scoring = scoring = ml_collections.ConfigDict()
  scoring.smoothing = 4.0  # sigma of the map's Gaussian in pixels at 256 px; 0: off
  scoring.positionwise = True  # scale each position by validation mean and spread
  scoring.low = 0.9  # quantile of validation pixels that becomes 0
  scoring.high = 0.995  # quantile of validation pixels that becomes 0.1
  scoring.image = "sources"  # peaks of each map (not of the reconstruction's where
  # there is a discrepancy's), or of the fused map: "max", or "top1" (mean of its
  # highest 1 % of pixels)
  scoring.pooled = ("features", "codes")  # whose statistics over the whole image count
  # in the image score: "features", "residual", "codes" (shares of codebook.parts)
  scoring.global_weight = 3.0  # of these statistics; 0: off

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


def is_scored(name: str) -> bool:
  """Whether the field, by its dotted name, is read after the training only."""
  return name in SCORED or name.partition(".")[0] in SCORED


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """First 12 hex digits of the SHA-256 of the config's canonical JSON."""
  text = json.dumps(config.to_dict(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks what types alone cannot.

  Raises:
    ValueError: lists every field that is out of its range, and the range.
  """
  levels = tuple(config.encoder.levels)
  deepest = config.encoder.deepest
  known = {
    "context.source": ("clip", "image", "vectors", "learned", "none"),
    "codebook.learning": ("ema", "gradient"),
    "codebook.where": ("embedding", "levels", "decoder"),
    "data.layout": ("auto", "loco", "mvtec_ad", "plain"),
    "data.source": ("folder", "tfds"),
    "encoder.dtype": ("float32", "bfloat16"),
    "logical.fusion": ("concat", "attention"),
    "logical.maps": ("reconstruction", "discrepancy", "both"),
    "loss.distance": ("cosine", "mse", "cosine_flat"),
    "scoring.image": ("sources", "max", "top1"),
    "variant": ("default", "paper"),
  }
  at_least_one = (
    *("checkpoint.every", "checkpoint.keep", "codebook.groups", "codebook.size"),
    *("codebook.width", "codebook.reseed_after", "context.nearest", "context.width"),
    *("logical.local_width", "logical.embedding", "logical.strides", "logical.width"),
    *("structural.width", "structural.embedding", "train.batch_size", "train.steps"),
    *("train.log_every", "data.threads"),
  )
  rules = {
    "image_size": (
      config.image_size > 0 and config.image_size % 32 == 0,
      "a positive multiple of 32",
    ),
    "encoder.levels": (
      len(levels) > 0
      and set(levels) <= {1, 2, 3, 4, 5}
      and list(levels) == sorted(set(levels)),
      "rising levels out of 1..5, such as (2,3,4)",
    ),
    "encoder.deepest": (
      deepest in range(6) and (deepest == 0 or deepest >= max(levels, default=1)),
      "0 (automatic), or a level 1..5 not below the highest of encoder.levels",
    ),
    "data.validation_fraction": (0 < config.data.validation_fraction < 1, "in (0, 1)"),
    "codebook.decay": (0 <= config.codebook.decay < 1, "in [0, 1)"),
    "codebook.parts": (config.codebook.parts >= 0, "0 or more"),
    "codebook.parts_decay": (0 <= config.codebook.parts_decay < 1, "in [0, 1)"),
    "codebook.memory": (0 <= config.codebook.memory <= 1, "in [0, 1]"),
    "scoring.global_weight": (config.scoring.global_weight >= 0, "0 or more"),
    "scoring.high": (0 < config.scoring.high <= 1, "a quantile in (0, 1]"),
    "scoring.low": (
      0 <= config.scoring.low < max(config.scoring.high, 1e-9),
      "a quantile below scoring.high",
    ),
    "codebook.eps": (config.codebook.eps > 0, "above 0"),
    "scoring.pooled": (
      set(config.scoring.pooled) <= {"features", "residual", "codes"},
      "some of ('features', 'residual', 'codes')",
    ),
    "train.learning_rate": (config.train.learning_rate > 0, "above 0"),
    "structural.strides": (config.structural.strides >= 0, "0 or more"),
    "scoring.smoothing": (config.scoring.smoothing >= 0, "0 or more"),
  }
  rules |= {
    name: (_at(config, name) in allowed, f"one of {allowed}")
    for name, allowed in known.items()
  }
  rules |= {name: (_at(config, name) >= 1, "1 or more") for name in at_least_one}
  wrong = [
    f"config.{name} is {_at(config, name)!r}; expected {what}."
    for name, (holds, what) in rules.items()
    if not holds
  ]
  if not wrong and not _counts(config):
    wrong = [
      f"config.scoring.pooled is {config.scoring.pooled!r}, none of which is there: "
      "features need a level from 3 on in config.encoder.levels, codes level 3 and "
      "config.codebook.parts. Set config.scoring.global_weight to 0 to do without."
    ]
  if wrong:
    raise ValueError("\n".join(wrong))


def _counts(config: ml_collections.ConfigDict) -> bool:
  """Whether one of scoring.pooled is there, or none asked for."""
  levels, wanted = config.encoder.levels, config.scoring.pooled
  if not config.scoring.global_weight or not wanted:
    return True
  there = {
    "features": any(level >= 3 for level in levels),
    "codes": config.codebook.parts > 0 and 3 in levels,
  }
  return any(there.get(name, True) for name in wanted)


def _at(config: ml_collections.ConfigDict, path: str):
  for name in path.split("."):
    config = config[name]
  return config
