"""Every setting of the project, once: its default and what it means."""

from collections.abc import Collection, Mapping
import copy
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


AUTO = "auto"  # image_size, from the training images


def defaults() -> ml_collections.ConfigDict:
  """The paper's setting where it is known, common practice where it is not; locked."""
  config = ml_collections.ConfigDict()
  config.variant = "default"  # or "paper": the published form, PAPER below
  config.seed = 0  # seeds parameters, data order, and the validation split
  config.image_size = ml_collections.FieldReference(256, field_type=object)  # pixels of
  # height and of width, or (height, width), multiples of 32 (for a dinov2: of 28); or
  # "auto": as the training images are shaped
  config.image_pixels = 65_536  # that "auto" takes, about

  config.data = data = ml_collections.ConfigDict()
  data.source = "folder"  # or "tfds": the root was written by nps_jax.data.tfds_loco
  data.root = ""  # folder that holds the category folders (or is one itself)
  data.category = "all"  # one name, several with commas, or "all": a unified model
  data.synthetic = False  # True: without a root, draw the category into the workdir
  data.layout = "auto"  # "auto", "loco", "mvtec_ad" or "plain"
  data.validation_fraction = 0.1  # of train, only where no validation folder exists;
  # at least 6 images, or a third if these are fewer
  data.bits = 0  # of grey in 16-bit files: 8 to 16; 0: as the training images have it
  data.region = ""  # where to look: an image, black where nothing counts, for a fixed
  # camera; or a folder with one for each image, by its path or name; "": everywhere
  data.threads = 2  # threads that decode images

  config.encoder = encoder = ml_collections.ConfigDict()
  encoder.name = "resnet101"  # resnet18|34|50|101, wide_resnet50_2|101_2, or
  # dinov2_vits14|vitb14[_reg]
  encoder.weights = ""  # a .safetensors file, "hub", "builtin" or "random"
  encoder.levels = (2, 3, 4)  # feature levels that are rebuilt and compared; of a
  # dinov2 blocks, such as (4, 8, 12)
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
  # encoder.levels have 3 (of a dinov2: of their middle one's); 0: none
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
  changed = copy.deepcopy(config)
  assign(changed, fields)
  return changed.lock()


def image_shape(config: ml_collections.ConfigDict) -> tuple[int, int]:
  """Height and width of the model's images in pixels.

  Raises:
    ValueError: that is still to be chosen.
  """
  size = config.image_size
  if size == AUTO:
    raise ValueError(f"config.image_size is {AUTO!r}, and no images have settled it.")
  return (size, size) if isinstance(size, int) else tuple(size)


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


def _at(config: ml_collections.ConfigDict, path: str):
  for name in path.split("."):
    config = config[name]
  return config
