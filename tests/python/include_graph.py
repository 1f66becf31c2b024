# SPDX-License-Identifier: Apache-2.0
"""What our sources include and what CMake says they depend on, and the rules that both obey.

Every check takes plain dictionaries (path -> text), so that a test can hand it a small bad example,
and returns a list of complaints, each one line. Paths are relative to the root, with '/'.
"""

import re
from pathlib import Path

LAYERS = ("kernels", "core", "services")  # an arrow may point to the left or stay
# Inside core: a folder may include those of a lower rank only. A new folder takes its place here.
CORE_RANK = {"base": 0, "decoding": 1, "model": 1, "policy": 1, "telemetry": 1, "schedule": 1,
             "budget": 2, "transformer": 2, "engine": 3, "arena": 4}
SHARED_SERVICES = {"common"}  # what every service may include
FREE_SERVICES = {"maskkv"}  # all services in one process
KERNEL_FORBIDDEN = ("absl/", "nlohmann/", "spdlog/", "google/", "grpc", "grpcpp/", "maskkv/v1/")
SOURCE_ONLY = ("grpc/", "grpcpp/", "google/", "maskkv/v1/", "prometheus/", "spdlog/")
# Third-party and generated headers whose library a folder has to name itself: the first prefix that
# fits, any one of its libraries.
THIRD_PARTY = {
    "nlohmann/": ("nlohmann_json::nlohmann_json",),
    "oneapi/": ("dnnl::dnnl",),
    "unicode/": ("ICU::uc",),
    "openssl/": ("OpenSSL::Crypto",),
    "CLI/": ("CLI11::CLI11",),
    "spdlog/": ("spdlog::spdlog",),
    "prometheus/exposer.h": ("prometheus-cpp::pull",),
    "prometheus/": ("prometheus-cpp::core",),
    "grpcpp/ext/proto_server_reflection_plugin.h": ("gRPC::grpc++_reflection",),
    "grpcpp/": ("gRPC::grpc++", "protos_grpc", "protos"),
    "grpc/": ("gRPC::grpc++", "protos_grpc", "protos"),
    "google/rpc/": ("protos",),
    "google/protobuf/": ("protobuf::libprotobuf", "protos"),
    "maskkv/v1/": ("protos",),
}

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)
_TARGET = re.compile(r"\bmaskkv_(library|binary|test|bench|fuzz)\(([^()]*)\)")
_SET = re.compile(r"\b(?:set|list)\(\s*(?:APPEND\s+)?(\w+)\s+([^()]*)\)")
_KEYWORDS = ("SOURCES", "DEPS", "OUTPUT", "CORPUS", "RUNS")


