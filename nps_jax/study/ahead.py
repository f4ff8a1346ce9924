"""Fetches ahead of time what the runs of a sweep would fetch from the network."""

from nps_jax.models import context
from nps_jax.models import weights
from nps_jax.pretrained import clip
from nps_jax.study import plan


def fetch(sweep: plan.Sweep) -> list[str]:
  """Loads the encoders and text vectors of what is asked for; a line for each.

  Raises:
    ValueError, FileNotFoundError: one is damaged, or out of reach.
  """
  owners, lines = {sweep.owner[name] for name in sweep.asked}, {}
  for run in sweep.runs:
    if run.variant not in owners:
      continue
    encoder = run.config.encoder
    source = (encoder.weights, encoder.name, encoder.deepest)
    if source not in lines:
      identity = weights.load(*source).identity
      lines[source] = "Encoder: " + ", ".join(f"{k} {v}" for k, v in identity.items())
    names, wanted = ", ".join(run.categories), run.config.context
    if (names, str(wanted)) not in lines:
      if wanted.source == "image":
        clip.find_model(wanted.model)
      vectors = context.category_vectors(wanted, run.categories)
      size = "" if vectors is None else f", of {vectors.shape[1]} values"
      lines[names, str(wanted)] = f"Context of {names}: {wanted.source}{size}"
  return list(lines.values())
