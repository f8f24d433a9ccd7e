"""A checkpoint: one directory with a model, its sites and its ramps, that can be trusted.

Arrays are Orbax items (``params``, ``ramps``, ``validation``), small files of the model (a
tokenizer) lie in ``assets``, and ``manifest.json`` describes them all
(:mod:`apparate_jax.manifest`). A checkpoint is written beside its place and renamed when it is
complete, so an interrupted write leaves the old one as it was; new ramps for a checkpoint take the
model's files over by links (:func:`save_ramps`). On reading, every file is compared
with the manifest first, then the model is made again from its source and must have the parameters
that were saved: a damaged checkpoint, or one of another model, is an error and never a half-loaded
model.

Sharp edges: a model of kind ``python`` is made by importing and calling its factory, so load only
checkpoints that you trust as you trust that code. Between the two renames that replace a
checkpoint, a crash leaves the old one under a hidden name beside it; the error says where.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.core import ImagePreprocess, InputSpec, Model, Site
from apparate_jax.errors import ApparateError, CheckpointError
from apparate_jax.graph.names import without_line
from apparate_jax.manifest import MANIFEST, as_json, fingerprint, read_manifest, write_manifest
from apparate_jax.models.load import rebuild
from apparate_jax.ramps.heads import HEAD_KINDS, HEAD_STYLES, PARAM_NAMES, Ramp
from apparate_jax.ramps.train import Validation
from apparate_jax.storage import (
    Arrays,
    left_behind,
    link_files,
    new_directory,
    read_arrays,
    stream_arrays,
    write_arrays,
)

ASSETS = "assets"
Rebuild = Callable[[Mapping[str, Any], Mapping[str, bytes]], Model]

_RAMP_FACTS = ("site", "name", "kind", "agreement", "temperature", "style")
_VALIDATION = ("rows", "errors", "predictions", "labels")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the commands pass from one to the next.

    Attributes:
        model: The classifier with its parameters.
        sites: Sites that were found in it.
        ramps: Trained ramps, ascending by site; empty before training.
        active: Sites whose ramps run at the start.
        training: Facts about the training, for people (JSON values).
        validation: What the ramps say about the samples that were held out in training.
        read_from: Checksum of the manifest that it was read from, None for a new one.
    """

    model: Model
    sites: tuple[Site, ...]
    ramps: tuple[Ramp, ...] = ()
    active: tuple[int, ...] = ()
    training: Mapping[str, Any] | None = None
    validation: Validation | None = None
    read_from: str | None = None

    def __post_init__(self) -> None:
        trained = [ramp.site for ramp in self.ramps]
        if trained != sorted(set(trained)) or not set(trained) <= {s.index for s in self.sites}:
            raise CheckpointError(
                f"the ramps are at sites {trained}, expected ascending ones of the "
                f"{len(self.sites)} sites, one ramp each"
            )
        active = list(self.active)
        if active != sorted(set(active)) or not set(active) <= set(trained):
            raise CheckpointError(
                f"the active sites are {active}, expected ascending ones with a ramp: {trained}"
            )


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing one that is there only when the new one is complete.

    Args:
        path: Directory to make.
        checkpoint: What to write.

    Raises:
        CheckpointError: The place is taken by something else or cannot be written, or something in
            the checkpoint cannot be saved.
    """
    target = Path(path).resolve()
    content = as_json(_describe(checkpoint))
    leaves = jax.tree.leaves(checkpoint.model.params)
    params = {"params": _in_host_memory({str(i): leaf for i, leaf in enumerate(leaves)})}
    arrays = params | _trained_arrays(checkpoint)
    try:
        if target.exists() and not is_checkpoint(target) and not _is_empty(target):
            raise CheckpointError(
                f"{target} is there and is no checkpoint: name another place, or move it away"
            )
        with new_directory(target) as made:
            for item, named in arrays.items():
                write_arrays(made / item, named)
            _write_assets(made, checkpoint.model.assets)
            write_manifest(made, content)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {target}: {error}") from error


def save_ramps(path: str | Path, checkpoint: Checkpoint) -> None:
    """Replace the ramps of a checkpoint, and what belongs to them; its model stays as it is.

    The model's files are linked into the new directory, not written again: the parameters of
    ``checkpoint.model`` are not looked at and need not be in memory any more.

    Args:
        path: The directory that the checkpoint was read from.
        checkpoint: With the new ramps.

    Raises:
        CheckpointError: What is there is damaged or not what the checkpoint was read from, or the
            new one cannot be written.
    """
    target = Path(path).resolve()
    saved = read_manifest(target)
    if fingerprint(saved) != checkpoint.read_from:
        raise CheckpointError(
            f"the checkpoint {target} is not the one that the ramps were trained for, it was "
            "replaced since: train them again"
        )
    content = as_json({**_without_files(saved), **_versions(), **_describe_ramps(checkpoint)})
    arrays = _trained_arrays(checkpoint)
    try:
        with new_directory(target) as made:
            for kept in ("params", ASSETS):
                link_files(target / kept, made / kept)
            for item, named in arrays.items():
                write_arrays(made / item, named)
            write_manifest(made, content)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {target}: {error}") from error


def is_checkpoint(path: str | Path) -> bool:
    """Whether a directory holds a checkpoint (perhaps a damaged one)."""
    return (Path(path) / MANIFEST).is_file()


def load_checkpoint(path: str | Path, *, rebuild_model: Rebuild = rebuild) -> Checkpoint:
    """Read a checkpoint that is whole and whose model is still the same.

    Args:
        path: Its directory.
        rebuild_model: Makes the model from its ``source`` and ``assets``; its parameters are
            replaced.

    Raises:
        CheckpointError: Absent, incomplete, damaged, of another format, or of another model.
    """
    root = Path(path).resolve()
    if not root.exists() and (left := left_behind(root)) is not None:
        raise CheckpointError(
            f"no checkpoint at {root}, since replacing it was interrupted; the old one is whole: "
            f"mv {left} {root}"
        )
    content = read_manifest(root)
    try:
        return Checkpoint(
            model=_load_model(root, content, rebuild_model),
            sites=tuple(_made(Site, site) for site in content["sites"]),
            ramps=_load_ramps(root, content["ramps"]),
            active=tuple(content["active"]),
            training=content["training"],
            validation=_load_validation(root, content["validation"]),
            read_from=fingerprint(content),
        )
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {root} cannot be read ({error!r}): make it again with apparate inject "
            "and train-ramps"
        ) from error


def check_sites(checkpoint: Checkpoint, sites: Sequence[Site]) -> None:
    """See that a traced model still has the sites of its checkpoint, at any batch size.

    The lines of source that name sites may move: one who comments the model's code need not train
    its ramps again.

    Args:
        checkpoint: Whose ramps are to be attached.
        sites: Of the program that was traced now.

    Raises:
        CheckpointError: Other sites, or values of another shape or dtype there.
    """

    def identity(site: Site) -> str:
        return f"{without_line(site.name)} {site.dtype}{list(site.shape[1:])}"

    saved, found = [identity(s) for s in checkpoint.sites], [identity(s) for s in sites]
    if saved != found:
        pairs = zip(saved, found, strict=False)
        first = next((f"{b} instead of {a}" for a, b in pairs if a != b), "others at the end")
        raise CheckpointError(
            f"the checkpoint of {checkpoint.model.name!r} has {len(saved)} sites, the model now "
            f"has {len(found)} ({first}): its code or JAX changed, inject and train it again"
        )


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything but the arrays."""
    model = checkpoint.model
    return {
        **_versions(),
        "model": {
            "name": model.name,
            "inputs": [asdict(spec) for spec in model.inputs],
            "labels": list(model.labels),
            "mask": model.mask,
            "pooling": model.pooling,
            "source": dict(model.source),
            "assets": sorted(model.assets),
            "image": asdict(model.image) if model.image else None,
            "channels": model.channels,
            "params": _describe_params(model.params),
        },
        "sites": [asdict(site) for site in checkpoint.sites],
        **_describe_ramps(checkpoint),
    }


