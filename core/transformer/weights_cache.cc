// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/weights_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/base/unique_fd.h"

namespace maskkv::transformer {
namespace {

using kernels::DType;
using kernels::MatrixSource;
using kernels::PackedMatrix;

constexpr std::int64_t kHashChunk = std::int64_t{16} << 20;

// Names, sizes and times of change of the files. Not inodes: the same layer of a container image
// has another one in every container. All zeros, which no stamp is, if one cannot be looked at.
std::array<std::byte, 32> StampOf(const model::Checkpoint& checkpoint) {
  Sha256 hash;
  for (const model::SafetensorsFile& file : checkpoint.files()) {
    struct stat info {};
    if (::stat(file.path().c_str(), &info) != 0) return {};
    hash.AddPart(std::filesystem::path(file.path()).filename().string());
    const std::int64_t figures[] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
    hash.AddPart(std::as_bytes(std::span(figures)));
  }
  return hash.Finish();
}

// XXH3-128 of all bytes that are packed.
std::array<std::byte, 16> ContentOf(std::span<const MatrixToPack> matrices,
                                    kernels::WorkerPool& pool) {
  std::vector<std::span<const std::byte>> chunks;
  for (const MatrixToPack& matrix : matrices) {
    for (const MatrixSource& part : matrix.parts) {
      const auto* const data = static_cast<const std::byte*>(part.data);
      const std::int64_t bytes =
          part.out * matrix.in * static_cast<std::int64_t>(kernels::SizeOf(part.dtype));
      for (std::int64_t begin = 0; begin < bytes; begin += kHashChunk) {
        const std::int64_t count = std::min(kHashChunk, bytes - begin);
        chunks.emplace_back(data + begin, static_cast<std::size_t>(count));
      }
    }
  }
  std::vector<XXH128_hash_t> hashes(chunks.size());
  pool.ParallelFor(std::ssize(chunks), [&](std::int64_t chunk, int) {
    const auto at = static_cast<std::size_t>(chunk);
    hashes[at] = XXH3_128bits(chunks[at].data(), chunks[at].size());
  });
  const XXH128_hash_t all = XXH3_128bits(hashes.data(), hashes.size() * sizeof(XXH128_hash_t));
  std::array<std::byte, 16> content;
  std::memcpy(content.data(), &all, content.size());
  return content;
}

// One process at a time makes a file. Released with the process.
class FileLock {
 public:
  explicit FileLock(const std::string& path)
      : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_CREAT, 0644)) {
    if (!file_.valid()) return;
    int failed = 0;
    while ((failed = ::flock(file_.get(), LOCK_EX)) != 0 && errno == EINTR) {
    }
    if (failed != 0) file_.Reset();
  }
  bool held() const { return file_.valid(); }

 private:
  UniqueFd file_;
};

class Cache {
 public:
  Cache(const model::Checkpoint& checkpoint, std::span<const MatrixToPack> matrices, DType compute,
        kernels::WorkerPool& pool)
      : checkpoint_(checkpoint),
        matrices_(matrices),
        pool_(pool),
        plan_(absl::StrFormat("model %s %s", checkpoint.Fingerprint(), kernels::Name(compute))) {
    for (const MatrixToPack& matrix : matrices) {
      std::int64_t out = 0;
      for (const MatrixSource& part : matrix.parts) out += part.out;
      *matrix.matrix = PackedMatrix::Plan(pool, out, matrix.in, matrix.compute);
      plan_.Add(matrix.name, matrix.matrix->Layout(), matrix.matrix->bytes());
    }
    name_ = absl::StrFormat("%s-%s-%s.packed", checkpoint.Fingerprint().substr(0, 16),
                            kernels::Name(compute), plan_.Key().substr(0, 16));
  }

  const std::string& name() const { return name_; }

