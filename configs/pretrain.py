"""Trains a small encoder on scenes that it draws itself.

python -m nps_jax.pretrain --config=configs/pretrain.py --workdir=runs/pretrain
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0  # of the parameters and of the scenes
  config.name = "resnet18"  # or resnet34
  config.deepest = 4  # level up to which it is trained; from 2 on objects are compared
  config.image_size = 64  # pixels, height and width; a multiple of 32
  config.steps = 2600
  config.kits = 4  # of forms and surfaces, drawn anew for each step
  config.photographs = 8  # of a scene of each kit; one in four shows something new
  config.learning_rate = 2e-3  # at its highest, after a rise over warmup steps
  config.warmup = 50  # steps
  config.weight_decay = 1e-4
  config.log_every = 50  # steps between lines of metrics.jsonl
  config.checkpoint_every = 500  # steps; the newest two stay
  return config.lock()
