"""Your own images: DATA/train holds normal ones, DATA/test/<kind>, if any, the others.

python -m nps_jax.train --config=configs/folder.py --workdir=runs/mine \
  --config.data.root=DATA --config.encoder.weights=resnet18.safetensors

A ResNet-18 and a learned context: nothing but the encoder's weights is downloaded.
"""

from nps_jax import config as settings


def get_config():
  config = settings.defaults()
  config.encoder.name = "resnet18"
  config.encoder.weights = "hub"
  config.context.source = "learned"
  config.train.steps = 2000
  config.train.batch_size = 8
  config.train.learning_rate = 1e-3
  return config
