# SPDX-License-Identifier: Apache-2.0
"""Makes the modules of maskkv.v1 from protos/: python maskkv_build.py, or by building the package.

They are not committed: the .proto files are the source.
"""

import hashlib
import importlib.metadata
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
PROTOS = HERE.parent / "protos"


def generate(out=HERE):
    """Writes OUT/maskkv/v1/*_pb2*.py, unless all are there, of these very protos and this generator."""
    import grpc_tools
    from grpc_tools import protoc

    files = sorted(PROTOS.glob("maskkv/v1/*.proto"))
    state = hashlib.sha256(importlib.metadata.version("grpcio-tools").encode())
    for file in files:
        state.update(file.read_bytes())
    stamp = pathlib.Path(out, "maskkv", "v1", ".protos.sha256")
    modules = [stamp.parent / (file.stem + end) for file in files
               for end in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")]
    if (stamp.exists() and stamp.read_text() == state.hexdigest()
            and all(module.exists() for module in modules)):
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--python_out={out}",
                 f"--pyi_out={out}", f"--grpc_python_out={out}", *map(str, files)]
    if protoc.main(arguments) != 0:
        raise SystemExit("maskkv_build: protoc failed")
    stamp.write_text(state.hexdigest())


if __name__ == "__main__":
    generate()
