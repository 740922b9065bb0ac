// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace sprout {
namespace {

// A copy: the bytes of a caller may lie anywhere.
std::vector<double> doubles(std::span<const std::byte>& from, std::size_t count) {
  std::vector<double> found(count);
  std::memcpy(found.data(), from.data(), count * sizeof(double));
  from = from.subspan(count * sizeof(double));
  return found;
}

// What the sizes below are computed from, so that none of them overflows.
void check(const WeightsHeader& header) {
  if (header.magic != kWeightsMagic) throw CorruptFile("weights: no weights of a scorer");
  if (header.layout != kWeightsLayout) throw CorruptFile("weights: of another layout");
  if (header.levels < 1 || header.levels > kMaxLevels || header.classes < 1 ||
      header.classes > kMostHeads - header.levels)
    throw CorruptFile("weights: levels or classes out of their bounds");
  if (header.bits < kLeastBits || header.bits > kMostBits)
    throw CorruptFile("weights: bits out of their bounds");
  const auto* const rest = header.orders + std::min(header.order_count, kMostOrder);
  if (header.order_count > kMostOrder || header.unused != 0 ||
      std::any_of(rest, header.orders + kMostOrder, [](std::uint32_t o) { return o != 0; }))
    throw CorruptFile("weights: a malformed header");
}

}  // namespace

Scorer scorer_of(std::span<const std::byte> bytes) {
  WeightsHeader header;
  if (bytes.size() > kMostWeights) throw CorruptFile("weights: more than 3 MiB");
  if (bytes.size() < sizeof header) throw CorruptFile("weights: too short");
  std::memcpy(&header, bytes.data(), sizeof header);
  check(header);
  const std::size_t levels = header.levels, classes = header.classes, heads = levels + classes;
  const std::size_t second_size = 2 * levels * (classes + 1) * (levels + 2);
  const std::size_t table_size = (std::size_t{1} << header.bits) * heads;
  if (bytes.size() != sizeof header + (2 * heads + second_size) * sizeof(double) + table_size)
    throw CorruptFile("weights: not of the size that the header names");
  bytes = bytes.subspan(sizeof header);
  const auto scales = doubles(bytes, heads), biases = doubles(bytes, heads);
  const auto second = doubles(bytes, second_size);
  const std::span table(reinterpret_cast<const std::int8_t*>(bytes.data()), table_size);
  try {
    return Scorer(Grams({header.orders, header.order_count}, header.bits),
                  {header.levels, header.classes, table, scales, biases, second});
  } catch (const std::invalid_argument& error) {
    throw CorruptFile(std::string("weights: ") + error.what());
  }
}

std::string weights_name(const Digest& digest) {
  std::string name = "weights-";
  for (const std::uint64_t word : digest) {
    for (int i = 0; i < 8; ++i) {
      const auto byte = static_cast<unsigned>(word >> 8 * i & 0xFF);
      name += "0123456789abcdef"[byte >> 4];
      name += "0123456789abcdef"[byte & 15];
    }
  }
  return name;
}

Scorer load_scorer(const std::string& directory, const Digest& digest) {
  const std::string path = directory + "/" + weights_name(digest);
  const std::vector<std::byte> bytes = read_file(path, kMostWeights);
  if (sha256(bytes) != digest) throw CorruptFile(path + ": not the bytes that its name says");
  return scorer_of(bytes);
}

const Scorer* ScorerFile::of(const Digest& digest) noexcept {
  if (scorer_ && loaded_ == digest) return &*scorer_;
  if (missing_ != digest) {
    missing_ = digest;
    watch_.restart();
  }
  if (!watch_.due()) return nullptr;
  try {
    scorer_ = load_scorer(directory_, digest);
  } catch (const std::exception&) {
    return nullptr;
  }
  loaded_ = digest;
  return &*scorer_;
}

}  // namespace sprout
