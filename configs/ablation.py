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

LOGICAL = {  # the logical module's reconstruction, its map and that map's peak: no more
  "context.source": "none",
  "codebook.enabled": False,
  "codebook.parts": 0,
  "codebook.memory": 0.0,
  "train.edits": 0,
  "scoring.maps": ("reconstruction",),
  "scoring.fusion": "equal",
  "scoring.edits": 0,
  "scoring.pooled": (),
}
BLIND = {"scoring.fusion": "equal", "scoring.edits": 0}  # nothing is learned of edits


def get_variants():
  context = {name: LOGICAL[name] for name in LOGICAL if name != "context.source"}
  codes = LOGICAL | {"codebook.enabled": True}
  both = context | {"codebook.enabled": True}
  return {
    # The config as it is.
    "default": {},
    # What the default adds to the memory and the pooled statistics, which need no
    # training: with nothing learned of edits, and no map of the codes.
    "no-decoders": {"scoring.maps": ("memory",), **BLIND},
    "memory-alone": {"scoring.maps": ("memory",), "scoring.pooled": (), **BLIND},
    "decoders-alone": {
      "scoring.maps": ("reconstruction",),
      "scoring.pooled": (),
      **BLIND,
    },
    # Its parts: no decoder's map, equal weights, statistics that edits did not aim, no
    # statistics, those of the features alone, no map of places.
    "no-decoder-maps": {"scoring.maps": ("memory", "codes", "layout")},
    "fusion-equal": {"scoring.fusion": "equal"},
    "no-edits": {"scoring.fusion": "equal", "scoring.edits": 0},
    "no-statistics": {"scoring.pooled": ()},
    "pooled-features": {"scoring.pooled": ("features",)},
    "no-layout": {"scoring.maps": ("memory", "codes", "reconstruction")},
    "no-positionwise": {"scoring.positionwise": False},
    "image-top1": {"scoring.image": "top1"},
    # A decoder that learns of normal images alone; with a local head, whose map joins;
    # with M_SAD beside it, or in its place.
    "no-undoing": {"train.edits": 0},
    "+local": {"logical.local_width": 32},
    "+structural": {"structural.enabled": True},
    "structural": {"logical.enabled": False, "structural.enabled": True},
    # The decoder of the paper, alone: without priors, with each of them, and with both;
    # the config's own source of the context, codes of the one-class embedding.
    "reconstruction": LOGICAL,
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
    "distance-cosine": LOGICAL | {"loss.distance": "cosine"},
    "distance-mse": LOGICAL | {"loss.distance": "mse"},
    "distance-cosine_flat": LOGICAL | {"loss.distance": "cosine_flat"},
    # The published form.
    "paper": {"variant": "paper", **settings.PAPER},
  }
