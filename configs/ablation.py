"""What each part of the method adds: variants for a sweep, on top of any config.

python -m nps_jax.sweep --config=configs/loco.py --variants=configs/ablation.py \
  --categories=all --seeds=0,1,2 --out=sweeps/loco --config.data.root=DATA \
  --config.encoder.weights=resnet101.safetensors

--only=NAME,NAME runs some of them. Variants with the same settings share their runs:
of configs/loco.py, for example, codes-512 is the default.
What has been measured of them, on a light encoder: configs/RESULTS.md. On MVTec LOCO AD
nothing has been measured yet.
"""

from nps_jax import config as settings

ALONE = {
  "context.source": "none",
  "codebook.enabled": False,
  "codebook.parts": 0,
  "codebook.memory": 0.0,
  "logical.maps": "reconstruction",
  "structural.enabled": False,
  "scoring.global_weight": 0.0,
}


def get_variants():
  context = {name: ALONE[name] for name in ALONE if name != "context.source"}
  return {
    # The config as it is.
    "default": {},
    # The decoder alone and its map alone, then with each prior and with both;
    # "+context" has the config's own source, "+levels" codes where the paper has them.
    "reconstruction": ALONE,
    "+context": context,
    "+codebook": ALONE | {"codebook.enabled": True},
    "+levels": ALONE | {"codebook.enabled": True, "codebook.where": "levels"},
    "+both": context | {"codebook.enabled": True},
    # The whole method without a prior: the context; all codes, also those that are
    # counted (without these alone: pooled-features, below); the memories of patches.
    "no-context": {"context.source": "none"},
    "no-codebook": {"codebook.enabled": False},
    "no-memory": {"codebook.memory": 0.0},
    # Which features are quantised for the decoder.
    "codes-embedding": {"codebook.where": "embedding"},
    "codes-levels": {"codebook.where": "levels"},
    "codes-decoder": {"codebook.where": "decoder"},
    # How many codes a group has.
    "codes-64": {"codebook.size": 64},
    "codes-256": {"codebook.size": 256},
    "codes-512": {"codebook.size": 512},
    "codes-1024": {"codebook.size": 1024},
    # How slowly the codes follow (EMA).
    "decay-0.9": {"codebook.decay": 0.9},
    "decay-0.99": {"codebook.decay": 0.99},
    "decay-0.999": {"codebook.decay": 0.999},
    # By gradient instead of averages, and as one group instead of eight.
    "codes-gradient": {"codebook.learning": "gradient"},
    "groups-1": {"codebook.groups": 1},
    # How the decoder reads its priors.
    "attention": {"logical.fusion": "attention"},
    # The logical module's maps.
    "maps-reconstruction": {"logical.maps": "reconstruction"},
    "maps-discrepancy": {"logical.maps": "discrepancy"},
    "maps-both": {"logical.maps": "both"},
    # The logical module without the structural one.
    "no-structural": {"structural.enabled": False},
    # One scale for the whole map instead of one for each position.
    "no-positionwise": {"scoring.positionwise": False},
    # The distance that is trained, and its map.
    "distance-cosine": {"loss.distance": "cosine"},
    "distance-mse": {"loss.distance": "mse"},
    "distance-cosine_flat": {"loss.distance": "cosine_flat"},
    # The local side of the image score.
    "image-sources": {"scoring.image": "sources"},
    "image-max": {"scoring.image": "max"},
    "image-top1": {"scoring.image": "top1"},
    # Its global side: without the pooled statistics.
    "global-0": {"scoring.global_weight": 0.0},
    "pooled-features": {"scoring.pooled": ("features",)},
    "pooled-residual": {"scoring.pooled": ("residual",)},
    "pooled-codes": {"scoring.pooled": ("codes",)},
    "pooled-all": {"scoring.pooled": ("features", "residual", "codes")},
    # The published form.
    "paper": {"variant": "paper", **settings.PAPER},
  }
