// SPDX-License-Identifier: Apache-2.0
//
// Packed weights from a folder: the same bits as packed in memory, one file however many load, and
// whatever lies in the folder, right weights.
#include "core/transformer/weights_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "core/transformer/packed_file_bytes.h"
#include "core/transformer/weights.h"
#include "kernels/gemm/matmul.h"
#include "tests/support/seed.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/core/model/family_checkpoints.h"

namespace maskkv::transformer {
namespace {

using kernels::DType;
using maskkv::testing::NormalValues;
using maskkv::testing::TempFolder;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteAll(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);  // a new file: an old one may be mapped
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<const kernels::PackedMatrix*> MatricesOf(const Weights& weights) {
  std::vector<const kernels::PackedMatrix*> all{&weights.head()};
  for (std::int64_t index = 0; index < weights.config().layers; ++index) {
    const LayerWeights& layer = weights.layer(index);
    all.insert(all.end(), {&layer.query, &layer.key_value, &layer.attn_out, &layer.ffn.gate_up,
                           &layer.ffn.down, &layer.router});
    for (const FfnWeights& expert : layer.experts) {
      all.insert(all.end(), {&expert.gate_up, &expert.down});
    }
  }
  std::erase_if(all, [](const kernels::PackedMatrix* matrix) { return matrix->out() == 0; });
  return all;
}

// What every matrix makes of the same random rows.
std::vector<float> ProductsOf(const Weights& weights, kernels::WorkerPool& pool) {
  constexpr std::int64_t kRows = 3;
  kernels::GemmWorkspace workspace;
  std::vector<float> all;
  for (const kernels::PackedMatrix* matrix : MatricesOf(weights)) {
    const std::vector<float> x = NormalValues(kRows * matrix->in(), 7);
    std::vector<float> y(static_cast<std::size_t>(kRows * matrix->out()));
    kernels::MatMul(pool, *matrix, x.data(), kRows, matrix->in(), y.data(), matrix->out(),
                    kernels::Store::kOverwrite, workspace);
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

class WeightsCacheTest : public ::testing::Test {
 protected:
  Weights Load(const std::string& cache, DType dtype = DType::kF32) {
    return *Weights::Load(*model::Checkpoint::Open(model_.path()),
                          {.compute = dtype, .cache_folder = cache}, pool_);
  }
  void WriteModel(const std::string& family) {
    nlohmann::json config = model::FamilyConfig(family);
    model::WriteRandomCheckpoint(model_, config, 1);
  }
  // A matrix so large that the fingerprint does not see all of it.
  void WriteWideModel() {
    nlohmann::json config = model::FamilyConfig("llada");
    config["mlp_hidden_size"] = 512;
    model::WriteRandomCheckpoint(model_, config, 1);
  }

  model::TemporaryFolder model_;
  TempFolder cache_;
  kernels::WorkerPool pool_{2};
};

TEST_F(WeightsCacheTest, EveryFamilyIsTheSameBitsFromTheFileAsFromMemory) {
  for (const std::string& family : model::FamilyNames()) {
    WriteModel(family);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Weights own = Load("", dtype);
      EXPECT_FALSE(own.origin().file.has_value());
      const Weights first = Load(cache_.path(), dtype);
      const Weights second = Load(cache_.path(), dtype);
      EXPECT_TRUE(first.origin().written);
      EXPECT_FALSE(second.origin().written);
      EXPECT_EQ(first.origin().path, second.origin().path);
      EXPECT_EQ(second.packed_bytes(), own.packed_bytes());
      for (const Weights* weights : {&first, &second}) {
        ASSERT_TRUE(weights->origin().file.has_value());
        EXPECT_TRUE(weights->origin().notes.empty());
        EXPECT_EQ(ProductsOf(*weights, pool_), ProductsOf(own, pool_)) << family;
      }
    }
  }
}

TEST_F(WeightsCacheTest, ReadersLeaveTheFileAlone) {
  WriteModel("llada");
  const std::string path = Load(cache_.path()).origin().path;
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  EXPECT_EQ(before.st_mode & 0777U & ~0444U, 0U) << "nobody may write it";
  Load(cache_.path());
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

// Damages a good file in some way; the next load says so once, has the right weights, and leaves a
// good file.
TEST_F(WeightsCacheTest, ADamagedFileIsSaidAndMadeAgain) {
  WriteModel("dream");
  const std::vector<float> expected = ProductsOf(Load(""), pool_);
  const std::string path = Load(cache_.path()).origin().path;
  const std::string good = ReadAll(path);
  PackedHeader header;
  std::memcpy(&header, good.data(), sizeof(header));
  const std::size_t description = sizeof(header) + header.description_bytes;
  const std::size_t checksums = (description + 7) / 8 * 8;
  const std::size_t payload = header.payload_offset;

  std::vector<std::string> bad;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, sizeof(header) - 1, sizeof(header), description, checksums,
        checksums + 8 * header.chunks, payload, payload + 4096, good.size() - 1}) {
    bad.push_back(good.substr(0, size));
  }
  bad.push_back(good + '\0');
  bad.emplace_back(good.size(), '\0');
  std::vector<std::size_t> flips;
  for (std::size_t at = 0; at < sizeof(header); at += 4) flips.push_back(at);
  flips.insert(flips.end(), {sizeof(header), description - 1, checksums,
                             checksums + 8 * header.chunks - 1, payload, payload + 5000});
  for (const std::size_t at : flips) {
    bad.push_back(good);
    bad.back()[at] = static_cast<char>(bad.back()[at] ^ 4);
  }
  {  // another version, whole in itself
    PackedHeader other = header;
    other.version = 2;
    const auto* const sums = reinterpret_cast<const std::uint64_t*>(good.data() + checksums);
    other.checksum = PackedHeaderChecksum(
        other, std::string_view(good).substr(sizeof(header), header.description_bytes),
        {sums, header.chunks});
    bad.push_back(good);
    std::memcpy(bad.back().data(), &other, sizeof(other));
  }
  for (std::size_t i = 0; i < bad.size(); ++i) {
    WriteAll(path, bad[i]);
    const Weights weights = Load(cache_.path());
    EXPECT_TRUE(weights.origin().written) << "case " << i;
    ASSERT_EQ(weights.origin().notes.size(), 1U) << "case " << i;
    EXPECT_NE(weights.origin().notes[0].find(path), std::string::npos);
    EXPECT_EQ(ProductsOf(weights, pool_), expected) << "case " << i;
    EXPECT_EQ(ReadAll(path), good) << "case " << i;
  }
}

TEST_F(WeightsCacheTest, EveryByteOfTheWeightsIsCheckedByOneOfItsChunks) {
  WriteModel("llada");
  const std::string path = Load(cache_.path()).origin().path;
  const std::string good = ReadAll(path);
  PackedHeader header;
  std::memcpy(&header, good.data(), sizeof(header));
  // Every section starts on a page; zeros behind its end belong to nobody.
  for (std::size_t page = header.payload_offset; page < good.size(); page += kPackedPage) {
    std::string bad = good;
    bad[page] = static_cast<char>(bad[page] ^ 1);
    WriteAll(path, bad);
    const Weights weights = Load(cache_.path());
    ASSERT_EQ(weights.origin().notes.size(), 1U) << page;
    EXPECT_NE(weights.origin().notes[0].find("checksum"), std::string::npos);
  }
}

TEST_F(WeightsCacheTest, AFileOfOtherWeightsIsRefusedWhateverItsName) {
  WriteModel("llada");
  const std::string f32 = Load(cache_.path()).origin().path;
  const std::string bf16 = Load(cache_.path(), DType::kBF16).origin().path;
  EXPECT_NE(f32, bf16);
  const std::vector<float> expected = ProductsOf(Load("", DType::kBF16), pool_);
  std::filesystem::remove(bf16);
  std::filesystem::copy_file(f32, bf16);
  const Weights of_f32 = Load(cache_.path(), DType::kBF16);
  EXPECT_EQ(of_f32.origin().notes.size(), 1U);
  EXPECT_EQ(ProductsOf(of_f32, pool_), expected);

  model::WriteRandomCheckpoint(model_, model::FamilyConfig("llada"), 2);  // other values
  const Weights second = Load(cache_.path());
  EXPECT_NE(second.origin().path, f32) << "another fingerprint";
  std::filesystem::remove(second.origin().path);
  std::filesystem::copy_file(f32, second.origin().path);
  const Weights third = Load(cache_.path());
  EXPECT_EQ(third.origin().notes.size(), 1U);
  EXPECT_EQ(ProductsOf(third, pool_), ProductsOf(second, pool_));
}

TEST_F(WeightsCacheTest, ATouchedCheckpointIsComparedAndAChangedOnePackedAgain) {
  WriteWideModel();
  const Weights first = Load(cache_.path());
  const std::string weights_file = model_.path() + "/model.safetensors";
  const timespec long_ago[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, weights_file.c_str(), long_ago, 0), 0);
  const Weights touched = Load(cache_.path());
  EXPECT_TRUE(touched.origin().notes.empty());
  EXPECT_FALSE(touched.origin().written);