def _versions() -> dict[str, str]:
    return {"apparate_jax": version("apparate-jax"), "jax": jax.__version__}


def _without_files(saved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in saved.items() if name not in ("format", "files")}


def _describe_ramps(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "ramps": [{k: getattr(ramp, k) for k in _RAMP_FACTS} for ramp in checkpoint.ramps],
        "active": list(checkpoint.active),
        "training": checkpoint.training,
        "validation": list(checkpoint.validation.sites) if checkpoint.validation else None,
    }


def _describe_params(params: Any) -> list[list[Any]]:
    """Path, shape and dtype of every parameter."""
    try:
        return [
            [jax.tree_util.keystr(path), list(jnp.shape(leaf)), str(jnp.result_type(leaf))]
            for path, leaf in jax.tree.leaves_with_path(params)
        ]
    except TypeError as error:
        raise CheckpointError(
            f"a parameter is no array ({error}): keep what is not trained out of the parameters"
        ) from error


def _trained_arrays(checkpoint: Checkpoint) -> dict[str, Arrays]:
    """Orbax items by name: the ramps, and what they say about held-out samples."""
    items: dict[str, dict[str, Any]] = {}
    for ramp in checkpoint.ramps:
        named = {f"{ramp.site}_{name}": value for name, value in ramp.params.items()}
        items.setdefault("ramps", {}).update(named)
    if checkpoint.validation is not None:
        items["validation"] = {k: getattr(checkpoint.validation, k) for k in _VALIDATION}
    return {item: _in_host_memory(named) for item, named in items.items()}


