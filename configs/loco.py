"""MVTec LOCO AD with the paper's encoder, one model per category.

python -m nps_jax.train --config=configs/loco.py --workdir=runs/pushpins \
  --config.data.root=DATA --config.data.category=pushpins \
  --config.encoder.weights=resnet101.safetensors

Hardware, hours and scores: not measured yet; no figure is claimed here.
"""

from nps_jax import config as settings


def get_config():
  config = settings.defaults()
  config.data.layout = "loco"
  config.encoder.name = "resnet101"
  config.encoder.weights = "hub"
  config.encoder.deepest = 5
  config.context.source = "clip"
  config.train.feature_cache = 6.0  # GiB; pushpins' images and edits take 4.2
  return config