  // One byte where the fingerprint does not look: between its samples of 4 KiB.
  const model::Checkpoint checkpoint = *model::Checkpoint::Open(model_.path());
  const model::SafetensorsFile& file = checkpoint.files()[0];
  const auto wide = std::ranges::find_if(file.tensors(), [](const model::TensorView& tensor) {
    return tensor.data.size() >= std::size_t{1} << 15 &&
           tensor.name.find("ff_out") != std::string::npos;
  });
  ASSERT_NE(wide, file.tensors().end());
  std::string bytes = ReadAll(weights_file);
  const std::size_t start = bytes.find(
      std::string_view(reinterpret_cast<const char*>(wide->data.data()), wide->data.size()));
  ASSERT_NE(start, std::string::npos);
  bytes[start + 6000] = static_cast<char>(bytes[start + 6000] ^ 8);
  WriteAll(weights_file, bytes);
  EXPECT_EQ(model::Checkpoint::Open(model_.path())->Fingerprint(), checkpoint.Fingerprint());
  const Weights changed = Load(cache_.path());
  EXPECT_TRUE(changed.origin().written);
  EXPECT_EQ(changed.origin().notes.size(), 1U);
  EXPECT_EQ(ProductsOf(changed, pool_), ProductsOf(Load(""), pool_));
  EXPECT_NE(ProductsOf(changed, pool_), ProductsOf(first, pool_))
      << "a mapping stays what it was when its file is replaced";
}

TEST_F(WeightsCacheTest, ManyAtOncePackOnceAndShareOneFile) {
  WriteModel("moe");
  const std::vector<float> expected = ProductsOf(Load(""), pool_);
  constexpr std::size_t kLoaders = 4;
  std::vector<std::optional<Weights>> loaded(kLoaders);
  std::vector<std::thread> threads;
  for (std::optional<Weights>& weights : loaded) {
    threads.emplace_back([&] {
      kernels::WorkerPool pool(1);
      weights = *Weights::Load(*model::Checkpoint::Open(model_.path()),
                               {.cache_folder = cache_.path()}, pool);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::int64_t writers = 0;
  for (const std::optional<Weights>& weights : loaded) {
    writers += weights->origin().written ? 1 : 0;
    EXPECT_TRUE(weights->origin().file.has_value());
    EXPECT_TRUE(weights->origin().notes.empty());
    EXPECT_EQ(ProductsOf(*weights, pool_), expected);
  }
  EXPECT_EQ(writers, 1);
}

TEST_F(WeightsCacheTest, WithoutAFolderToWriteToWeightsAreTheProcessesOwn) {
  WriteModel("llada");
  const std::vector<float> expected = ProductsOf(Load(""), pool_);
  WriteAll(cache_.File("a_file"), "");
  const Weights nowhere = Load(cache_.File("a_file") + "/below");
  EXPECT_FALSE(nowhere.origin().file.has_value());
  EXPECT_FALSE(nowhere.origin().notes.empty());
  EXPECT_EQ(ProductsOf(nowhere, pool_), expected);

  // A full disk: files may not grow past a limit.
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit full{4096, limit.rlim_max};
  auto* const handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  const Weights crowded = Load(cache_.File("full"));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(crowded.origin().file.has_value());
  ASSERT_EQ(crowded.origin().notes.size(), 1U);
  EXPECT_EQ(ProductsOf(crowded, pool_), expected);
  for (const auto& entry : std::filesystem::directory_iterator(cache_.File("full"))) {
    EXPECT_EQ(entry.path().extension(), ".lock") << entry.path();
  }
}

TEST_F(WeightsCacheTest, ALayerAloneIsAFileOfItsOwn) {
  WriteModel("dream");
  const Weights all = Load(cache_.path());
  const Weights one = *Weights::Load(*model::Checkpoint::Open(model_.path()),
                                     {.cache_folder = cache_.path(), .only_layer = 1}, pool_);
  EXPECT_NE(one.origin().path, all.origin().path);
  EXPECT_EQ(one.layer(0).query.out(), 0);
  EXPECT_EQ(one.layer(1).query.out(), all.layer(1).query.out());
  EXPECT_LT(one.packed_bytes(), all.packed_bytes());
}

}  // namespace
}  // namespace maskkv::transformer
