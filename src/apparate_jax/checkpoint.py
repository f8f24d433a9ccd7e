"""A checkpoint: one directory with a model, its sites and its ramps, that can be trusted.

``manifest.json`` says what is in it: format, model, inputs, sites, ramps, and the size and SHA-256
of every other file. Arrays are Orbax items (``params``, ``ramps``), small files of the model (a
tokenizer) lie in ``assets``. A checkpoint is written beside its place and renamed when it is
complete, the manifest last, so an interrupted write leaves the old one as it was. On reading,
every file is compared with the manifest before anything is made of it: a damaged checkpoint is an
error, never a half-loaded model.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from apparate_jax.core import InputSpec, Model, Site
from apparate_jax.errors import ApparateError, CheckpointError
from apparate_jax.models.load import rebuild
from apparate_jax.ramps.heads import Ramp

FORMAT = 1
MANIFEST = "manifest.json"
ASSETS = "assets"
Rebuild = Callable[[Mapping[str, Any]], Model]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the commands pass from one to the next.

    Attributes:
        model: The classifier with its parameters.
        sites: Sites that were found in it.
        ramps: Trained ramps, ascending by site; empty before training.
        active: Sites whose ramps run at the start.
        training: Facts about the training, for people (JSON values).
    """

    model: Model
    sites: tuple[Site, ...]
    ramps: tuple[Ramp, ...] = ()
    active: tuple[int, ...] = ()
    training: Mapping[str, Any] | None = None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing one that is there only when the new one is complete.

    Args:
        path: Directory to make.
        checkpoint: What to write.

    Raises:
        CheckpointError: The place is taken by something else, or cannot be written.
    """
    target = Path(path).absolute()
    if target.exists() and not is_checkpoint(target) and any(target.iterdir()):
        raise CheckpointError(
            f"{target} is there and is no checkpoint: name another place, or move it away"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror}") from error
    try:
        _write(made, checkpoint)
        _swap(made, target)
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def is_checkpoint(path: str | Path) -> bool:
    """Whether a directory holds a checkpoint (perhaps a damaged one)."""
    return (Path(path) / MANIFEST).is_file()


def load_checkpoint(path: str | Path, *, rebuild_model: Rebuild = rebuild) -> Checkpoint:
    """Read a checkpoint that is whole and whose model is still the same.

    Args:
        path: Its directory.
        rebuild_model: Makes the model from its ``source``.

    Raises:
        CheckpointError: Absent, incomplete, damaged, of another format, or of another model.
    """
    root = Path(path).absolute()
    manifest = _read_manifest(root)
    _verify_files(root, manifest)
    try:
        params = _restore(root / "params")
        ramp_params = _restore(root / "ramps")
        model = _model(root, manifest, params, rebuild_model)
        ramps = tuple(
            Ramp(**meta, params=_plain(ramp_params[str(meta["site"])]))
            for meta in manifest["ramps"]
        )
        return Checkpoint(
            model=model,
            sites=tuple(Site(**{**s, "shape": tuple(s["shape"])}) for s in manifest["sites"]),
            ramps=ramps,
            active=tuple(manifest["active"]),
            training=manifest["training"],
        )
    except ApparateError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {root} cannot be read ({error!r}): inject and train it again"
        ) from error


def _write(root: Path, checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    _store(root / "params", _by_position(model.params))
    _store(root / "ramps", {str(r.site): dict(r.params) for r in checkpoint.ramps})
    (root / ASSETS).mkdir()
    for name, content in model.assets.items():
        (root / ASSETS / Path(name).name).write_bytes(content)
    manifest = {
        "format": FORMAT,
        "apparate_jax": version("apparate-jax"),
        "jax": jax.__version__,
        "model": {
            "name": model.name,
            "inputs": [asdict(spec) for spec in model.inputs],
            "labels": list(model.labels),
            "mask": model.mask,
            "pooling": model.pooling,
            "source": dict(model.source),
            "params": _describe(model.params),
        },
        "sites": [asdict(site) for site in checkpoint.sites],
        "ramps": [
            {
                name: getattr(ramp, name)
                for name in ("site", "name", "kind", "agreement", "temperature")
            }
            for ramp in checkpoint.ramps
        ],
        "active": list(checkpoint.active),
        "training": checkpoint.training,
        "files": {str(f.relative_to(root)): _fingerprint(f) for f in _files(root)},
    }
    partial = root / f"{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(root / MANIFEST)


def _swap(made: Path, target: Path) -> None:
    """Put the new directory in the old one's place; the old one goes last."""
    made.chmod(0o755)
    if not target.exists():
        made.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "was")
    try:
        made.rename(target)
    except OSError:
        (old / "was").rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_manifest(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise CheckpointError(f"no checkpoint at {root}: make one with apparate inject")
    path = root / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{root} holds no {MANIFEST}: it is no checkpoint, or writing it was interrupted; "
            "make it again with apparate inject"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}): inject and train again") from error
    if found != FORMAT:
        raise CheckpointError(
            f"the checkpoint {root} has format {found}, this version reads {FORMAT}: "
            "inject and train again"
        )
    return dict(manifest)


