"""Logs on standard error: lines for people, or one JSON object a line for machines."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logs(form: str = "text", level: str = "info") -> None:
    """Send the logs of this package to standard error; other handlers of it are replaced.

    Args:
        form: ``"text"`` or ``"json"``.
        level: The least one that is shown: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
    """
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(fields, rename_fields=names))
    else:
        handler.setFormatter(logging.Formatter(TEXT))
    logger = logging.getLogger("apparate_jax")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
