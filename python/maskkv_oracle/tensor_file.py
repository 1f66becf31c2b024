# SPDX-License-Identifier: Apache-2.0
"""Reading and writing safetensors files, bf16 included (NumPy has no bfloat16).

A file is: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
then the tensors' bytes; offsets are relative to the end of the header.
"""

import json
import pathlib

import numpy as np

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64}


def bf16_to_float32(bits):
    """uint16 bit patterns -> float32; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float32_to_bf16(values):
    """float32 -> uint16 bit patterns, round to nearest even. Finite values only."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def read(path):
    """{name: array}; bf16 tensors come back as float32."""
    raw = pathlib.Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    data = raw[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "BF16":
            flat = bf16_to_float32(np.frombuffer(data[begin:end], dtype=np.uint16))
        else:
            flat = np.frombuffer(data[begin:end], dtype=_DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def to_bytes(tensors, bf16=False, metadata=None):
    """{name: array} -> the bytes of a file. Equal input gives equal bytes.

    bf16: float32 arrays are stored as bf16. Tensors lie in the order of the dict, the header is
    padded so that the data begin on an 8-byte border.
    """
    header, chunks, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    names = {np.dtype(v): k for k, v in _DTYPES.items()}
    for name, array in tensors.items():
        if bf16 and array.dtype == np.float32:
            dtype, chunk = "BF16", float32_to_bf16(array).tobytes()
        else:
            dtype, chunk = names[array.dtype], np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(chunk)],
        }
        offset += len(chunk)
        chunks.append(chunk)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(chunks)