def _verify_files(root: Path, manifest: Mapping[str, Any]) -> None:
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{root}/{MANIFEST} is damaged: no list of files")
    for name, expected in listed.items():
        path = root / name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint {root} lacks {name}: inject and train again")
        if _fingerprint(path) != expected:
            raise CheckpointError(
                f"{name} in the checkpoint {root} is damaged ({path.stat().st_size} bytes, "
                f"expected {expected['bytes']}, or other content): inject and train again"
            )


def _model(root: Path, manifest: Mapping[str, Any], params: Any, rebuild_model: Rebuild) -> Model:
    described = manifest["model"]
    model = rebuild_model(described["source"])
    if _describe(model.params) != described["params"]:
        changed = _difference(described["params"], _describe(model.params))
        raise CheckpointError(
            f"the checkpoint {root} was made from another model than {described['name']!r} is now "
            f"({changed}): inject it again"
        )
    structure = jax.tree.structure(model.params)
    leaves = _leaves_in_order(params, model.params)
    assets = {f.name: f.read_bytes() for f in (root / ASSETS).iterdir()}
    return replace(
        model,
        name=described["name"],
        params=jax.tree.unflatten(structure, leaves),
        inputs=tuple(InputSpec(**{**s, "shape": tuple(s["shape"])}) for s in described["inputs"]),
        labels=tuple(described["labels"]),
        mask=described["mask"],
        pooling=described["pooling"],
        assets=assets,
    )


def _paths(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _describe(params: Any) -> list[list[Any]]:
    """Path, shape and dtype of every parameter."""
    return [
        [path, list(np.shape(leaf)), str(jax.numpy.result_type(leaf))]
        for path, leaf in _paths(params)
    ]


def _difference(before: Sequence[Any], now: Sequence[Any]) -> str:
    old, new = {tuple(map(str, e)) for e in before}, {tuple(map(str, e)) for e in now}
    gone, come = sorted(old - new), sorted(new - old)
    parts = [f"gone: {' '.join(gone[0])}"] if gone else []
    parts += [f"new: {' '.join(come[0])}"] if come else []
    return "; ".join(parts) or "other order"


def _by_position(tree: Any) -> dict[str, Any]:
    """Leaves of any pytree under their positions, as Orbax keeps string-keyed dictionaries best."""
    return {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _store(path: Path, arrays: Mapping[str, Any]) -> None:
    if arrays:
        with _checkpointer() as checkpointer:
            checkpointer.save(path, arrays)


def _restore(path: Path) -> Any:
    if not path.exists():
        return {}
    with _checkpointer() as checkpointer:
        return checkpointer.restore(path)


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    checkpointer = ocp.StandardCheckpointer()
    try:
        yield checkpointer
        checkpointer.wait_until_finished()
    finally:
        checkpointer.close()


def _leaves_in_order(stored: Mapping[str, Any], like: Any) -> list[Any]:
    return [jax.numpy.asarray(stored[f"{i:05d}"]) for i in range(len(jax.tree.leaves(like)))]


def _plain(params: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: jax.numpy.asarray(value) for name, value in params.items()}


def _files(root: Path) -> list[Path]:
    return sorted(f for f in root.rglob("*") if f.is_file() and not f.name.startswith(MANIFEST))


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
