"""Programs of a run that need not be traced again.

Turns a jitted function and what it is made from into one whose programs are kept as
`jax.export` writes them, StableHLO and no code: JAX's own cache finds a compiled
program only after tracing and lowering, a quarter to a third of a second start. What is
kept is found by the configuration, the model, the devices, the arguments and this
project's source. It refuses to be a reason for a run to stop: what cannot be exported,
read or written is traced as ever.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Hashable
from typing import Any

import jax
import keras
from jax import export

from gemma.decoding.sampling import SamplerValues
from gemma.quantized.array import QuantizedArray
from trainer.config.identity import deciding_keys
from trainer.distribution.facts import code_hash
from trainer.tasks.compiled_programs import own_directory
from trainer.tasks.session import Assembly
from trainer.training.step import StepSums, TrainState

MOST_KEPT = 500  # programs; those used longest ago go first
FOLDER = "traced"
ENDING = ".stablehlo"
_LIBRARIES = ("jax", "jaxlib", "keras", "ml_dtypes", "numpy")
_SOURCE = code_hash()  # at the import: what is edited later is not what runs
_DIGEST_BYTES = 32


class Program:
    """A jitted function whose programs are kept, one for each shape."""

    def __init__(
        self,
        function: Any,  # noqa: ANN401  # jax.jit's type is private
        shelf: Shelf | None,
        *,
        varies: Callable[..., Hashable],
        static: tuple[str, ...] = (),
        donated: tuple[int, ...] = (),
    ) -> None:
        """Take a function.

        Args:
            function: Jitted.
            shelf: Where its programs are kept; None keeps none.
            varies: Returns what differs between calls that need programs of their own.
            static: Names of arguments that are part of a program.
            donated: Indices of the arguments that the function is given for good.
        """
        self._function, self._shelf = function, shelf
        self._varies, self._static, self._donated = varies, static, donated
        self._programs: dict[Hashable, Any] = {}

    def prepare(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile for such arguments, shapes or arrays."""
        function = self._for(args, kwargs)
        function.lower(*args, **self._passed(function, kwargs)).compile()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call the function."""
        function = self._for(args, kwargs)
        return function(*args, **self._passed(function, kwargs))

    def _passed(self, function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        """Return the arguments that are not in the program already."""
        if function is self._function:
            return kwargs
        return {k: x for k, x in kwargs.items() if k not in self._static}

    def _for(self, args: tuple, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Return what computes the function for such arguments."""
        if self._shelf is None:
            return self._function
        which = self._varies(*args, **kwargs)
        if which not in self._programs:
            found = self._shelf.program(self._function, args, kwargs)
            self._programs[which] = (
                self._function if found is None else self._run(found)
            )
        return self._programs[which]

    def _run(self, exported: export.Exported) -> Any:  # noqa: ANN401
        """Return a jitted call of a program, under the function's own name."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return exported.call(*args, **kwargs)

        call.__name__ = exported.fun_name  # what a profile shows
        return jax.jit(call, donate_argnums=self._donated)


class Shelf:
    """A directory of exported programs: a digest, and the program after it."""

    def __init__(self, place: pathlib.Path, made_from: str) -> None:
        """Take a directory.

        Args:
            place: The directory, made where it is missing.
            made_from: Everything but its arguments that a function was made from.
        """
        self._place, self._made_from = place, made_from

    def program(
        self,
        function: Any,  # noqa: ANN401
        args: tuple,
        kwargs: dict[str, Any],  # noqa: ANN401
    ) -> export.Exported | None:
        """Return a function's program; None where it cannot be exported.

        It is the exported one in any case, so that the first start of a run computes
        what the second does.
        """
        path = self._place / (self._name(_signature(args, kwargs)) + ENDING)
        kept = _read(path)
        if kept is not None:
            return kept
        try:
            exported = export.export(function)(*args, **kwargs)
            whole = bytes(exported.serialize())
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # not every program can be
            return None
        self._write(path, hashlib.sha256(whole).digest() + whole)
        return exported

    def _name(self, signature: str) -> str:
        text = f"{self._made_from}\0{signature}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _write(self, path: pathlib.Path, content: bytes) -> None:
        """Write a file whole or not at all, and remove what is too many."""
        try:
            self._place.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._place.parent) as scratch:
                temporary = pathlib.Path(scratch) / path.name
                temporary.write_bytes(content)
                temporary.replace(path)
            kept = sorted(
                self._place.iterdir(), key=lambda entry: entry.stat().st_mtime
            )
            for entry in kept[:-MOST_KEPT]:
                entry.unlink(missing_ok=True)
        except OSError:  # a full disk, another process at work: it is traced again
            return


def shelf_of(parts: Assembly, *more: object) -> Shelf | None:
    """Return where programs made from an assembly are kept; None where none are.

    Several processes trace as ever: all have to compile one program, and one of them
    may have no directory.

    Args:
        parts: What they are made from.
        more: What else they are made from, in a form that `repr` tells apart.
    """
    directory = own_directory()
    if directory is None or jax.process_count() > 1:
        return None
    _register_trees()
    model = parts.model
    facts = (
        sorted(deciding_keys(parts.config).items()),
        model.preset.config,
        model.lora,
        parts.mesh.axis_names,
        parts.mesh.devices.shape,
        [(d.platform, d.device_kind, d.id) for d in parts.mesh.devices.flat],
        more,
    )
    return Shelf(directory / FOLDER, repr((_SOURCE, _tracing(), facts)))


def _read(path: pathlib.Path) -> export.Exported | None:
    """Return a program that was kept; None where there is none that is whole."""
    try:
        content = path.read_bytes()
        digest, whole = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(whole).digest() != digest:
            return None
        exported = export.deserialize(bytearray(whole))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # whatever is wrong with it, it is traced again
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # in use
    return exported


def _tracing() -> tuple[object, ...]:
    """Return what tracing depends on beside this project: libraries and options."""
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    options = sorted(
        (name, repr(value))
        for name, value in jax.config.values.items()
        if not ("cache" in name or name.endswith("_dir") or name.startswith("jax_log"))
    )
    defaults = keras.config.floatx(), keras.config.epsilon()
    return *versions, *defaults, *options


def _signature(args: tuple, kwargs: dict[str, Any]) -> str:
    """Return what a program depends on of its arguments: shapes, dtypes, places."""
    leaves = jax.tree_util.tree_leaves_with_path((args, kwargs))
    return repr([(jax.tree_util.keystr(path), _kind(x)) for path, x in leaves])


def _kind(x: Any) -> tuple[str, ...]:  # noqa: ANN401  # an array, its shape, or neither
    if not hasattr(x, "shape"):
        return (repr(x),)
    weak = getattr(x, "weak_type", False)
    return str(x.shape), str(x.dtype), str(weak), str(getattr(x, "sharding", None))


@functools.cache
def _register_trees() -> None:
    """Tell `jax.export` the trees that arguments and results consist of."""
    for kind in (TrainState, StepSums, SamplerValues):
        export.register_namedtuple_serialization(kind, serialized_name=kind.__name__)
    export.register_pytree_node_serialization(
        QuantizedArray,
        serialized_name=QuantizedArray.__name__,
        serialize_auxdata=lambda facts: json.dumps(facts).encode(),
        deserialize_auxdata=lambda text: tuple(json.loads(text)),
    )
