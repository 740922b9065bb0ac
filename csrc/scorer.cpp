// SPDX-License-Identifier: Apache-2.0
#include "scorer.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace sprout {

namespace {

void finite(std::span<const double> values, const char* what) {
  for (const double value : values) {
    if (!std::isfinite(value)) throw std::invalid_argument(what);
  }
}

// Eight heads at a time, spelled out: left to itself the compiler keeps one block in memory, which
// takes three times as long.
using Narrow = std::int8_t __attribute__((vector_size(8)));
using Wide = std::int16_t __attribute__((vector_size(16)));

// Sums of table rows. Integers: the same in whatever order.
template <std::uint32_t kBlocks>
std::uint32_t add_rows(const Folded& text, const Grams& grams, const std::int8_t* table,
                       std::int32_t* sums) noexcept {  // sums: (16 kBlocks,), zero
  constexpr std::uint32_t kWidth = kHeadBlock * kBlocks;
  constexpr std::uint32_t kFull = 256;  // rows of |x| <= 127 that 16 bits hold
  Wide part[kWidth / 8] = {};
  std::uint32_t count = 0, filled = 0;
  const auto flush = [&] {
    for (std::uint32_t i = 0; i < kWidth; ++i) sums[i] += part[i / 8][i % 8];
    for (Wide& lanes : part) lanes = Wide{};
    filled = 0;
  };
  text.each(grams, [&](std::uint32_t slot) {
    const std::int8_t* const row = table + std::size_t{slot} * kWidth;
    for (std::uint32_t i = 0; i < kWidth / 8; ++i) {
      Narrow heads;
      std::memcpy(&heads, row + 8 * i, sizeof heads);
      part[i] += __builtin_convertvector(heads, Wide);
    }
    ++count;
    if (++filled == kFull) flush();
  });
  flush();
  return count;
}

}  // namespace

Scorer::Scorer(const Grams& grams, const ScorerWeights& w)
    : grams_(grams),
      levels_(w.levels),
      classes_(w.classes),
      scales_(w.scales.begin(), w.scales.end()),
      biases_(w.biases.begin(), w.biases.end()),
      second_(w.second.begin(), w.second.end()) {
  if (levels_ < 1 || levels_ > kMaxLevels) throw std::invalid_argument("levels: 1 to 8");
  if (classes_ < 1 || classes_ > kMostHeads - levels_)
    throw std::invalid_argument("classes: at least 1, and at most 48 with the levels");
  const std::size_t h = heads();
  if (w.table.size() != grams_.slots() * h)
    throw std::invalid_argument("table: must be (slots, levels + classes)");
  if (w.scales.size() != h || w.biases.size() != h)
    throw std::invalid_argument("scales, biases: must be (levels + classes,)");
  if (w.second.size() != std::size_t{outputs()} * (classes_ + 1) * (levels_ + 2))
    throw std::invalid_argument("second: must be (2 levels, classes + 1, levels + 2)");
  finite(w.scales, "scales: must be finite");
  finite(w.biases, "biases: must be finite");
  finite(w.second, "second: must be finite");
  blocks_ = (heads() + kHeadBlock - 1) / kHeadBlock;
  const std::size_t width = std::size_t{kHeadBlock} * blocks_;
  table_.assign(grams_.slots() * width, 0);
  for (std::size_t slot = 0; slot < grams_.slots(); ++slot) {
    for (std::size_t i = 0; i < h; ++i) {
      const std::int8_t weight = w.table[slot * h + i];
      if (weight == -128) throw std::invalid_argument("table: must be in [-127, 127]");
      table_[slot * width + i] = weight;
    }
  }
}

// The logarithm of the text's length.
double Scorer::first(std::string_view text, double* out) const noexcept {
  const Folded folded(text);
  std::int32_t sums[kMostHeads] = {};
  std::uint32_t count = 0;
  switch (blocks_) {
    case 1:
      count = add_rows<1>(folded, grams_, table_.data(), sums);
      break;
    case 2:
      count = add_rows<2>(folded, grams_, table_.data(), sums);
      break;
    default:
      count = add_rows<3>(folded, grams_, table_.data(), sums);
  }
  const double root = std::sqrt(static_cast<double>(std::max(count, 1U)));
  for (std::uint32_t i = 0; i < heads(); ++i) out[i] = sums[i] * scales_[i] / root + biases_[i];
  return std::log(static_cast<double>(folded.size()) / kUsualBytes);
}

void Scorer::heads(std::string_view text, std::span<double> out) const noexcept {
  first(text, out.data());
}

void Scorer::score(std::string_view text, std::span<double> out) const noexcept {
  double head[kMostHeads], base[kMaxLevels + 2], classes[kMostHeads + 1];
  base[0] = 1.0;
  base[1] = first(text, head);
  std::copy_n(head, levels_, base + 2);
  double sum = 0.0;
  classes[0] = 1.0;
  for (std::uint32_t c = 0; c < classes_; ++c) {
    classes[c + 1] = std::max(head[levels_ + c], 0.0) + kLeastClass;
    sum += classes[c + 1];
  }
  for (std::uint32_t c = 1; c <= classes_; ++c) classes[c] /= sum;
  const std::uint32_t width = levels_ + 2;
  const double* weight = second_.data();
  for (std::uint32_t o = 0; o < outputs(); ++o) {
    double total = 0.0;
    for (std::uint32_t c = 0; c <= classes_; ++c, weight += width) {
      double inner = 0.0;
      for (std::uint32_t i = 0; i < width; ++i) inner += weight[i] * base[i];
      total += classes[c] * inner;
    }
    out[o] = total;
  }
  const double most = *std::max_element(out.begin(), out.begin() + levels_);
  double whole = 0.0;
  for (std::uint32_t i = 0; i < levels_; ++i) whole += out[i] = std::exp(out[i] - most);
  for (std::uint32_t i = 0; i < levels_; ++i) {
    out[i] /= whole;
    out[levels_ + i] = std::exp(std::clamp(out[levels_ + i], -kMostExponent, kMostExponent));
  }
}

#ifndef SPROUT_CUDA
void score_batch_cuda(const Scorer&, std::span<const std::string_view>, Stage, std::span<double>) {
  throw std::runtime_error("this build has no CUDA: build it where nvcc is found");
}
#endif

}  // namespace sprout
