# SPDX-License-Identifier: Apache-2.0
"""Dependencies point down: services -> core -> kernels, and CMake says the same as the includes."""

from pathlib import Path

import include_graph
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree():
    sources, cmake = include_graph.read_tree(ROOT)
    assert len(sources) > 50 and len(cmake) > 10, "the tree was not found"
    assert sum(len(include_graph.includes(text)) for text in sources.values()) > 300
    return sources, cmake


def test_every_include_of_ours_exists(tree):
    assert include_graph.unresolved(tree[0]) == []


def test_no_arrow_points_up(tree):
    assert include_graph.upward_arrows(tree[0]) == []


def test_libraries_are_included_where_they_belong(tree):
    assert include_graph.misplaced_libraries(tree[0]) == []


def test_there_is_no_cycle(tree):
    assert include_graph.cycles(tree[0]) == []


def test_every_include_is_a_declared_dependency(tree):
    assert include_graph.undeclared_dependencies(*tree) == []


def test_every_folder_is_one_library_with_its_dependencies_on_one_line(tree):
    assert include_graph.bad_targets(tree[1]) == []


# Each check on the smallest example that breaks its rule, and on the nearest one that does not.


def complaint(found):
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("kernels/norm/a.cc", "core/base/check.h"),
        ("kernels/norm/a.cc", "services/maskkv/a.h"),
        ("kernels/norm/a.cc", "tests/support/seed.h"),
        ("kernels/base/a.h", "kernels/norm/a.h"),
        ("core/engine/a.h", "services/decode/a.h"),
        ("core/base/a.h", "core/policy/a.h"),
        ("core/policy/a.h", "core/engine/a.h"),
        ("core/policy/a.h", "core/model/a.h"),
        ("core/nobody/a.h", "core/base/a.h"),
        ("services/prefill/a.cc", "services/decode/a.h"),
    ],
)
def test_an_arrow_up_is_found(name, path):
    line = complaint(include_graph.upward_arrows({name: f'#include "{path}"\n'}))
    assert line.startswith(f"{name}: includes {path}: ")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("services/maskkv/a.cc", "services/decode/a.h"),
        ("services/prefill/a.cc", "services/common/a.h"),
        ("services/prefill/a.cc", "kernels/norm/a.h"),
        ("core/engine/a.cc", "core/policy/a.h"),
        ("core/base/a.cc", "kernels/base/a.h"),
        ("kernels/attention/a.cc", "kernels/parallel/a.h"),
        ("tests/unit/core/a_test.cc", "core/engine/a.h"),
    ],
)
def test_an_arrow_down_is_not(name, path):
    assert include_graph.upward_arrows({name: f'#include "{path}"\n'}) == []


def test_includes_are_read_as_the_preprocessor_does():
    text = '#include "core/a.h"\n  #  include <vector>\n// #include "core/no.h"\n#include"core/b.h"\n'
    assert include_graph.includes(text) == ["core/a.h", "vector", "core/b.h"]


def test_a_missing_file_is_found():
    sources = {"core/base/a.cc": '#include "core/base/b.h"\n#include "absl/b.h"\n'}
    assert "core/base/b.h, which does not exist" in complaint(include_graph.unresolved(sources))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("kernels/norm/a.cc", "absl/status/status.h"),
        ("kernels/norm/a.h", "nlohmann/json.hpp"),
        ("core/engine/a.h", "grpcpp/server.h"),
        ("core/engine/a.h", "maskkv/v1/decode.pb.h"),
        ("services/decode/a.h", "google/protobuf/message.h"),
        ("core/telemetry/a.h", "prometheus/registry.h"),
        ("core/telemetry/a.h", "spdlog/logger.h"),
    ],
)
def test_a_misplaced_library_is_found(name, path):
    found = include_graph.misplaced_libraries({name: f"#include <{path}>\n"})
    assert complaint(found).startswith(f"{name}: includes {path}: ")


def test_a_well_placed_library_is_not():
    sources = {
        "kernels/gemm/a.cc": "#include <oneapi/dnnl/dnnl.hpp>\n#include <vector>\n",
        "services/decode/a.cc": "#include <grpcpp/server.h>\n",
        "core/model/a.h": "#include <absl/status/status.h>\n",
        "tests/integration/fake.h": "#include <grpcpp/server.h>\n",
    }
    assert include_graph.misplaced_libraries(sources) == []


