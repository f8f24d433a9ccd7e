"""Ports: taken before anything is said to be ready, so that one in use is one clear error."""

import errno
import socket

from apparate_jax.errors import ConfigError

_CAUSES = {
    errno.EADDRINUSE: "is in use: stop what listens there, or choose another port",
    errno.EACCES: "may not be taken by this user: choose a port of 1024 or above",
    errno.EADDRNOTAVAIL: "is not on this machine: choose one of its own addresses as host",
}


def open_socket(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet.

    Args:
        host: Name or address to bind to, IPv4 or IPv6.
        port: 0 lets the system choose.

    Raises:
        ConfigError: If the port is in use or cannot be taken, or the host is unknown.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"the port is {port}, expected 0..65535 (0 chooses a free one)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"host {host!r} is unknown: {error.strerror}") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise cannot_take(host, port, error) from error
    return sock


def cannot_take(host: str, port: int, error: OSError) -> ConfigError:
    """Why a port cannot be had, and what to do."""
    cause = _CAUSES.get(error.errno or 0, f"cannot be taken: {error.strerror}")
    return ConfigError(f"port {port} of {host} {cause}")


def address_of(sock: socket.socket) -> str:
    """``host:port`` of a bound socket, as it stands in URLs.

    >>> with open_socket("127.0.0.1", 0) as sock:
    ...     address_of(sock).split(":")[0]
    '127.0.0.1'
    """
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
