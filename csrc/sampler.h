// SPDX-License-Identifier: Apache-2.0
//
// From shares and a counter to a level. Floating point ends at the thresholds: from there on all
// is integer, so every implementation gives the same levels.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace sprout {

inline constexpr std::size_t kMaxLevels = 8;
inline constexpr std::uint64_t kOne = std::uint64_t{1} << 32;  // a share of 1

enum class Stream : std::uint32_t {
  kLevel = 0,
  kControl = 1,
  kCanary = 2,
  kSample = 3,
  kPrompt = 4,
  kPoint = 5,
};

// Key of the Philox draws of one stub process under one policy.
std::uint64_t fold_key(std::uint64_t policy_seed, std::uint64_t node_id, std::uint64_t boot_epoch,
                       std::uint32_t stub_index) noexcept;

// A share in [0, 1] on the scale of a draw, rounded.
std::uint64_t threshold(double share) noexcept;

// Cumulated shares on the scale of a draw. The last is 2^32 exactly, so each draw finds a level.
struct Thresholds {
  Thresholds() { upper.fill(kOne); }
  std::array<std::uint64_t, kMaxLevels> upper;  // (levels,), the rest 2^32
  std::uint32_t levels = 0;

  // First level whose threshold lies above the draw; counted, since a branch would be a coin toss.
  std::uint32_t level(std::uint32_t draw) const noexcept {
    std::uint32_t found = 0;
    for (const std::uint64_t bound : upper) found += draw >= bound;
    return found;
  }
};

// std::invalid_argument: none or more than 8 shares, one negative or not finite, sum off 1 by more
// than 1e-6.
Thresholds thresholds(std::span<const double> shares);

// The same thresholds for vector code: those that split the range of a 32-bit draw.
struct Cuts {
  std::uint32_t at[kMaxLevels] = {};  // (count,), ascending, each in [1, 2^32)
  std::uint32_t count = 0;
  std::uint8_t base = 0;  // leading levels of share 0; level = base + how many cuts are <= draw
};
Cuts cuts(const Thresholds& thresholds) noexcept;

// Levels of the draws first … first+count-1. std::invalid_argument: first+count exceeds 2^64.
void draw_batch(const Thresholds& thresholds, std::uint64_t key, std::uint64_t first,
                std::uint32_t stream, std::span<std::uint8_t> out);  // out: (count,)

bool cuda_built() noexcept;
bool cuda_available() noexcept;
// As draw_batch, on the current CUDA device. std::runtime_error: built without CUDA, no device, or
// what the CUDA runtime said.
void draw_batch_cuda(const Thresholds& thresholds, std::uint64_t key, std::uint64_t first,
                     std::uint32_t stream, std::span<std::uint8_t> out);

}  // namespace sprout