def test_a_cycle_of_headers_is_found():
    sources = {
        "core/base/a.h": '#include "core/base/b.h"\n',
        "core/base/b.h": '#include "core/base/c.h"\n',
        "core/base/c.h": '#include "core/base/a.h"\n',
    }
    assert complaint(include_graph.cycles(sources)) == (
        "cycle: core/base/a.h -> core/base/b.h -> core/base/c.h -> core/base/a.h"
    )


def test_a_cycle_of_folders_without_a_cycle_of_files_is_found():
    sources = {
        "kernels/norm/a.h": '#include "kernels/rope/b.h"\n',
        "kernels/rope/b.h": "",
        "kernels/rope/c.h": '#include "kernels/norm/d.h"\n',
        "kernels/norm/d.h": "",
    }
    assert complaint(include_graph.cycles(sources)) == (
        "cycle: kernels/norm -> kernels/rope -> kernels/norm"
    )


CMAKE = """
# maskkv_library(kernels_comment DEPS nobody)
set(more b.cc)
list(APPEND more c.cc)
maskkv_library(kernels_norm SOURCES a.cc ${more} DEPS kernels_base dnnl::dnnl)
"""


def test_targets_are_read_with_their_variables():
    (target,) = include_graph.targets({"kernels/norm/CMakeLists.txt": CMAKE})
    assert (target.kind, target.name) == ("library", "kernels_norm")
    assert target.sources == {f"kernels/norm/{name}.cc" for name in "abc"}
    assert target.deps == {"kernels_base", "dnnl::dnnl"}


@pytest.mark.parametrize("name", ["kernels/norm/a.cc", "kernels/norm/c.cc", "kernels/norm/x.h"])
def test_an_undeclared_dependency_is_found(name):
    cmake = {"kernels/norm/CMakeLists.txt": CMAKE}
    declared = {name: '#include "kernels/base/d.h"\n#include "kernels/norm/e.h"\n#include <set>\n'}
    assert include_graph.undeclared_dependencies(declared, cmake) == []
    missing = {name: '#include "kernels/rope/d.h"\n'}
    line = complaint(include_graph.undeclared_dependencies(missing, cmake))
    assert "kernels_norm has no kernels_rope in its DEPS" in line
    third_party = {name: "#include <nlohmann/json.hpp>\n"}
    line = complaint(include_graph.undeclared_dependencies(third_party, cmake))
    assert "has no nlohmann_json::nlohmann_json" in line


@pytest.mark.parametrize(
    ("path", "library"),
    [
        ("maskkv/v1/cache.pb.h", "protos"),
        ("maskkv/v1/cache.grpc.pb.h", "protos_grpc"),
        ("google/rpc/error_details.pb.h", "protos"),
        ("grpcpp/server.h", "gRPC::grpc++"),
        ("grpcpp/ext/proto_server_reflection_plugin.h", "gRPC::grpc++_reflection"),
        ("prometheus/exposer.h", "prometheus-cpp::pull"),
        ("prometheus/registry.h", "prometheus-cpp::core"),
    ],
)
def test_generated_and_wrapped_libraries_are_declared(path, library):
    sources = {"core/telemetry/a.cc": f"#include <{path}>\n"}
    declared = f"maskkv_library(core_telemetry SOURCES a.cc DEPS {library})\n"
    cmake = {"core/telemetry/CMakeLists.txt": declared}
    assert include_graph.undeclared_dependencies(sources, cmake) == []
    cmake = {"core/telemetry/CMakeLists.txt": declared.replace(library, "other")}
    line = complaint(include_graph.undeclared_dependencies(sources, cmake))
    assert f"core_telemetry has no {library} in its DEPS" in line


def test_a_source_that_no_target_lists_is_found():
    cmake = {"kernels/norm/CMakeLists.txt": CMAKE}
    found = include_graph.undeclared_dependencies({"kernels/norm/z.cc": ""}, cmake)
    assert complaint(found) == "kernels/norm/z.cc: no target lists it"


def test_dependencies_on_two_lines_and_a_misnamed_library_are_found():
    two_lines = "maskkv_library(core_base SOURCES a.cc DEPS a\n  b)\n"
    found = include_graph.bad_targets({"core/base/CMakeLists.txt": two_lines})
    assert complaint(found) == "core_base: its DEPS take 2 lines, not one"
    misnamed = "maskkv_library(base SOURCES a.cc DEPS a)\n"
    found = include_graph.bad_targets({"core/base/CMakeLists.txt": misnamed})
    assert "expected one library core_base, found ['base']" in complaint(found)
