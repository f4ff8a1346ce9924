"""No download, CPU, minutes: draws a product, or trains lightly on your own images.

python -m nps_jax.train --config=configs/synthetic.py --workdir=runs/synthetic
python -m nps_jax.train --config=configs/synthetic.py --workdir=runs/cookies \
  --config.data.root=DATA --config.data.category=cookies \
  --config.encoder.weights=WEIGHTS
"""

from nps_jax import config as settings


def get_config():
  config = settings.defaults()
  config.data.synthetic = True
  config.data.category = "bottle"
  config.encoder.name = "resnet18"
  config.encoder.weights = "builtin"
  config.context.source = "learned"
  config.context.width = 16
  config.codebook.size = 256
  config.codebook.reseed_after = 25
  config.logical.width = 64
  config.logical.blocks = 1
  config.logical.embedding = 64
  config.structural.width = 64
  config.structural.blocks = 1
  config.structural.embedding = 32
  config.structural.strides = 0
  config.train.steps = 400
  config.train.batch_size = 8
  config.train.learning_rate = 5e-3
  config.checkpoint.every = 200
  return config
