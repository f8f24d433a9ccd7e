"""Who may ask: API keys, and TLS with or without clients' certificates.

Keys are kept and compared as digests, all of them at every request, in constant time: how long a
refusal takes tells nothing of the keys. A key travels as ``Authorization: Bearer KEY`` or as
``X-API-Key: KEY``. Health stays open, for whoever watches the server has no key.
"""

import hashlib
import hmac
import logging
import os
import ssl
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from apparate_jax.errors import ConfigError

logger = logging.getLogger(__name__)

SHORTEST_KEY = 16
_BEARER = "bearer "


class ApiKeys:
    """Keys that may ask."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Keep digests of the keys.

        Raises:
            ConfigError: No key, or one that is short enough to be guessed.
        """
        given = list(keys)
        if not given:
            raise ConfigError("there is no API key: give at least one, or no file of keys")
        short = [key for key in given if len(key) < SHORTEST_KEY]
        if short:
            raise ConfigError(
                f"an API key has {len(short[0])} characters, expected at least {SHORTEST_KEY}: "
                'make one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        self._digests = [_digest(key) for key in given]

    def __len__(self) -> int:
        return len(self._digests)

    def allow(self, authorization: str | None, api_key: str | None) -> bool:
        """Whether the headers ``Authorization`` or ``X-API-Key`` hold a key."""
        key = api_key or ""
        if authorization is not None and authorization.lower().startswith(_BEARER):
            key = authorization[len(_BEARER) :].strip()
        digest = _digest(key)
        found = False
        for known in self._digests:  # all of them, whichever it is
            found |= hmac.compare_digest(digest, known)
        return found


def read_keys(file: Path) -> ApiKeys:
    """Keys from a file: one a line, after a name for people if there are two words; ``#`` comments.

    Raises:
        ConfigError: It cannot be read, or a line is neither.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the API keys in {file}: {error}") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        logger.warning("%s can be read by others than its owner: chmod 600 %s", file, file)
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if len(words) > 2:
            raise ConfigError(f"{file}, line {number} has {len(words)} words, expected NAME KEY")
        keys += words[-1:]
    return ApiKeys(keys)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates, read and checked.

    Attributes:
        cert: Chain of the server, PEM.
        key: Its private key, PEM.
        client_ca: Who must have signed clients' certificates, PEM; None asks for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP: TLS 1.2 or later.

        Raises:
            ConfigError: A file cannot be read, or they do not belong together.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(self.cert, self.key)
            if self.client_ca is not None:
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            places = ", ".join(str(p) for p in (self.cert, self.key, self.client_ca) if p)
            raise ConfigError(f"cannot use the certificates in {places}: {error}") from None
        return made

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """The same for gRPC.

        Raises:
            ConfigError: As :meth:`context`.
        """
        self.context()  # gRPC itself says of a bad file only that the port failed
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first header of a name, in lower case."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
