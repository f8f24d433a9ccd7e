"""Settings of a server: one TOML file, environment variables, and options, the latter first.

Every key has a default except the models' places, and defaults live in the configurations of the
parts that they belong to. A key that is unknown is an error in the file and in the environment:
an option that is ignored does more harm than one that is refused.

Every key of the file is also a variable and an option: ``--set limits.max_body_bytes=1000``; those
that are said most often have an option of their own.

Environment: ``APPARATE_SERVE_HTTP_PORT=80``, ``APPARATE_SERVE_DEFAULTS__ACCURACY=0.995``,
``APPARATE_SERVE_MODELS__SENTIMENT__PATH=/models/sentiment``.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from apparate_jax.control.config import ControlConfig, Policy, Promise
from apparate_jax.control.thresholds import Method
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.engine_config import BatchingConfig, EngineConfig
from apparate_jax.serve.http import HttpLimits
from apparate_jax.serve.inference.served import MAX_ROWS
from apparate_jax.serve.repository import ModelConfig
from apparate_jax.serve.service import ServiceConfig

PREFIX = "APPARATE_SERVE_"
_NESTED = "__"
_LISTS = ("batch_sizes", "versions")
_SERVICE, _CONTROL, _PLACEMENT = ServiceConfig(), ControlConfig(), PlacementConfig()
_ENGINE, _BATCHING, _LIMITS = EngineConfig(), BatchingConfig(), HttpLimits()

Port = int | Literal["off"]


class _Table(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelDefaults(_Table):
    """How models are served, unless a model says otherwise itself."""

    accuracy: float = _CONTROL.accuracy
    promise: Promise = _CONTROL.promise
    policy: Policy = _CONTROL.policy
    method: Method = _CONTROL.method
    ramp_budget: float = _PLACEMENT.ramp_budget
    batch_sizes: tuple[int, ...] = _SERVICE.batch_sizes
    max_in_flight: int = _ENGINE.max_in_flight
    defer: int = _ENGINE.defer
    queue_size: int = _ENGINE.queue_size
    batching: str = _BATCHING.policy
    batch_timeout_ms: float = _BATCHING.timeout_ms
    slo_ms: float | None = _BATCHING.slo_ms
    slo_quantile: float = _BATCHING.slo_quantile
    priority_levels: int = _BATCHING.priority_levels
    default_priority: int = _BATCHING.default_priority
    max_rows: int = MAX_ROWS
    device: int | None = _SERVICE.device


class ModelTable(ModelDefaults):
    """A model: its place, and what is other than the defaults."""

    path: Path
    versions: tuple[str, ...] = ()
    latest: int = 1


class TlsTable(_Table):
    """Certificates, as PEM files. With ``client_ca``, clients must show one that it signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class LimitsTable(_Table):
    """Bounds on requests."""

    max_body_bytes: int = _LIMITS.max_body_bytes
    body_timeout_s: float = _LIMITS.body_timeout_s
    compress_from_bytes: int = _LIMITS.compress_from_bytes
    retry_after_s: int = _LIMITS.retry_after_s


class ServerSettings(_Table):
    """Everything that a server is told."""

    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_port: Port = 8001
    drain_timeout_s: float = 30.0
    state_dir: Path | None = None
    model_control: bool = False
    pin_cores: bool = False
    api_keys_file: Path | None = None
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = None
    trace_frac: float = 0.01
    tls: TlsTable | None = None
    limits: LimitsTable = LimitsTable()
    defaults: ModelDefaults = ModelDefaults()
    models: dict[str, ModelTable] = {}

    def model_configs(self) -> list[ModelConfig]:
        """The models as the repository takes them, defaults filled in.

        Raises:
            ConfigError: A value that does not exist or does not fit another one.
        """
        return [_model_config(name, self._filled(table)) for name, table in self.models.items()]

    def http_limits(self) -> HttpLimits:
        """Bounds on requests, as the frontends take them.

        Raises:
            ConfigError: A value out of range.
        """
        return HttpLimits(**self.limits.model_dump())

    def _filled(self, table: ModelTable) -> ModelTable:
        given = table.model_dump(include=table.model_fields_set)
        return ModelTable(**{**self.defaults.model_dump(), **given})


