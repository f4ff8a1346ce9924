"""Every setting of the project, once: its default and what it means."""

import hashlib
import json

import ml_collections


def defaults() -> ml_collections.ConfigDict:
  """The paper's setting where it is known, METHOD's default where it is not; locked."""
  config = ml_collections.ConfigDict()
  config.seed = 0  # seeds parameters, data order, and the validation split
  config.image_size = 256  # pixels, height and width; a multiple of 32

  config.data = data = ml_collections.ConfigDict()
  data.root = ""  # folder that holds the category folders (or is one itself)
  data.category = "all"  # one name, several with commas, or "all": a unified model
  data.layout = "auto"  # "auto", "loco", "mvtec_ad" or "plain"
  data.validation_fraction = 0.1  # of train, only where no validation folder exists
  data.threads = 2  # threads that decode images

  config.encoder = encoder = ml_collections.ConfigDict()
  encoder.name = "resnet101"  # resnet18|34|50|101, wide_resnet50_2|101_2
  encoder.weights = ""  # a .safetensors file with torchvision names, or "random"
  encoder.levels = (2, 3, 4)  # feature levels that are rebuilt and compared
  encoder.deepest = 0  # level the one-class embedding reads; 0: deepest in the weights
  encoder.dtype = "float32"  # "float32" or "bfloat16": the frozen encoder's arithmetic

  config.context = context = ml_collections.ConfigDict()
  context.source = "clip"  # "clip", "vectors" (an .npz file), "learned" or "none"
  context.model = "openai/clip-vit-base-patch32"  # hub name or local directory
  context.templates = ("{}",)  # prompts, averaged; {} becomes the category in words
  context.vectors = ""  # .npz of one vector per category, for source "vectors"
  context.cache = ""  # folder for CLIP vectors; "": ~/.cache/nps_jax
  context.width = 64  # channels of the context at each decoder level

  config.codebook = codebook = ml_collections.ConfigDict()
  codebook.enabled = True  # False: the decoder gets no codes
  codebook.size = 512  # codes per level
  codebook.width = 64  # channels of a code
  codebook.decay = 0.99  # of the EMA statistics
  codebook.eps = 1e-5  # Laplace smoothing of the counts
  codebook.commitment = 0.25  # weight of the commitment loss
  codebook.reseed_after = 100  # steps without use after which a code is replaced

  config.logical = logical = ml_collections.ConfigDict()
  logical.width = 256  # widest decoder layer
  logical.blocks = 2  # residual blocks per decoder level
  logical.embedding = 256  # channels of the one-class embedding
  logical.strides = 2  # stride-2 convolutions of the one-class embedding
  logical.local_width = 128  # channels of the local head
  logical.maps = "both"  # "reconstruction", "discrepancy" or "both"

  config.structural = structural = ml_collections.ConfigDict()
  structural.enabled = True  # False: the logical module alone
  structural.width = 256  # widest decoder layer
  structural.blocks = 2  # residual blocks per decoder level

  config.loss = loss = ml_collections.ConfigDict()
  loss.distance = "cosine"  # "cosine", "mse" or "cosine_flat"

  config.train = train = ml_collections.ConfigDict()
  train.steps = 20_000
  train.batch_size = 16  # over all devices of all hosts
  train.learning_rate = 1e-4
  train.weight_decay = 1e-5
  train.decay_at = 0.95  # share of the steps after which the rate falls to a tenth
  train.log_every = 50  # steps between lines of metrics.jsonl

  config.scoring = scoring = ml_collections.ConfigDict()
  scoring.smoothing = 4.0  # sigma of the map's Gaussian in pixels at 256 px; 0: off
  scoring.positionwise = True  # scale each position by validation mean and spread
  scoring.low = 0.9  # quantile of validation pixels that becomes 0
  scoring.high = 0.995  # quantile of validation pixels that becomes 0.1
  scoring.image = "max"  # "max" or "top1" (mean of the highest 1 % of pixels)
  scoring.global_weight = 1.0  # of the residual Gaussian in the image score; 0: off

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 1000  # steps; the last step is always saved
  checkpoint.keep = 3  # newest checkpoints that stay

  return config.lock()


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """First 12 hex digits of the SHA-256 of the config's canonical JSON."""
  text = json.dumps(config.to_dict(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]
