// SPDX-License-Identifier: Apache-2.0
#include "grams.h"

#include <stdexcept>

namespace sprout {

Grams::Grams(std::span<const std::uint32_t> orders, std::uint32_t bits) : bits_(bits) {
  if (orders.empty() || orders.size() > kMostOrder)
    throw std::invalid_argument("orders: 1 to 8 of them");
  if (bits < kLeastBits || bits > kMostBits) throw std::invalid_argument("bits: 4 to 20");
  for (const std::uint32_t order : orders) {
    if (order > kMostOrder || order <= (count_ == 0 ? 0 : orders_[count_ - 1]))
      throw std::invalid_argument("orders: ascending, each from 1 to 8");
    orders_[count_++] = order;
  }
}

namespace {

void fold(const char* from, std::size_t size, char* to) noexcept {
  for (std::size_t i = 0; i < size; ++i)
    to[i] = static_cast<char>(fold_byte(static_cast<std::uint8_t>(from[i])));
}

}  // namespace

Folded::Folded(std::string_view text) noexcept {
  const std::size_t whole = text.size() <= kMostBytes ? text.size() : kMostBytes / 2;
  bytes_[0] = 0;
  fold(text.data(), whole, bytes_ + 1);
  size_ = 1 + whole;
  if (whole < text.size()) {
    fold(text.data() + text.size() - kMostBytes / 2, kMostBytes / 2, bytes_ + size_);
    size_ += kMostBytes / 2;
  }
  std::memset(bytes_ + size_, 0, 1 + kMostOrder);
  ++size_;
}

std::size_t Folded::count(const Grams& grams) const noexcept {
  std::size_t sum = 0;
  for (const std::uint32_t order : grams.orders()) {
    if (order <= size_) sum += size_ - order + 1;
  }
  return sum;
}

}  // namespace sprout