def _in_host_memory(named: Mapping[str, Any]) -> Arrays:
    try:
        return {name: np.asarray(value) for name, value in named.items()}
    except TypeError as error:
        raise CheckpointError(
            f"a parameter cannot be saved ({error}): keep random keys out of the parameters"
        ) from error


def _write_assets(root: Path, assets: Mapping[str, bytes]) -> None:
    for name, content in assets.items():
        if Path(name).name != name:
            raise CheckpointError(f"the model's asset {name!r} is no plain file name")
        (root / ASSETS).mkdir(exist_ok=True)
        (root / ASSETS / name).write_bytes(content)


def _load_model(root: Path, content: Mapping[str, Any], rebuild_model: Rebuild) -> Model:
    saved = content["model"]
    assets = {name: (root / ASSETS / name).read_bytes() for name in saved["assets"]}
    try:
        model = rebuild_model(saved["source"], assets)
    except ApparateError as error:
        raise CheckpointError(
            f"the model {saved['name']!r} of the checkpoint {root} cannot be made again: {error}"
        ) from error
    now = _describe_params(model.params)
    if now != saved["params"]:
        raise CheckpointError(
            f"the checkpoint {root} was made from another model than {saved['name']!r} is now "
            f"({_difference(saved['params'], now)}): inject and train it again"
        )
    like, structure = jax.tree.flatten(jax.tree.map(_template, model.params))
    model = replace(model, params=None)  # a factory's own weights: not twice in memory
    found = {
        int(name): _leaf(array, like[int(name)]) for name, array in stream_arrays(root / "params")
    }
    leaves = [found[i] if i in found else _leaf(None, x) for i, x in enumerate(like)]
    return replace(
        model,
        name=saved["name"],
        params=jax.tree.unflatten(structure, leaves),
        inputs=tuple(_made(InputSpec, spec) for spec in saved["inputs"]),
        labels=tuple(saved["labels"]),
        mask=saved["mask"],
        pooling=saved["pooling"],
        source=saved["source"],
        assets=assets,
        image=_load_image(saved["image"]),
        channels=saved["channels"],
    )


def _load_image(fields: Mapping[str, Any] | None) -> ImagePreprocess | None:
    if fields is None:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return ImagePreprocess(**values)


def _template(leaf: Any) -> Any:
    """What tells of which kind a parameter is, without its values."""
    if isinstance(leaf, bool | int | float | complex):
        return leaf
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _leaf(stored: np.ndarray[Any, Any] | None, template: Any) -> Any:
    """A parameter of the kind that the model was made with: Python numbers keep weak types."""
    if stored is None:
        return jnp.zeros(template.shape, template.dtype)
    if isinstance(template, bool | int | float | complex):
        return type(template)(stored.item())
    return jnp.asarray(stored)


def _difference(before: Sequence[Any], now: Sequence[Any]) -> str:
    old, new = ([" ".join(map(str, entry)) for entry in entries] for entries in (before, now))
    gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    parts = [f"{len(gone)} parameters gone, such as {gone[0]}"] if gone else []
    parts += [f"{len(come)} new, such as {come[0]}"] if come else []
    return "; ".join(parts) or "parameters in another order"


def _load_ramps(root: Path, facts: Sequence[Mapping[str, Any]]) -> tuple[Ramp, ...]:
    unknown = sorted(
        {fact["kind"] for fact in facts} - set(HEAD_KINDS)
        | {fact["style"] for fact in facts} - set(HEAD_STYLES)
    )
    if unknown:
        raise CheckpointError(
            f"the ramps of the checkpoint {root} are of kind or style {unknown}, known are "
            f"{sorted(HEAD_KINDS)} and {sorted(HEAD_STYLES)}: import the module that adds it to "
            "HEAD_KINDS or HEAD_STYLES first"
        )
    stored = read_arrays(root / "ramps") if facts else {}
    ramps = []
    for fact in facts:
        named = {name: f"{fact['site']}_{name}" for name in PARAM_NAMES}
        params = {k: jnp.asarray(stored[key]) for k, key in named.items() if key in stored}
        ramps.append(Ramp(**fact, params=params))
    return tuple(ramps)


def _load_validation(root: Path, sites: Sequence[int] | None) -> Validation | None:
    if sites is None:
        return None
    stored = read_arrays(root / "validation")
    return Validation(tuple(sites), **{name: stored[name] for name in _VALIDATION})


def _made(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    return kind(**{**fields, "shape": tuple(fields["shape"])})


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
