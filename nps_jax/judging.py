"""How much each source may say: learned on edits of normal images (ours).

Validation images hold no anomalies, so nothing in them tells which map would see one.
Edited copies of them do. In the fused map, what tells edited places from normal ones
gets weight, what does not gets none, and where the evidence is thin the weights stay
alike.
"""

from collections.abc import Mapping

from jaxtyping import Bool, Float
import numpy as np
from scipy import optimize
from scipy import special

CLEAR = 5.0  # evidence, in reaches of normal cells, above which more says no more
RIDGE = 0.1  # weight of the squared weights beside the mean logistic loss
CELLS = 20  # of each edit, at most: a large edit says no more than a small one
NORMAL = 20_000  # cells of unedited images, at most
SEED = 0  # of which cells are drawn

Maps = Mapping[str, Float[np.ndarray, "_ y x"]]  # scaled: 0.1 is a normal cell's reach


def of_maps(
  normal: Maps, edited: Maps, masks: Bool[np.ndarray, "e y x"]
) -> dict[str, float]:
  """Each source's weight, 0 or more, 1 in the mean.

  The weights of a logistic regression of "edited" on what the sources say of a cell,
  from the edited cells and those of unedited images; each edit counts alike, and both
  sides do. All 1 where nothing was edited, or no source sees what was.

  Args:
    normal: of unedited images.
    edited: of edited copies of them.
    masks: which of the latter's cells the edit has changed.
  """
  rng = np.random.default_rng(SEED)
  touched = [index for index, mask in enumerate(masks) if mask.any()]
  even = dict.fromkeys(normal, 1.0)
  if not touched:
    return even
  rows, sides = [], []
  for index in touched:
    places = np.argwhere(masks[index])
    y, x = rng.permutation(places)[:CELLS].T
    rows.append(np.stack([edited[source][index][y, x] for source in normal], axis=1))
    sides.append(np.full(len(y), 1 / len(y) / len(touched)))
  plain = np.stack([maps.ravel() for maps in normal.values()], axis=1)
  plain = rng.permutation(plain)[:NORMAL]
  evidence = np.clip(10 * np.concatenate([*rows, plain]), 0, CLEAR)
  signs = np.repeat([1.0, -1.0], [len(evidence) - len(plain), len(plain)])
  shares = np.concatenate([*sides, np.full(len(plain), 1 / len(plain))])
  slopes = logistic(evidence, signs, shares)
  if not slopes.any():
    return even
  return dict(zip(normal, (slopes / slopes.mean()).tolist(), strict=True))


def logistic(
  evidence: Float[np.ndarray, "n k"],
  signs: Float[np.ndarray, " n"],
  shares: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " k"]:
  """The slopes, none negative, of the least weighted logistic loss with a ridge.

  Args:
    signs: 1 for what is to be above the threshold, -1 for what is to be below.
    shares: each row's weight in the loss.
  """

  def loss(point: Float[np.ndarray, " j"]):
    offset, slopes = point[0], point[1:]
    margin = signs * (evidence @ slopes + offset)
    value = shares @ np.logaddexp(0, -margin) + RIDGE * slopes @ slopes
    pull = -shares * signs * special.expit(-margin)
    return value, np.concatenate([[pull.sum()], evidence.T @ pull + 2 * RIDGE * slopes])

  count = evidence.shape[1]
  bounds = [(None, None)] + [(0, None)] * count
  start = np.zeros(1 + count)
  return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[
    1:
  ]
