# SPDX-License-Identifier: Apache-2.0
# Flags that every target of ours gets, as the interface target maskkv_flags.

# Sources of a target compiled together share the templates that each would instantiate for itself: a
# third of the time. Names of file scope are then unique within a folder (tests whose names are common
# have a namespace of their own); the preset `dev` builds every source alone.
option(MASKKV_UNITY "Compile sources of a folder together" ON)

find_program(MASKKV_CCACHE ccache)
if(MASKKV_CCACHE)
  # What ccache asks for to cache files that use precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${MASKKV_CCACHE})
endif()

add_library(maskkv_flags INTERFACE)
target_include_directories(maskkv_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(maskkv_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor
  # The compiler may not contract a*b+c on its own: which ISA a kernel was compiled for would
  # change results. Kernels that want FMA say so.
  -ffp-contract=off)
if(CMAKE_BUILD_TYPE STREQUAL Release)
  # Kernels are compiled at -O3, what calls them once a layer at -O2, what waits for sockets and reads
  # flags (CLI11, gRPC and protobuf are mostly headers) at -O1. Tests are compiled more often than they
  # run; what they test is compiled as people run it.
  set(MASKKV_CORE_OPTIONS -O2)
  set(MASKKV_SERVICE_OPTIONS -O1)
  set(MASKKV_TEST_OPTIONS -O0)
elseif(MASKKV_SANITIZE AND NOT MASKKV_FUZZ)
  # Half of the time of -O1 to compile. What computes keeps its own level.
  set(MASKKV_SERVICE_OPTIONS -O0)
  set(MASKKV_TEST_OPTIONS -O0)
endif()
if(MASKKV_UNITY)
  # What these say of a file that another includes does not hold of sources compiled together.
  target_compile_options(maskkv_flags INTERFACE -Wno-subobject-linkage -Wno-shadow)
endif()
if(MASKKV_WERROR)
  target_compile_options(maskkv_flags INTERFACE -Werror)
endif()
find_program(MASKKV_GOLD ld.gold)
if(MASKKV_GOLD AND NOT MASKKV_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  add_link_options(-fuse-ld=gold)  # part of Debian's binutils; links in a fifth of the time
endif()
if(MASKKV_SANITIZE)
  add_compile_options(-fsanitize=${MASKKV_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MASKKV_SANITIZE})
  if(MASKKV_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
if(MASKKV_FUZZ)
  # Coverage counters in all of our code: libFuzzer steers by them.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
