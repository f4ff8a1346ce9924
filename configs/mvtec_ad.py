"""MVTec AD, or any data in its layout, one model per category.

python -m nps_jax.train --config=configs/mvtec_ad.py --workdir=runs/bottle \
  --config.data.root=DATA --config.data.category=bottle \
  --config.encoder.weights=resnet101.safetensors

Hardware, hours and scores: not measured yet; no figure is claimed here.
"""

from nps_jax import config as settings


def get_config():
  config = settings.defaults()
  config.data.layout = "mvtec_ad"
  config.encoder.name = "resnet101"
  config.encoder.weights = "hub"
  config.context.source = "clip"
  config.train.feature_cache = 6.0  # GiB; hazelnut's images and edits take 4.4
  return config
