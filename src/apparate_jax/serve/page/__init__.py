"""The page at ``/``: static files, read by ``serve/http/telemetry.py``."""
