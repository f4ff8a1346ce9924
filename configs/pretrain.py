"""Trains a small encoder on scenes that it draws itself.

python -m nps_jax.pretrain --config=configs/pretrain.py --workdir=runs/pretrain
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0  # of the parameters and of the scenes
  config.name = "resnet18"  # a key of encoder.ARCHITECTURES
  config.deepest = 4  # level up to which it is trained; all from 2 on are judged
  config.image_size = 96  # pixels, height and width; a multiple of 32
  config.steps = 16_000
  config.batch_size = 32
  config.learning_rate = 2e-3  # at its highest, after a rise over warmup steps
  config.warmup = 200  # steps
  config.weight_decay = 1e-4
  config.log_every = 50  # steps between lines of metrics.jsonl
  config.checkpoint_every = 500  # steps; the newest two stay
  return config.lock()
