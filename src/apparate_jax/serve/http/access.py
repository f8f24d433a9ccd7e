"""API keys over HTTP: everything but health needs one, where there are any."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from apparate_jax.serve.access import ApiKeys, header

OPEN = ("/v2/health/", "/page/")
"""Paths that may be asked for without a key: health, and the page, which asks for one itself."""
PAGE = "/"


class RequireKey:
    """An application that answers 401 to whoever has no key."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Guard an application.

        Args:
            app: What to guard.
            keys: That may ask.
        """
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        if scope["type"] == "http" and not _is_open(scope["path"]):
            headers = scope["headers"]
            found = (header(headers, b"authorization"), header(headers, b"x-api-key"))
            if not self._keys.allow(*found):
                text = "no valid API key: send one as 'Authorization: Bearer KEY' or 'X-API-Key'"
                refusal = JSONResponse({"error": text}, 401, headers={"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_open(path: str) -> bool:
    return path == PAGE or path.startswith(OPEN)