def read_settings(
    file: Path | None = None,
    given: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    assigned: Sequence[str] = (),
) -> ServerSettings:
    """Settings of a server.

    Args:
        file: In TOML.
        given: What was typed, as nested mappings; wins over the environment, which wins over the
            file.
        environment: Variables, those that begin with :data:`PREFIX`.
        assigned: What was typed as ``KEY=VALUE``; wins over all others.

    Raises:
        ConfigError: The file cannot be read, or a key is unknown, missing or of another type.
    """
    merged: dict[str, Any] = {}
    typed = _from_assignments(assigned)
    for layer in (_from_file(file), _from_environment(environment), given or {}, typed):
        _merge(merged, layer)
    try:
        return ServerSettings(**merged)
    except ValidationError as error:
        raise ConfigError(_explained(error)) from None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} is no TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        path = name.removeprefix(PREFIX).lower().split(_NESTED)
        _merge(found, _layer(path, environment[name]))
    return found


def _from_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Settings that were typed as ``KEY=VALUE``, the key as in the file.

    Args:
        texts: Such as ``limits.max_body_bytes=1000`` or ``models."a.b".versions=3,7``.

    Raises:
        ConfigError: One is of another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            path = _path_of(tomllib.loads(f"{name} = 0") if equals else {})
        except tomllib.TOMLDecodeError:
            path = []
        if not path:
            raise ConfigError(
                f"--set {text!r}: expected KEY=VALUE with a key as in the file, such as "
                "limits.max_body_bytes=1000 or models.NAME.latest=2"
            )
        _merge(found, _layer(path, value))
    return found


def _path_of(table: dict[str, Any]) -> list[str]:
    """The names that lead to the one value in nested tables."""
    path = []
    while isinstance(table, dict) and len(table) == 1:
        ((name, table),) = table.items()
        path.append(name)
    return path


def _layer(path: Sequence[str], text: str) -> dict[str, Any]:
    """One value as nested tables. Its type is that of its key: only lists must be taken apart."""
    *tables, key = path
    layer: dict[str, Any] = {key: text.split(",") if key in _LISTS else text}
    for table in reversed(tables):
        layer = {table: layer}
    return layer


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Lay one over the other, table by table."""
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = into.get(key)
            into[key] = dict(below) if isinstance(below, Mapping) else {}
            _merge(into[key], value)
        else:
            into[key] = value


def _model_config(name: str, table: ModelTable) -> ModelConfig:
    try:
        batching = BatchingConfig(
            table.batching,
            table.batch_timeout_ms,
            table.slo_ms,
            table.slo_quantile,
            table.priority_levels,
            table.default_priority,
        )
        service = ServiceConfig(
            batch_sizes=tuple(sorted(table.batch_sizes)),
            engine=EngineConfig(table.max_in_flight, table.queue_size, batching, table.defer),
            control=ControlConfig(
                accuracy=table.accuracy,
                promise=table.promise,
                policy=table.policy,
                method=table.method,
            ),
            placement=PlacementConfig(ramp_budget=table.ramp_budget),
            device=table.device,
        )
        return ModelConfig(name, table.path, service, table.versions, table.latest, table.max_rows)
    except ConfigError as error:
        raise ConfigError(f"model {name!r}: {error}") from None


def _explained(error: ValidationError) -> str:
    """The first things that are wrong, with the key that was perhaps meant."""
    lines = []
    for one in error.errors()[:5]:
        *tables, key = [str(part) for part in one["loc"]]
        where = ".".join([*tables, key])
        if one["type"] == "extra_forbidden":
            known = _keys_of(tables)
            close = difflib.get_close_matches(key, known, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            lines.append(f"{where} is no setting: {meant}")
        elif one["type"] == "missing":
            lines.append(f"{where} is missing")
        else:
            lines.append(f"{where} is {one['input']!r}: {one['msg'].lower()}")
    return "; ".join(lines)


def _keys_of(tables: list[str]) -> list[str]:
    """The keys of a table."""
    inner: dict[str, type[BaseModel]] = {
        "tls": TlsTable,
        "limits": LimitsTable,
        "defaults": ModelDefaults,
        "models": ModelTable,
    }
    model = next((inner[table] for table in tables if table in inner), ServerSettings)
    return sorted(model.model_fields)
