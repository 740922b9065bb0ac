// SPDX-License-Identifier: Apache-2.0
//
// The scorer's weights as a file: what a policy's prices were set for, named by its SHA-256.
// Written by sprout_ext/weights.py, once per predictor; read by each stub, once per change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "mapping.h"
#include "scorer.h"
#include "sha256.h"

namespace sprout {

inline constexpr std::uint64_t kWeightsMagic = 0x3130535457525053;  // "SPRWTS01"
inline constexpr std::uint32_t kWeightsLayout = 1;
inline constexpr std::size_t kMostWeights = std::size_t{3} << 20;  // bytes of a file

// Little-endian. After it: scales (H,), biases (H,), second (2 L, C + 1, L + 2), all of them
// doubles, then the table (slots, H) in bytes; and nothing more.
struct WeightsHeader {
  std::uint64_t magic;
  std::uint32_t layout;
  std::uint32_t levels;   // L
  std::uint32_t classes;  // C; H = L + C
  std::uint32_t bits;     // 2^bits slots
  std::uint32_t order_count;
  std::uint32_t orders[kMostOrder];  // of grams, the rest 0
  std::uint32_t unused;              // 0
};
static_assert(sizeof(WeightsHeader) == 64);

// CorruptFile: not a whole file of this layout, or numbers that no scorer takes; says which.
Scorer scorer_of(std::span<const std::byte> bytes);

// "weights-" and the digest's 64 small hex digits.
std::string weights_name(const Digest& digest);

// The scorer of the weights of this digest in `directory`. FileError: can't be read. CorruptFile:
// as above, larger than kMostWeights, or bytes of another digest.
Scorer load_scorer(const std::string& directory, const Digest& digest);

// The scorer of those weights that are asked for, loaded when they change: some milliseconds then.
// One thread at a time.
class ScorerFile {
 public:
  explicit ScorerFile(std::string directory) : directory_(std::move(directory)) {}
  // nullptr: there is no such file, or no whole one. It is looked for once a second then.
  const Scorer* of(const Digest& digest) noexcept;

 private:
  std::string directory_;
  std::optional<Scorer> scorer_;
  Digest loaded_{}, missing_{};  // of scorer_; of the last that could not be loaded
  Watch watch_;
};

}  // namespace sprout
