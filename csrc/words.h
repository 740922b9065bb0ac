// SPDX-License-Identifier: Apache-2.0
//
// The unit of everything shared: a 64-bit atomic word. A store releases and a load acquires, so
// whoever sees a word sees all that was written before it. On x86-64 both are plain moves.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sprout {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8 && alignof(Word) == 8);
static_assert(std::endian::native == std::endian::little, "the files are little-endian");

#ifndef SPROUT_BEFORE_ACCESS  // tests/pause.h
#define SPROUT_BEFORE_ACCESS() static_cast<void>(0)
#endif

inline std::uint64_t load(const Word& word) noexcept {
  SPROUT_BEFORE_ACCESS();
  return word.load(std::memory_order_acquire);
}
inline void store(Word& word, std::uint64_t value) noexcept {
  SPROUT_BEFORE_ACCESS();
  word.store(value, std::memory_order_release);
}

inline void load_all(const Word* from, std::uint64_t* to, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) to[i] = load(from[i]);
}
inline void store_all(Word* to, const std::uint64_t* from, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store(to[i], from[i]);
}

inline std::uint64_t bits(double value) noexcept { return std::bit_cast<std::uint64_t>(value); }
inline double real(std::uint64_t word) noexcept { return std::bit_cast<double>(word); }

constexpr std::uint64_t pack(std::uint32_t low, std::uint32_t high) noexcept {
  return std::uint64_t{high} << 32 | low;
}
constexpr std::uint32_t low(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word);
}
constexpr std::uint32_t high(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 32);
}

inline constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

// splitmix64's finalizer (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix64(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// Order-sensitive fold of words into one: checksums, and the key of the draws.
constexpr std::uint64_t fold(const std::uint64_t* words, std::size_t count,
                             std::uint64_t hash = 0) noexcept {
  for (std::size_t i = 0; i < count; ++i) hash = mix64((hash + kGolden) ^ words[i]);
  return hash;
}

}  // namespace sprout
