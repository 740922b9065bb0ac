// SPDX-License-Identifier: Apache-2.0
//
// What the scorer sees of a prompt: hashed n-grams of its bytes. Any bytes are a text; integers
// alone, so every implementation finds the same.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "device.h"

namespace sprout {

static_assert(std::endian::native == std::endian::little, "a gram is read as one word");

inline constexpr std::size_t kMostBytes = 4096;  // that are read: of a longer text, half from
                                                 // its beginning and half from its end
inline constexpr std::uint32_t kMostOrder = 8;   // a gram is at most one word
inline constexpr std::uint32_t kLeastBits = 4, kMostBits = 20;  // of the number of slots

// The slot of a gram of `order` bytes, the first of a word's; 2^bits slots.
SPROUT_HD std::uint32_t gram_slot(std::uint64_t word, std::uint32_t order,
                                  std::uint32_t bits) noexcept {
  std::uint64_t h = ((word << (64 - 8 * order)) | order) * 0x9E3779B97F4A7C15U;
  h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93U;
  return static_cast<std::uint32_t>(h >> (64 - bits));
}

// A byte as grams see it: A-Z small, every digit 0.
SPROUT_HD std::uint8_t fold_byte(std::uint8_t byte) noexcept {
  // By comparisons and not by a table: compilers turn it into vector code.
  const bool capital = static_cast<std::uint8_t>(byte - 'A') < 26;
  const bool digit = static_cast<std::uint8_t>(byte - '0') < 10;
  const auto small = static_cast<std::uint8_t>(byte | (capital ? 0x20 : 0));
  return digit ? std::uint8_t{'0'} : small;
}

// Which grams count. std::invalid_argument: no order or more than 8, one that is 0, above 8 or not
// above its predecessor; bits out of their bounds.
class Grams {
 public:
  Grams(std::span<const std::uint32_t> orders, std::uint32_t bits);

  std::size_t slots() const noexcept { return std::size_t{1} << bits_; }
  std::span<const std::uint32_t> orders() const noexcept { return {orders_.data(), count_}; }
  std::uint32_t bits() const noexcept { return bits_; }

  std::uint32_t slot(std::uint64_t gram, std::uint32_t order) const noexcept {
    return gram_slot(gram, order, bits_);
  }

 private:
  std::array<std::uint32_t, kMostOrder> orders_{};  // (count_,), ascending
  std::uint32_t count_ = 0, bits_;
};

// A text as grams are cut from it: A-Z small, every digit 0, and a zero byte at either end. On the
// stack: nothing is allocated.
class Folded {
 public:
  explicit Folded(std::string_view text) noexcept;
  std::size_t size() const noexcept { return size_; }  // with both ends

  // Calls visit(slot) for each gram, order by order and from the beginning to the end.
  template <typename Visit>
  void each(const Grams& grams, Visit&& visit) const {
    for (const std::uint32_t order : grams.orders()) {
      if (order > size_) break;
      for (std::size_t at = 0; at + order <= size_; ++at) {
        std::uint64_t word;
        std::memcpy(&word, bytes_ + at, sizeof word);
        visit(grams.slot(word, order));
      }
    }
  }

  // How many grams `each` visits.
  std::size_t count(const Grams& grams) const noexcept;

 private:
  std::size_t size_;
  char bytes_[kMostBytes + 2 + kMostOrder];  // the last word may reach past the end
};

}  // namespace sprout
