"""PatchCore's coreset as anomalib chooses it, in minutes in place of an hour."""

import time

from anomalib.models.components import KCenterGreedy
import torch
import tqdm

ACTIVE = 2048  # patches that are looked at for each choice
TRIED = 20  # choices by KCenterGreedy itself, to measure its time


def choose_lazily(sampler: KCenterGreedy) -> list[int]:
  """What KCenterGreedy chooses, in the same order but for rounding.

  Always the patch that is farthest from those chosen. A patch that is near one of them
  cannot be next until all that are farther have been: so only the ACTIVE farthest are
  kept up to date, until the next choice might lie among the others, which then catch
  up by one matrix product.
  """
  sampler.model.fit(sampler.embedding)
  points = sampler.model.transform(sampler.embedding)
  chosen = [int(torch.randint(high=len(points), size=(1,)))]
  nearest = torch.linalg.norm(points - points[chosen[0]], dim=1)
  with tqdm.tqdm(total=sampler.coreset_size, desc="Coreset", mininterval=5) as bar:
    while len(chosen) < sampler.coreset_size:
      level = nearest.topk(min(ACTIVE, len(points))).values[-1]
      active = (nearest >= level).nonzero()[:, 0]
      room = sampler.coreset_size - len(chosen)
      fresh = active[walk(points[active], nearest[active], level, room)]
      for part in torch.arange(len(points)).split(16384):
        distances = torch.cdist(points[part], points[fresh]).amin(1)
        nearest[part] = torch.minimum(nearest[part], distances)
      nearest[fresh] = 0.0
      chosen += fresh.tolist()
      bar.update(len(fresh))
  return chosen


def walk(
  points: torch.Tensor, nearest: torch.Tensor, level: torch.Tensor, room: int
) -> list[int]:
  """Greedy choices among the points, as long as they are at least `level` away."""
  chosen: list[int] = []
  while len(chosen) < room:
    farthest, index = nearest.max(0)
    if farthest < level:
      break
    distances = torch.linalg.norm(points - points[index], dim=1)
    nearest = torch.minimum(nearest, distances)
    nearest[index] = 0.0
    chosen.append(int(index))
  return chosen


def seconds(shape: tuple[int, int], ratio: float) -> float:
  """CPU seconds that KCenterGreedy itself takes of so many patches, from some choices.

  Every choice costs the same, whatever the numbers.
  """
  sampler = KCenterGreedy(torch.rand(shape), ratio)
  sampler.features = sampler.model.fit(sampler.embedding).transform(sampler.embedding)
  sampler.update_distances(0)
  start = time.process_time()
  for _ in range(TRIED):
    sampler.update_distances(sampler.get_new_idx())
  return sampler.coreset_size * (time.process_time() - start) / TRIED
