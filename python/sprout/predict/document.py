# SPDX-License-Identifier: Apache-2.0
"""A predictor's file: what the scorer computes with, and what prices are set on.

    line 1   sprout-predictor 1 SHA256        of all that follows
    then     a NumPy archive (.npz) of the arrays below and a JSON text

No prompt stands in it: of the sample that it was fitted on it keeps the judged prompts'
fingerprints, classes, outcomes and cross-fitted predictions. Nothing in it is ever executed.
"""

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from sprout.errors import PredictorError
from sprout.predict.check import Report
from sprout.predict.first import BITS, ORDERS
from sprout.predict.fit import Fitted
from sprout.predict.sample import FOLDS, Indices, Sample
from sprout_ext.scorer import Scorer

Array = NDArray[np.float64]

MAGIC = b"sprout-predictor 1 "
MOST_FILE, MOST_UNPACKED = 64 << 20, 256 << 20  # bytes
MOST_SAMPLE = 1_000_000  # judged prompts
HEADER = len(MAGIC) + 64 + 1


@dataclass(frozen=True, eq=False)
class Judged:
    """The judged prompts that it was fitted on: m of them."""

    fingerprint: NDArray[np.uint64]  # (m,)
    label: Indices  # (m,)
    preferred: Indices  # (m,)
    joules: Array  # (m, L) measured
    seconds: Array  # (m, L)
    predicted_preference: Array  # (m, L) by a model that has not seen the prompt
    predicted_joules: Array  # (m, L)

    @property
    def fold(self) -> Indices:
        return (self.fingerprint % np.uint64(FOLDS)).astype(np.int64)


@dataclass(frozen=True)
class Meta:
    made: str  # UTC
    sprout_version: str
    source: str  # name of the bundle
    levels: tuple[str, ...]
    directives: tuple[str, ...]
    classes: tuple[str, ...]
    prompts: int  # whose energies it was fitted on
    seconds_per_joule: tuple[float, ...]  # by level, mean over mean
    report: Report


@dataclass(frozen=True, eq=False)
class Predictor:
    meta: Meta
    orders: tuple[int, ...]
    bits: int
    table: NDArray[np.int8]
    scales: Array
    biases: Array
    second: Array
    judged: Judged
    sha256: str = field(default="")  # of a loaded one

    def scorer(self) -> Scorer:
        return Scorer.of(
            orders=self.orders,
            bits=self.bits,
            table=self.table,
            scales=self.scales,
            biases=self.biases,
            second=self.second,
        )


_META = TypeAdapter(Meta)
_ARRAYS: dict[str, tuple[str, int]] = {
    # name: (kind, dimensions)
    "table": ("i1", 2),
    "scales": ("f8", 1),
    "biases": ("f8", 1),
    "second": ("f8", 3),
    "orders": ("u4", 1),
    "bits": ("u4", 0),
    "fingerprint": ("u8", 1),
    "label": ("i8", 1),
    "preferred": ("i8", 1),
    "joules": ("f8", 2),
    "seconds": ("f8", 2),
    "predicted_preference": ("f8", 2),
    "predicted_joules": ("f8", 2),
}
_JUDGED = tuple(_ARRAYS)[6:]
_FILE = _ARRAYS | {"meta": ("u1", 1)}
_NPY: Any = np.lib.format  # NumPy 1.26 has no types for it


def assemble(sample: Sample, fitted: Fitted, meta: Meta) -> Predictor:
    at = sample.judged
    judged = Judged(
        sample.fingerprints[at],
        sample.label[at],
        sample.preferred[at],
        sample.joules[at],
        sample.seconds[at],
        fitted.preferences,
        fitted.joules,
    )
    first = fitted.first
    return Predictor(
        meta, ORDERS, BITS, first.table, first.scales, first.biases, fitted.second, judged
    )


def dump(predictor: Predictor) -> bytes:
    arrays: dict[str, Any] = {
        "table": predictor.table,
        "scales": predictor.scales,
        "biases": predictor.biases,
        "second": predictor.second,
        "orders": np.array(predictor.orders, dtype=np.uint32),
        "bits": np.array(predictor.bits, dtype=np.uint32),
        **{name: getattr(predictor.judged, name) for name in _JUDGED},
        "meta": np.frombuffer(_META.dump_json(predictor.meta), dtype=np.uint8),
    }
    body = io.BytesIO()
    np.savez_compressed(body, **arrays)
    packed = body.getvalue()
    return MAGIC + hashlib.sha256(packed).hexdigest().encode() + b"\n" + packed


def save(predictor: Predictor, path: Path) -> None:
    """Whole or not at all. PredictorError if it can't be written."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(dump(predictor))
        beside.replace(path)
    except OSError as error:
        raise PredictorError(f"can't write {path}: {error}") from None


def load(path: Path) -> Predictor:
    """PredictorError: can't be read, or is malformed, and how."""
    try:
        return parse(read(path))
    except PredictorError as error:
        raise PredictorError(f"{path}: {error}") from None