  // The file, if it is right. Errors: of PackedFile::Open; FAILED_PRECONDITION for a stale one.
  absl::StatusOr<PackedFile> Open(const std::string& path) {
    MASKKV_ASSIGN_OR_RETURN(PackedFile file, PackedFile::Open(path, plan_, pool_));
    const PackedSource& packed = file.source();
    const std::array<std::byte, 32> stamp = StampOf(checkpoint_);
    const bool same_files = packed.stamp == stamp && stamp != std::array<std::byte, 32>{};
    if (!same_files && packed.content != ContentOf(matrices_, pool_)) {
      return absl::FailedPreconditionError(
          path + ": expected to be packed from this checkpoint, found another's content");
    }
    return file;
  }

  absl::Status Write(const std::string& path) {
    const std::string temporary = path + ".tmp";
    absl::Status status = WriteTemporary(temporary, path);
    if (!status.ok()) ::unlink(temporary.c_str());
    return status;
  }

  void Borrow(const PackedFile& file) const {
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
      matrices_[i].matrix->Borrow(file.At(plan_.Offset(i)));
    }
  }

 private:
  absl::Status WriteTemporary(const std::string& temporary, const std::string& path) {
    MASKKV_ASSIGN_OR_RETURN(PackedFileWriter writer, PackedFileWriter::Create(temporary, plan_));
    const PackedSource source{StampOf(checkpoint_), ContentOf(matrices_, pool_)};
    kernels::AlignedBuffer<std::byte> packed;
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
      packed.Resize(plan_.bytes(i));
      std::ranges::fill(packed.span(), std::byte{0});  // what lies between panels
      matrices_[i].matrix->PackInto(pool_, matrices_[i].parts, packed.data());
      MASKKV_RETURN_IF_ERROR(writer.Write(i, packed.data(), pool_));
    }
    if (source.stamp != StampOf(checkpoint_)) {
      return absl::AbortedError(path +
                                ": expected a checkpoint at rest, found it changed meanwhile");
    }
    return writer.Finish(source, path);
  }

  const model::Checkpoint& checkpoint_;
  const std::span<const MatrixToPack> matrices_;
  kernels::WorkerPool& pool_;
  PackedPlan plan_;
  std::string name_;
};

}  // namespace

void PackAll(std::span<const MatrixToPack> matrices, kernels::WorkerPool& pool) {
  for (const MatrixToPack& matrix : matrices) {
    *matrix.matrix = PackedMatrix::Pack(pool, matrix.parts, matrix.in, matrix.compute);
  }
}

WeightsOrigin TakeFromCache(const std::string& folder, const model::Checkpoint& checkpoint,
                            std::span<const MatrixToPack> matrices, DType compute,
                            kernels::WorkerPool& pool) {
  WeightsOrigin origin;
  Cache cache(checkpoint, matrices, compute, pool);
  origin.path = folder + "/" + cache.name();
  absl::StatusOr<PackedFile> file = cache.Open(origin.path);
  if (!file.ok()) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    const FileLock lock(origin.path + ".lock");
    if (lock.held()) file = cache.Open(origin.path);  // another process was faster
    if (!file.ok() && !absl::IsNotFound(file.status())) {
      origin.notes.emplace_back(file.status().message());
    }
    if (!file.ok() && !lock.held()) {
      origin.notes.push_back(
          absl::StrFormat("%s: expected a folder to write to, found none", folder));
    } else if (!file.ok()) {
      const absl::Status written = cache.Write(origin.path);
      if (!written.ok()) origin.notes.emplace_back(written.message());
      origin.written = written.ok();
      if (written.ok()) file = cache.Open(origin.path);
      if (written.ok() && file.ok()) file->AskForHugePages();
    }
  }
  if (!file.ok()) {
    if (origin.written) origin.notes.emplace_back(file.status().message());
    PackAll(matrices, pool);
    return origin;
  }
  origin.file = *std::move(file);
  cache.Borrow(*origin.file);
  return origin;
}

}  // namespace maskkv::transformer
