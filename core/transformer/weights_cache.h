// SPDX-License-Identifier: Apache-2.0
//
// Packed matrices of a checkpoint, kept in a folder so that they are packed once a machine and are
// in memory once for all of its processes (packed_file.h). docs/weights_cache.md is the operator's
// page. Functions without state; any number of processes may use one folder at once.
#ifndef MASKKV_CORE_TRANSFORMER_WEIGHTS_CACHE_H_
#define MASKKV_CORE_TRANSFORMER_WEIGHTS_CACHE_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/checkpoint.h"
#include "core/transformer/packed_file.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// A matrix that wants weights, and the tensors that it stacks by rows.
struct MatrixToPack {
  std::string name;  // unique within a model
  std::vector<kernels::MatrixSource> parts;
  std::int64_t in = 0;
  kernels::DType compute = kernels::DType::kF32;
  kernels::PackedMatrix* matrix = nullptr;
};

// Where the packed matrices of a model are.
struct WeightsOrigin {
  std::optional<PackedFile> file;  // mapped; without one every matrix owns its memory
  std::string path;                // of the file
  bool written = false;            // by this process
  // Why a file that was there was not used, and why none was written: a line each, for a log.
  std::vector<std::string> notes;
};

// Packs into the process's own memory.
void PackAll(std::span<const MatrixToPack> matrices, kernels::WorkerPool& pool);

// Gives every matrix its weights: from the folder's file where it is right, else by packing them
// into a new file there, and in this process's own memory where that cannot be. The file is right
// if it was packed from these tensors: the model's fingerprint and shapes are part of its name; if
// names, sizes and times of the checkpoint's files are as they were, that is believed, else all
// bytes are compared by their hash. One process packs, others wait for it. It never fails: what
// goes wrong with the folder is in the notes.
WeightsOrigin TakeFromCache(const std::string& folder, const model::Checkpoint& checkpoint,
                            std::span<const MatrixToPack> matrices, kernels::DType compute,
                            kernels::WorkerPool& pool);

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_WEIGHTS_CACHE_H_
