"""What each part of the method adds: variants for a sweep, on top of any config.

python -m nps_jax.sweep --config=configs/loco.py --variants=configs/ablation.py \
  --categories=all --seeds=0,1,2 --out=sweeps/loco --config.data.root=DATA \
  --config.encoder.weights=resnet101.safetensors

--only=NAME,NAME runs some of them. Variants with the same settings share their runs,
and those that differ only in what is scored share their training. Scores on the drawn
products, with commands and hardware: configs/results/RESULTS.md. Of configs/loco.py
nothing is measured yet.
"""

from nps_jax import config as settings

ALONE = {  # the logical module's reconstruction, its map and that map's peak: no more
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
  codes = ALONE | {"codebook.enabled": True}
  both = context | {"codebook.enabled": True}
  return {
    # The config as it is.
    "default": {},
    # The decoder without priors, with each of them, and with both; the config's own
    # source of the context, codes of the one-class embedding.
    "reconstruction": ALONE,
    "+context": context,
    "+codebook": codes,
    "+both": both,
    # Codes elsewhere: of each encoder level, which is the paper's place and form, or of
    # the decoder's own features.
    "+levels": codes | {"codebook.where": "levels", "codebook.groups": 1},
    "+decoder": codes | {"codebook.where": "decoder", "codebook.groups": 1},
    # Codes of the embedding again: how many in a group, one group instead of eight, by
    # gradient instead of averages (EMA).
    "+codebook-64": codes | {"codebook.size": 64},
    "+codebook-256": codes | {"codebook.size": 256},
    "+codebook-512": codes | {"codebook.size": 512},
    "+codebook-1024": codes | {"codebook.size": 1024},
    "+codebook-one-group": codes | {"codebook.groups": 1},
    "+codebook-gradient": codes | {"codebook.learning": "gradient"},
    # The decoder attends to both priors instead of taking them beside its features.
    "+both-attention": both | {"logical.fusion": "attention"},
    # The distance that is trained, and its map; the config's own is "reconstruction".
    "distance-cosine": ALONE | {"loss.distance": "cosine"},
    "distance-mse": ALONE | {"loss.distance": "mse"},
    "distance-cosine_flat": ALONE | {"loss.distance": "cosine_flat"},
    # The whole method without the memories of patches, or the structural module. (Its
    # decoder's priors are compared above, in the decoder alone.)
    "no-memory": {"codebook.memory": 0.0},
    "no-structural": {"structural.enabled": False},
    # One of the logical module's two maps instead of both.
    "maps-reconstruction": {"logical.maps": "reconstruction"},
    "maps-discrepancy": {"logical.maps": "discrepancy"},
    # One scale for the whole map instead of one for each position.
    "no-positionwise": {"scoring.positionwise": False},
    # The image score from the fused map's peak instead of each map's; without pooled
    # statistics; with those of the features alone, so without the counted codes.
    "image-max": {"scoring.image": "max"},
    "global-0": {"scoring.global_weight": 0.0},
    "pooled-features": {"scoring.pooled": ("features",)},
    # The published form.
    "paper": {"variant": "paper", **settings.PAPER},
  }
