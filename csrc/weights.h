// SPDX-License-Identifier: Apache-2.0
//
// The scorer's weights as a file: what a policy's prices were set for, named by its SHA-256.
// Written by sprout_ext/weights.py, once per predictor; read by each stub, once per change.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "scorer.h"
#include "words.h"

namespace sprout {

inline constexpr std::uint64_t kWeightsMagic = 0x3130535457525053;  // "SPRWTS01"
inline constexpr std::uint32_t kWeightsLayout = 1;
inline constexpr std::size_t kMostWeights = std::size_t{3} << 20;  // bytes of a file

using Digest = std::array<std::uint64_t, 4>;  // a SHA-256, its bytes in their order

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

}  // namespace sprout
