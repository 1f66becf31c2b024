# SPDX-License-Identifier: Apache-2.0
# Third-party packages, all from Debian.

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc i18n)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(GTest REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(CURL REQUIRED)
find_package(Protobuf REQUIRED)  # before gRPC, which needs its targets
find_package(gRPC CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_library(MASKKV_XXHASH_LIBRARY xxhash REQUIRED)
add_library(xxhash::xxhash UNKNOWN IMPORTED)
set_target_properties(xxhash::xxhash PROPERTIES IMPORTED_LOCATION ${MASKKV_XXHASH_LIBRARY})
find_library(MASKKV_NUMA_LIBRARY numa REQUIRED)
add_library(numa::numa UNKNOWN IMPORTED)
set_target_properties(numa::numa PROPERTIES IMPORTED_LOCATION ${MASKKV_NUMA_LIBRARY})

# Debian's dnnl-config.cmake asks for OpenCL's development files although the library does not
# need them, so the target is made by hand.
find_library(MASKKV_DNNL_LIBRARY dnnl REQUIRED)
find_path(MASKKV_DNNL_INCLUDE oneapi/dnnl/dnnl.hpp REQUIRED)
add_library(dnnl::dnnl UNKNOWN IMPORTED)
set_target_properties(dnnl::dnnl PROPERTIES
  IMPORTED_LOCATION ${MASKKV_DNNL_LIBRARY}
  INTERFACE_INCLUDE_DIRECTORIES ${MASKKV_DNNL_INCLUDE})
# Only omp_set_num_threads is used (one thread inside oneDNN), so the run time is linked, not -fopenmp.
find_library(MASKKV_GOMP_LIBRARY NAMES gomp libgomp.so.1 PATHS
  /usr/lib/gcc/x86_64-linux-gnu/12 REQUIRED)
