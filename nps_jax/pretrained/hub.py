"""Files of the Hugging Face hub: from its cache, else by download, else a clear no."""

import http.client
import pathlib
import threading
import urllib.error
import urllib.request

import huggingface_hub
from huggingface_hub import constants

PATIENCE = 2.0  # seconds in which the hub has to answer at all


def cached(repo: str, name: str) -> pathlib.Path | None:
  """Where the hub's cache holds the file; None if it does not."""
  from huggingface_hub import errors  # noqa: PLC0415  # slow to import, rarely needed

  repo, revision = pinned(repo)
  try:
    path = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
  except errors.HFValidationError:  # no repository can have this name
    return None
  return pathlib.Path(path) if isinstance(path, str) else None


def pinned(repo: str) -> tuple[str, str | None]:
  """A repository's name and, where "owner/name@revision" has one, its revision."""
  name, _, revision = repo.partition("@")
  return name, revision or None


def fetch(repo: str, *names: str) -> pathlib.Path | None:
  """The first of these files that the repository has, on this machine's disk.

  Args:
    repo: "owner/name", or "owner/name@revision" for a commit, branch or tag.
    names: alternatives, the preferred one first.

  Returns None where the hub cannot be reached, within seconds, or has none of them.
  """
  from huggingface_hub import errors  # noqa: PLC0415  # as above

  for name in names:
    if path := cached(repo, name):
      return path
  if not reachable():
    return None
  repo, revision = pinned(repo)
  for name in names:
    try:
      return pathlib.Path(
        huggingface_hub.hf_hub_download(
          repo, name, revision=revision, etag_timeout=PATIENCE
        )
      )
    except errors.EntryNotFoundError:
      continue
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError):
      return None
  return None


def reachable() -> bool:
  """Whether the hub answers within PATIENCE; False under HF_HUB_OFFLINE.

  Asked on a thread of its own, since no time limit covers the look-up of a host.
  """
  if constants.HF_HUB_OFFLINE:
    return False
  answers = []

  def ask():
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
      urllib.request.urlopen(request, timeout=PATIENCE).close()
      answers.append(True)
    except urllib.error.HTTPError:  # it answered, if only to say no
      answers.append(True)
    except (OSError, http.client.HTTPException):
      pass

  asking = threading.Thread(target=ask, daemon=True)
  asking.start()
  asking.join(PATIENCE)
  return bool(answers)