def read(path: Path) -> bytes:
    """A file's bytes, for `parse`. PredictorError: can't be read, or is no plain file."""
    try:
        # A pipe would never end to open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PredictorError("no plain file")
            return file.read(MOST_FILE + 1)
    except OSError as error:
        raise PredictorError(f"can't read it: {error.strerror}") from None


def parse(raw: bytes) -> Predictor:
    """PredictorError: malformed, and how."""
    if len(raw) > MOST_FILE:
        raise PredictorError(f"larger than {MOST_FILE >> 20} MiB")
    if not raw.startswith(b"sprout-predictor "):
        raise PredictorError("no predictor: make one with `sprout predictor fit`")
    if not raw.startswith(MAGIC) or raw[HEADER - 1 : HEADER] != b"\n":
        raise PredictorError("of another version: fit it again")
    body = raw[HEADER:]
    sha256 = hashlib.sha256(body).hexdigest()
    if raw[len(MAGIC) : HEADER - 1] != sha256.encode():
        raise PredictorError("damaged: its SHA-256 is not the one that it names")
    arrays = _unpack(body)
    try:
        meta = _META.validate_json(arrays.pop("meta").tobytes())
    except (ValidationError, json.JSONDecodeError) as error:
        raise PredictorError(
            f"its description is malformed: {str(error).splitlines()[0]}"
        ) from None
    found = Predictor(
        meta=meta,
        orders=tuple(arrays["orders"].tolist()),
        bits=int(arrays["bits"]),
        table=arrays["table"],
        scales=arrays["scales"],
        biases=arrays["biases"],
        second=arrays["second"],
        judged=Judged(**{name: arrays[name] for name in _JUDGED}),
        sha256=sha256,
    )
    _consistent(found)
    return found


def _unpack(body: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if sum(each.file_size for each in members) > MOST_UNPACKED:
                raise PredictorError(f"unpacks to more than {MOST_UNPACKED >> 20} MiB")
            names, wanted = [each.filename for each in members], {f"{name}.npy" for name in _FILE}
            if odd := sorted(wanted ^ set(names)):
                raise PredictorError(f"lacks or adds {', '.join(odd).replace('.npy', '')}")
            if len(names) != len(wanted):
                raise PredictorError("holds an array twice")
            arrays = {each.filename[:-4]: _array(archive, each) for each in members}
    except PredictorError:
        raise
    except Exception as error:  # a crafted file has many ways into zlib, zipfile, NumPy's header
        what = f"{type(error).__name__}: {error}"
        raise PredictorError(f"its archive is malformed: {what}") from None
    for name, (kind, _) in _ARRAYS.items():
        if kind == "f8" and not np.isfinite(arrays[name]).all():
            raise PredictorError(f"{name} holds numbers that are not finite")
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """What its header says is checked before anything is made for it.

    So no more is allocated than the archive's own sizes, whose sum MOST_UNPACKED bounds. LZMA and
    bzip2 are refused: their decoders take what memory the data say.
    """
    name = member.filename[:-4]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PredictorError(f"{name} is packed by method {member.compress_type}")
    with archive.open(member) as file:
        version = _NPY.read_magic(file)
        if version != (1, 0):  # that all arrays of ours are written in
            raise PredictorError(f"{name} is of NumPy's format {version}")
        shape, _, dtype = _NPY.read_array_header_1_0(file)
        kind, dimensions = _FILE[name]
        if dtype != np.dtype(kind) or len(shape) != dimensions:
            raise PredictorError(f"{name} is {dtype} {shape}")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise PredictorError(f"{name} is not of the size that it names, {shape}")
    with archive.open(member) as file:
        array: NDArray[Any] = _NPY.read_array(file, allow_pickle=False)
    return array


def _consistent(found: Predictor) -> None:
    meta, judged = found.meta, found.judged
    levels, classes, m = len(meta.levels), len(meta.classes), len(judged.label)
    if not (0 < m <= MOST_SAMPLE):
        raise PredictorError(f"{m} judged prompts")
    by_level = {len(meta.directives), len(meta.seconds_per_joule), len(found.second) // 2}
    if by_level != {levels} or found.second.shape[1] != classes + 1:
        raise PredictorError("its description does not fit its weights")
    for name in _JUDGED:
        array = getattr(judged, name)
        if array.shape != ((m,) if array.ndim == 1 else (m, levels)):
            raise PredictorError(f"{name} is {array.shape}, not of {m} prompts, {levels} levels")
    for name, most in (("label", classes), ("preferred", levels)):
        array = getattr(judged, name)
        if array.min() < 0 or array.max() >= most:
            raise PredictorError(f"{name} is out of its range")
    for name in ("joules", "seconds", "predicted_preference", "predicted_joules"):
        if getattr(judged, name).min() < 0:
            raise PredictorError(f"{name} holds negative numbers")
    if not (np.array(meta.seconds_per_joule) >= 0).all():
        raise PredictorError("seconds_per_joule holds negative numbers")
    try:
        found.scorer()
    except (ValueError, TypeError, OverflowError) as error:
        raise PredictorError(f"its weights don't fit: {error}") from None