def read_tree(root):
    """(sources, cmake): every C++ source and header, every CMakeLists.txt of our folders."""
    sources, cmake = {}, {}
    for top in (*LAYERS, "tests"):
        for path in sorted(Path(root, top).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in (".h", ".inc", ".cc", ".cu"):
                sources[name] = path.read_text(encoding="utf-8")
            elif path.name == "CMakeLists.txt":
                cmake[name] = path.read_text(encoding="utf-8")
    return sources, cmake


def includes(text):
    return _INCLUDE.findall(text)


def folder(path):
    """'core/policy' of 'core/policy/level.h'."""
    return "/".join(path.split("/")[:2])


def is_ours(path):
    return path.split("/")[0] in (*LAYERS, "tests") and "/" in path


def _our_arrows(sources):
    """(file, included path) between files of kernels, core and services; tests may include all."""
    for name, text in sources.items():
        if name.split("/")[0] in LAYERS:
            yield from ((name, path) for path in includes(text) if is_ours(path))


def unresolved(sources):
    return [
        f"{name}: includes {path}, which does not exist"
        for name, text in sources.items()
        for path in includes(text)
        if is_ours(path) and path not in sources
    ]


def upward_arrows(sources):
    complaints = []
    for name, path in _our_arrows(sources):
        if folder(name) == folder(path):
            continue
        (top, own), (to_top, to) = name.split("/")[:2], path.split("/")[:2]
        bad = None
        if to_top not in LAYERS:
            bad = f"{top} must not include {to_top}"
        elif LAYERS.index(to_top) > LAYERS.index(top):
            bad = f"{top} is below {to_top}"
        elif top == to_top == "core":
            for unknown in {own, to} - set(CORE_RANK):
                bad = f"core/{unknown} has no rank in include_graph.py"
            if bad is None and CORE_RANK[to] >= CORE_RANK[own]:
                bad = f"core/{own} is not above core/{to}"
        elif top == to_top == "services" and own not in FREE_SERVICES and to not in SHARED_SERVICES:
            bad = "a service includes no other service"
        elif top == to_top == "kernels" and own == "base":
            bad = "kernels/base is the lowest folder"
        if bad:
            complaints.append(f"{name}: includes {path}: {bad}")
    return complaints


def misplaced_libraries(sources):
    complaints = []
    for name, text in sources.items():
        for path in includes(text):
            if name.startswith("kernels/") and path.startswith(KERNEL_FORBIDDEN):
                complaints.append(f"{name}: includes {path}: kernels use std and oneDNN only")
            elif name.startswith("tests/") or not name.endswith(".h"):
                continue
            elif path.startswith(SOURCE_ONLY) or path.endswith(".pb.h"):
                complaints.append(f"{name}: includes {path}: gRPC and protobuf belong in .cc files")
    return complaints


def cycles(sources):
    """Cycles of files (headers) and of folders."""
    files = {name: {p for p in includes(text) if p in sources} for name, text in sources.items()}
    folders = {}
    for name, path in _our_arrows(sources):
        if folder(name) != folder(path):
            folders.setdefault(folder(name), set()).add(folder(path))
    return [
        f"cycle: {' -> '.join(cycle)}"
        for graph in (files, folders)
        if (cycle := _find_cycle(graph))
    ]


def _find_cycle(graph):
    done, trail = set(), []

    def visit(node):
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return None
        trail.append(node)
        for successor in sorted(graph.get(node, ())):
            if cycle := visit(successor):
                return cycle
        trail.pop()
        done.add(node)
        return None

    for start in sorted(graph):
        if cycle := visit(start):
            return cycle
    return None


class Target:
    def __init__(self, kind, name, sources, deps, deps_lines):
        self.kind, self.name, self.sources, self.deps = kind, name, sources, deps
        self.deps_lines = deps_lines  # number of lines that DEPS takes


def targets(cmake):
    """The targets of our functions, sources as paths from the root."""
    found = []
    for name, text in cmake.items():
        text = re.sub(r"#.*", "", text)
        variables = {}
        for variable, values in _SET.findall(text):
            variables.setdefault(variable, []).extend(values.split())
        for kind, body in _TARGET.findall(text):
            lists, key = {"": []}, ""
            for word in body.split():
                if word in _KEYWORDS:
                    key = word
                    lists.setdefault(key, [])
                elif reference := re.fullmatch(r"\$\{(\w+)\}", word):
                    lists[key].extend(variables.get(reference[1], [word]))
                else:
                    lists[key].append(word)
            after_deps = body.split("DEPS")[1] if "DEPS" in body.split() else ""
            here = name.removesuffix("CMakeLists.txt")
            found.append(
                Target(
                    kind,
                    lists[""][0],
                    {here + source for source in lists.get("SOURCES", [])},
                    set(lists.get("DEPS", [])),
                    after_deps.rstrip().count("\n") + 1,
                )
            )
    return found


def library_of(path):
    """The target that a folder's library must have: kernels_norm of kernels/norm/x.h."""
    return "_".join(folder(path).split("/"))


def undeclared_dependencies(sources, cmake):
    """Includes whose library the including target does not name in its own DEPS.

    A header belongs to the library of its folder, a source to every target that lists it. Tests and
    benches get a library through another one if they like.
    """
    by_name = {target.name: target for target in targets(cmake)}
    owners = {}
    for target in by_name.values():
        for source in target.sources:
            owners.setdefault(source, []).append(target)
    complaints = []
    for name, text in sources.items():
        if name.split("/")[0] not in LAYERS:
            continue
        default = by_name.get(library_of(name))
        own = owners.get(name) or ([default] if default and name.endswith((".h", ".inc")) else [])
        if not own:
            complaints.append(f"{name}: no target lists it")
        for target in own:
            for path in includes(text):
                needed = _libraries_needed(path)
                if needed and not set(needed) & {target.name, *target.deps}:
                    complaints.append(
                        f"{name}: includes {path}, but {target.name} has no {needed[0]} in its DEPS"
                    )
    return complaints


def _libraries_needed(path):
    if path.split("/")[0] in LAYERS and "/" in path:
        return (library_of(path),)
    if path.startswith("maskkv/v1/") and path.endswith(".grpc.pb.h"):
        return ("protos_grpc",)
    for prefix, libraries in THIRD_PARTY.items():
        if path.startswith(prefix):
            return libraries
    return None


def bad_targets(cmake):
    complaints = []
    for target in targets(cmake):
        if target.deps_lines > 1:
            complaints.append(f"{target.name}: its DEPS take {target.deps_lines} lines, not one")
    for name in cmake:
        folders = name.split("/")
        if folders[0] not in LAYERS or len(folders) != 3:
            continue
        libraries = [t.name for t in targets({name: cmake[name]}) if t.kind == "library"]
        if libraries != [library_of(name)]:
            complaints.append(f"{name}: expected one library {library_of(name)}, found {libraries}")
    return complaints
