"""What a request must be to be let in: its token, its size, its time, its kind."""

import asyncio
from collections.abc import AsyncIterator
import hmac
import os
import pathlib
from typing import NamedTuple

from jaxtyping import UInt8
import numpy as np
from PIL import Image
from starlette import formparsers
from starlette import requests

from nps_jax import ready
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records

TOKEN = "NPS_JAX_TOKEN"  # the environment's variable
DRAINED = 2  # times the limit of bytes that a too large body may still send


class Limits(NamedTuple):
  """What one client can ask for."""

  bytes: int = 32 * 2**20  # of a request's body
  pixels: int = 40_000_000  # of an image
  seconds: float = 30.0  # in which a body must have come
  images: int = 64  # that may wait, at once; as many bodies of that size may be read


class Refused(Exception):
  """Why a request is not answered with a score."""

  def __init__(self, status: int, message: str, **headers: str):
    super().__init__(message)
    self.status, self.message = status, message
    self.headers = {name.replace("_", "-"): text for name, text in headers.items()}


class Sent(NamedTuple):
  """An image that came, small enough to wait for its turn."""

  record: records.Record
  pixels: UInt8[np.ndarray, "h w 3"]  # as the model sees it
  size: tuple[int, int]  # its own height and width


def read_token(path: pathlib.Path | None) -> str | None:
  """The token from the file, or else from the environment; None: there is none.

  Raises:
    ValueError: it is empty or not of ASCII's visible letters.
    OSError: the file cannot be read.
  """
  if path is None and TOKEN not in os.environ:
    return None
  place = TOKEN if path is None else f"--token-file={path}"
  content = os.environ[TOKEN].encode() if path is None else path.read_bytes()
  token = content.strip()
  if not token or not all(33 <= letter <= 126 for letter in token):
    raise ValueError(f"{place}: expected one line of visible ASCII letters, no blanks.")
  return token.decode("ascii")


def check_token(request: requests.Request, token: str | None) -> None:
  """Refuses who does not have it; takes the same time however much of it is right."""
  kind, _, given = request.headers.get("authorization", "").partition(" ")
  right = token is None or (
    kind.lower() == "bearer"
    and hmac.compare_digest(given.strip().encode("utf-8"), token.encode())
  )
  if not right:
    raise Refused(
      401,
      "The token is missing or wrong; send the header `Authorization: Bearer TOKEN`.",
      WWW_Authenticate="Bearer",
    )


async def read_body(request: requests.Request, limits: Limits) -> bytes:
  """The body, or of a form the file within it; the file's name is not looked at."""
  try:
    async with asyncio.timeout(limits.seconds):
      body = await _read_all(request, limits)
  except TimeoutError:
    message = f"The body has not come within {limits.seconds:g} s."
    raise Refused(408, message, Connection="close") from None
  except requests.ClientDisconnect:
    raise Refused(400, "The connection ended before the body did.") from None
  if request.headers.get("content-type", "").startswith("multipart/form-data"):
    body = await _file_of_form(request, body, limits)
  if not body:
    raise Refused(400, "The image is empty: send it as the body or as a form's file.")
  return body


async def _read_all(request: requests.Request, limits: Limits) -> bytes:
  """The body. Of one that is too large more is read, so that the client listens."""
  body, length = bytearray(), 0
  announced = request.headers.get("content-length", "0")
  too_large = len(announced) > 15 or int(announced) > limits.bytes
  async for chunk in request.stream():
    length += len(chunk)
    too_large |= length > limits.bytes
    if not too_large:
      body += chunk
    elif length > DRAINED * limits.bytes:
      break
  if too_large:
    raise Refused(
      413, f"The body is over {limits.bytes} bytes; send less.", Connection="close"
    )
  return bytes(body)


async def _file_of_form(
  request: requests.Request, body: bytes, limits: Limits
) -> bytes:
  async def stream() -> AsyncIterator[bytes]:
    yield body

  parser = formparsers.MultiPartParser(
    request.headers, stream(), max_files=1, max_fields=20
  )
  parser.spool_max_size = limits.bytes  # never on the disk
  try:
    form = await parser.parse()
  except formparsers.MultiPartException as error:
    raise Refused(400, f"The form cannot be read: {error.message}") from error
  except (KeyError, ValueError) as error:  # no boundary, or odd letters
    raise Refused(400, f"The form cannot be read: {error!r}") from error
  files = [part for _, part in form.multi_items() if not isinstance(part, str)]
  if len(files) != 1:
    raise Refused(400, "The form has no file; send an image as one of its parts.")
  content = await files[0].read()
  await form.close()
  return content


def read_image(body: bytes, scorer: ready.Scorer, limits: Limits) -> Sent:
  """The image at the model's size; its header is looked at before its pixels are.

  Raises:
    Refused: it is none, or damaged, or too large.
  """
  image = encoded.Stored("The image", lambda: body)
  record = records.Record("image", "", "test", "", image)
  try:
    record = scorer.known(record)
    height, width = decoding.original_size(record)
    if height * width > limits.pixels:
      raise Refused(413, f"{width} x {height} is over {limits.pixels} pixels.")
    return Sent(record, scorer.read(record), (height, width))
  except ValueError as error:
    cause = error.__cause__
    status = 422
    if isinstance(cause, (decoding.TooLarge, Image.DecompressionBombError)):
      status = 413
    elif isinstance(cause, Image.UnidentifiedImageError):
      status = 415
    raise Refused(status, str(error)) from error
