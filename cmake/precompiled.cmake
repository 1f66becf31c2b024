# SPDX-License-Identifier: Apache-2.0
# Precompiled headers. More than half of the time of compiling a file of ours goes into reading the
# headers of others, so four sets are read once a build folder and shared by all targets. Sources
# still include what they use: the preset `dev` builds without.

option(MASKKV_PCH "Share precompiled headers" ON)

set(MASKKV_STD_HEADERS <algorithm> <array> <chrono> <cmath> <cstdint> <cstring> <functional> <limits>
  <map> <memory> <mutex> <optional> <random> <span> <string> <string_view> <thread> <utility> <vector>)
set(MASKKV_ABSL_HEADERS <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/strings/str_format.h>)
set(MASKKV_TEST_HEADERS <gmock/gmock.h> <gtest/gtest.h>)
set(MASKKV_RPC_HEADERS <grpcpp/grpcpp.h> <nlohmann/json.hpp>)

# maskkv_pch(NAME HEADERS ... DEPS target ... [OPTIONS flag ...]): a set that targets reuse.
function(maskkv_pch NAME)
  cmake_parse_arguments(ARG "" "" "HEADERS;DEPS;OPTIONS" ${ARGN})
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/${NAME}.cc CONTENT "")
  add_library(${NAME} OBJECT ${PROJECT_BINARY_DIR}/${NAME}.cc)
  target_link_libraries(${NAME} PRIVATE maskkv_flags ${ARG_DEPS})
  target_compile_options(${NAME} PRIVATE ${ARG_OPTIONS})
  target_precompile_headers(${NAME} PRIVATE ${ARG_HEADERS})
endfunction()

# maskkv_reuse_pch(TARGET core|test DEPS...): the set that fits what the target depends on.
function(maskkv_reuse_pch TARGET KIND)
  if(NOT MASKKV_PCH)
    return()
  endif()
  if("${ARGN}" MATCHES "(^|;)(protos|services_|CLI11)")
    set(KIND services_${KIND})
  endif()
  target_precompile_headers(${TARGET} REUSE_FROM pch_${KIND})
endfunction()

if(MASKKV_PCH)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-fpch-preprocess)  # for ccache
  endif()
  set(absl absl::status absl::statusor absl::strings absl::str_format)
  set(rpc gRPC::grpc++ nlohmann_json::nlohmann_json)
  set(std ${MASKKV_STD_HEADERS} ${MASKKV_ABSL_HEADERS})
  maskkv_pch(pch_core HEADERS ${std} DEPS ${absl} OPTIONS ${MASKKV_CORE_OPTIONS})
  maskkv_pch(pch_services_core HEADERS ${std} ${MASKKV_RPC_HEADERS} DEPS ${absl} ${rpc}
    OPTIONS ${MASKKV_SERVICE_OPTIONS})
  maskkv_pch(pch_test HEADERS ${std} ${MASKKV_TEST_HEADERS} DEPS ${absl} GTest::gmock OPTIONS ${MASKKV_TEST_OPTIONS})
  maskkv_pch(pch_services_test HEADERS ${std} ${MASKKV_TEST_HEADERS} ${MASKKV_RPC_HEADERS}
    DEPS ${absl} ${rpc} GTest::gmock OPTIONS ${MASKKV_TEST_OPTIONS})
endif()
