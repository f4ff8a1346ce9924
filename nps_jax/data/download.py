"""Files by HTTP: gone on with where they stopped, tried again, never half there."""

from collections.abc import Iterator, Mapping
import email.message
import http.client
import itertools
import json
import pathlib
import re
import sys
import time
from typing import Any, NamedTuple
import urllib.error
import urllib.request

from absl import logging
import tqdm

from nps_jax.runs import files

PIECE = 2**20  # bytes read at a time
AGENT = "nps_jax"
LATER = (408, 425, 429)  # statuses below 500 that say: try again


class Patience(NamedTuple):
  """How long to bear a bad connection, in seconds, and how often."""

  stall: float = 60.0  # without a byte, after which a connection is given up
  tries: int = 6  # in a row that bring nothing new
  wait: float = 2.0  # before the second try; doubled for each later one, up to LONGEST


PATIENCE = Patience()
LONGEST = 60.0  # seconds between two tries


class InterruptionError(Exception):
  """What a connection did instead of bringing the file; trying again may help."""


def fetch(
  url: str, path: pathlib.Path, patience: Patience, size: int | None = None
) -> None:
  """Downloads the file, or goes on with what an earlier call left as `path`.part.

  Args:
    size: the bytes that it should have, where that is known.

  Raises:
    ValueError: the address refuses, answers with a web page or has another size.
    ConnectionError: no more came, however often it was tried; what came stays.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f"{path.name}.part")
  failures, most = 0, _length(part)
  while True:
    try:
      _receive(url, part, patience.stall, size)
      break
    except InterruptionError as error:
      failures = 0 if _length(part) > most else failures + 1
      most = max(most, _length(part))
      if failures >= patience.tries:
        again = "Start the same command again later"
        if _length(part):
          again = f"{_length(part)} bytes are in {part}: the same command goes on there"
        raise ConnectionError(
          f"{url} could not be downloaded: {error}; given up after {failures} tries "
          f"that brought nothing new. {again}. Or fetch the file by hand, and give "
          "--from=FILE."
        ) from error
      pause = min(patience.wait * 2 ** max(failures - 1, 0), LONGEST)
      logging.warning("%s: %s. Trying again in %g s.", url, error, pause)
      time.sleep(pause)
  part.replace(path)
  _note(part).unlink(missing_ok=True)


def is_page(head: bytes) -> bool:
  """Whether a file with this beginning is a web page."""
  return head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _receive(url: str, part: pathlib.Path, stall: float, size: int | None) -> None:
  """Appends to the part, or begins it anew, until the file is whole.

  Raises:
    InterruptionError: the connection ended before that.
  """
  note = _read_note(part, url)
  start = _length(part) if note else 0
  with _open(url, start, note.get("validator"), stall) as response:
    if "text/html" in response.headers.get("Content-Type", ""):
      raise ValueError(_page_message(url))
    at, total = _place(response, start, note, part)
    if size is not None and total not in (None, size):
      raise ValueError(
        f"{url} has {total} bytes instead of {size}, so it is another file: the "
        "publisher may have changed the archive or its address. Look for it on the "
        "data set's page."
      )
    pieces = _pieces(response, stall)
    if at == 0:
      first = next(pieces, b"")
      if is_page(first):
        raise ValueError(_page_message(url))
      _begin(part, url, total, response.headers)
      pieces = itertools.chain([first], pieces)
    with part.open("ab") as file, _bar(part.stem, at, total) as bar:
      for piece in pieces:
        file.write(piece)
        bar.update(len(piece))
      came = file.tell()
  if total is not None and came < total:
    raise InterruptionError(f"the connection broke off after {came} of {total} bytes")


def _open(
  url: str, start: int, validator: str | None, stall: float
) -> http.client.HTTPResponse | urllib.error.HTTPError:
  """The answer to a request for the file from `start` on; 416 is an answer, too."""
  headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
  if start:
    headers["Range"] = f"bytes={start}-"
    if validator:
      headers["If-Range"] = validator
  try:
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=stall)
  except urllib.error.HTTPError as error:
    if start and error.code == 416:
      return error
    if error.code >= 500 or error.code in LATER:
      raise InterruptionError(
        f"the server answers {error.code} {error.reason}"
      ) from error
    raise ValueError(
      f"{url} answers {error.code} {error.reason}: the publisher may have moved the "
      "file. Look for it on the data set's page, fetch it by hand, and give "
      "--from=FILE."
    ) from error
  except (OSError, http.client.HTTPException) as error:
    raise InterruptionError(_words(error, stall)) from error


def _place(
  response: http.client.HTTPResponse | urllib.error.HTTPError,
  start: int,
  note: Mapping[str, Any],
  part: pathlib.Path,
) -> tuple[int, int | None]:
  """Where in the file the answer's bytes belong, and the file's length if told.

  Raises:
    InterruptionError: they do not fit to what is there, which is thrown away.
  """
  before = note.get("length")
  if response.status in (206, 416):
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", told.strip())
    first, last = match.groups() if match else (None, None)
    length = int(last) if last and last.isdigit() else None
    if response.status == 416 and length == start:
      return start, length
    fits = first is not None and int(first) == start
    if response.status == 206 and fits and (before is None or length == before):
      return start, length
    part.unlink()
    raise InterruptionError(
      f"the file there is no longer the one of which {start} bytes are here "
      f"({length} bytes instead of {before}), which is begun anew"
    )
  length = response.headers.get("Content-Length")
  length = int(length) if length and length.isdigit() else None
  if start:
    logging.warning(
      "%s begins anew: the server cannot go on after %d bytes%s.",
      part.stem,
      start,
      ""
      if length == before
      else f", and the file has changed: {length} bytes instead of {before}",
    )
  return 0, length


def _pieces(
  response: http.client.HTTPResponse | urllib.error.HTTPError, stall: float
) -> Iterator[bytes]:
  """What comes, as it comes."""
  if response.status == 416:
    return
  while True:
    try:
      piece = response.read1(PIECE)
    except (OSError, http.client.HTTPException) as error:
      raise InterruptionError(_words(error, stall)) from error
    if not piece:
      return
    yield piece


def _words(error: Exception, stall: float) -> str:
  """What went wrong with a connection."""
  cause = getattr(error, "reason", error)
  if isinstance(cause, TimeoutError):
    return f"the connection stalled: nothing came for {stall:g} s"
  if isinstance(error, urllib.error.URLError):
    return f"the server cannot be reached ({cause})"
  return f"the connection broke off ({cause or type(cause).__name__})"


def _page_message(url: str) -> str:
  return (
    f"{url} answers with a web page instead of the file: the publisher may have moved "
    "it, or want you to log in or agree. Open the address in a browser, fetch the file "
    "by hand, and give --from=FILE."
  )


def _note(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f"{part.name}.json")


def _read_note(part: pathlib.Path, url: str) -> dict[str, Any]:
  """What was noted of the file that the part is of; empty if it must begin anew."""
  try:
    note = json.loads(_note(part).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}
  return note if part.exists() and note.get("url") == url else {}


def _begin(
  part: pathlib.Path, url: str, length: int | None, headers: email.message.Message
) -> None:
  """Empties the part, and notes what tells its file from a later one of the address."""
  part.write_bytes(b"")
  tag = headers.get("ETag", "")
  validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
  note = {"url": url, "length": length, "validator": validator}
  files.write_text(_note(part), json.dumps(note))


def _length(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _bar(name: str, at: int, total: int | None) -> tqdm.tqdm:
  """Progress in bytes; into a file it is written but now and then."""
  pause = 0.5 if sys.stderr.isatty() else 30.0
  return tqdm.tqdm(
    desc=name,
    initial=at,
    total=total,
    unit="B",
    unit_scale=True,
    mininterval=pause,
    maxinterval=pause,
  )
