# SPDX-License-Identifier: Apache-2.0
# One target a folder: explicit sources, dependencies on one line.

# What the TSan and fuzz runs build, instead of everything.
add_custom_target(threaded_tests)
add_custom_target(benches)
add_custom_target(fuzzers)

# How much the compiler optimises (compiler.cmake): what speaks RPC is a service.
function(maskkv_optimise NAME)
  if("${ARGN}" MATCHES "(^|;)(protos|services_|CLI11)")
    target_compile_options(${NAME} PRIVATE ${MASKKV_SERVICE_OPTIONS})
  else()
    target_compile_options(${NAME} PRIVATE ${MASKKV_CORE_OPTIONS})
  endif()
endfunction()

# Several sources of a folder compiled as one (MASKKV_UNITY in compiler.cmake).
function(maskkv_unity NAME SIZE)
  set_target_properties(${NAME} PROPERTIES UNITY_BUILD ${MASKKV_UNITY} UNITY_BUILD_BATCH_SIZE ${SIZE})
endfunction()

# maskkv_library(NAME [SOURCES a.cc ...] [DEPS target ...]); without SOURCES the library is header-only.
function(maskkv_library NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${NAME} STATIC ${ARG_SOURCES})
    target_link_libraries(${NAME} PUBLIC ${ARG_DEPS} PRIVATE maskkv_flags)
    target_include_directories(${NAME} PUBLIC ${PROJECT_SOURCE_DIR})
    # Kernels have flags of their own and few headers.
    if(NOT NAME MATCHES "^kernels_")
      maskkv_optimise(${NAME} ${ARG_DEPS})
      maskkv_reuse_pch(${NAME} core ${ARG_DEPS})
      maskkv_unity(${NAME} 6)
    endif()
  else()
    add_library(${NAME} INTERFACE)
    target_link_libraries(${NAME} INTERFACE ${ARG_DEPS})
    target_include_directories(${NAME} INTERFACE ${PROJECT_SOURCE_DIR})
  endif()
endfunction()

# maskkv_binary(NAME OUTPUT file-name SOURCES ... DEPS ...)
function(maskkv_binary NAME)
  cmake_parse_arguments(ARG "" "OUTPUT" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE maskkv_flags ${ARG_DEPS})
  maskkv_optimise(${NAME} ${ARG_DEPS})
  maskkv_reuse_pch(${NAME} core ${ARG_DEPS})
  if(ARG_OUTPUT)
    set_target_properties(${NAME} PROPERTIES OUTPUT_NAME ${ARG_OUTPUT})
  endif()
endfunction()

# maskkv_test(NAME [THREADS] [TSAN_FILTER pattern] SOURCES ... DEPS ...): a GoogleTest binary, one
# ctest entry. THREADS labels a test that runs several threads: those run under ThreadSanitizer too,
# of a binary with a filter those cases that share something between threads.
function(maskkv_test NAME)
  cmake_parse_arguments(ARG "THREADS" "TSAN_FILTER" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE maskkv_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${NAME} PRIVATE MASKKV_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${NAME} PRIVATE ${MASKKV_TEST_OPTIONS})
  maskkv_reuse_pch(${NAME} test ${ARG_DEPS})
  maskkv_unity(${NAME} 6)
  set_target_properties(${NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  set(filter "")
  if(ARG_TSAN_FILTER AND MASKKV_SANITIZE STREQUAL thread)
    set(filter --gtest_filter=${ARG_TSAN_FILTER})
  endif()
  add_test(NAME ${NAME} COMMAND ${NAME} ${filter})
  set_tests_properties(${NAME} PROPERTIES TIMEOUT 1200 FAIL_REGULAR_EXPRESSION "Running 0 tests")
  if(ARG_THREADS)
    set_tests_properties(${NAME} PROPERTIES LABELS threads)
    add_dependencies(threaded_tests ${NAME})
  endif()
endfunction()

# maskkv_bench(NAME SOURCES ... DEPS ...): a Google Benchmark binary, never run by ctest. Benches are built
# when they are asked for, all of them by the target `benches`.
function(maskkv_bench NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE maskkv_flags ${ARG_DEPS} benchmark::benchmark
                                        benchmark::benchmark_main)
  maskkv_mark_bench(${NAME})
endfunction()

function(maskkv_mark_bench NAME)
  set_target_properties(${NAME} PROPERTIES
    EXCLUDE_FROM_ALL ON RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
  add_dependencies(benches ${NAME})
endfunction()

# maskkv_fuzz(NAME SOURCES ... DEPS ... [CORPUS dir] [RUNS n]): a libFuzzer target that ctest runs
# for a bounded count with a fixed seed.
function(maskkv_fuzz NAME)
  cmake_parse_arguments(ARG "" "CORPUS;RUNS" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE maskkv_flags ${ARG_DEPS})
  target_compile_definitions(${NAME} PRIVATE MASKKV_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_options(${NAME} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  if(NOT ARG_RUNS)
    set(ARG_RUNS 20000)
  endif()
  # As seed inputs, because libFuzzer writes what it finds into a corpus folder named as such.
  set(seeds "")
  if(ARG_CORPUS)
    file(GLOB seeds CONFIGURE_DEPENDS ${ARG_CORPUS}/*)
    list(JOIN seeds "," seeds)
    set(seeds -seed_inputs=${seeds})
  endif()
  add_test(NAME ${NAME} COMMAND ${NAME} -runs=${ARG_RUNS} -seed=1 -max_len=8192 -timeout=20
                                -rss_limit_mb=4096 ${seeds})
  set_tests_properties(${NAME} PROPERTIES LABELS fuzz)
  add_dependencies(fuzzers ${NAME})
endfunction()
