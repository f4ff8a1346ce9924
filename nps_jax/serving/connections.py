"""Connections: an own socket, and none that keeps us waiting for a request."""

import asyncio
import socket

from starlette import applications
import uvicorn
from uvicorn.protocols.http import h11_impl

HEAD_SECONDS = 10.0  # in which a request's head must have come
IDLE_SECONDS = 5  # that a connection may lie idle between two requests
CLOSING_SECONDS = 60  # for what was begun before the end
CONNECTIONS = 512  # at once; others are answered with 503


class Protocol(h11_impl.H11Protocol):
  """Closes connections whose request's head does not come in time.

  uvicorn itself waits for ever for the head, and only bounds the time between two
  requests.
  """

  head_seconds = HEAD_SECONDS
  _timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:
    super().connection_made(transport)
    self._watch()

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    self._watch()

  def connection_lost(self, exc: Exception | None) -> None:
    self._rest()
    super().connection_lost(exc)

  def _watch(self) -> None:
    """Starts the clock if a request is awaited; stops it if one is being answered."""
    if self.cycle is not None and not self.cycle.response_complete:
      self._rest()
    elif self._timer is None:
      self._timer = self.loop.call_later(self.head_seconds, self._expire)

  def _rest(self) -> None:
    if self._timer is not None:
      self._timer.cancel()
      self._timer = None

  def _expire(self) -> None:
    self._timer = None
    if not self.transport.is_closing():
      self.transport.close()


def listen(host: str, port: int) -> socket.socket:
  """A socket that takes connections; port 0: any that is free.

  Raises:
    OSError: the address is not ours, or in use.
  """
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
  except OSError as error:
    raise OSError(f"--host={host} --port={port}: {error}") from error


def server(
  app: applications.Starlette, protocol: type[Protocol] = Protocol
) -> uvicorn.Server:
  """What answers; at SIGTERM or Ctrl-C it lets what was begun come to its end."""
  config = uvicorn.Config(
    app,
    loop="asyncio",
    http=protocol,
    ws="none",
    lifespan="on",
    log_config=None,
    access_log=False,
    proxy_headers=False,
    server_header=False,
    limit_concurrency=CONNECTIONS,
    timeout_keep_alive=IDLE_SECONDS,
    timeout_graceful_shutdown=CLOSING_SECONDS,
  )
  return uvicorn.Server(config)
