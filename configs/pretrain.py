"""Trains a small encoder on scenes that it draws itself.

python -m nps_jax.pretrain --config=configs/pretrain.py --workdir=runs/pretrain
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0  # of the parameters and of the scenes
  config.name = "resnet18"  # a key of encoder.ARCHITECTURES
  config.deepest = 4  # level up to which it is trained; all from 2 on are judged
  config.image_size = 64  # pixels, height and width; a multiple of 32
  config.steps = 600
  config.layouts = 4  # of objects on a ground, drawn anew for each step
  config.variants = 4  # of each layout, one object changed in each; two photographs
  config.learning_rate = 2e-3  # at its highest, after a rise over warmup steps
  config.warmup = 50  # steps
  config.weight_decay = 1e-4
  config.weight = weight = ml_collections.ConfigDict()  # of the terms, at each level
  weight.shape = 1.0  # which forms are in a cell
  weight.texture = 1.0  # which surfaces
  weight.colour = 2.0  # and of which colour
  weight.invariance = 25.0  # a cell's features in two photographs are equal,
  weight.variance = 25.0  # vary over the scenes,
  weight.covariance = 1.0  # and each without the others
  weight.which = 5.0  # which variant an image shows
  config.log_every = 50  # steps between lines of metrics.jsonl
  config.checkpoint_every = 500  # steps; the newest two stay
  return config.lock()
