// SPDX-License-Identifier: Apache-2.0
//
// From a prompt's bytes to what each level would cost and how it would please: docs/prompt_aware.md
// has the formulae. A linear model over hashed grams makes a few heads, a small table makes of them
// preferences and energies. Nothing is allocated per text, and any bytes are a text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "grams.h"
#include "sampler.h"

namespace sprout {

inline constexpr std::uint32_t kHeadBlock = 16;  // heads of one load
inline constexpr std::uint32_t kMostHeads = 48;  // levels + classes

// What a predictor's file holds. H heads: first one per level (log energy, centred), then one per
// class (how much the text is of it).
struct ScorerWeights {
  std::uint32_t levels = 0, classes = 0;   // L, C
  std::span<const std::int8_t> table;      // (slots, H)
  std::span<const double> scales, biases;  // (H,) of the table's columns
  std::span<const double> second;          // (2 L, C + 1, L + 2)
};

class Scorer {
 public:
  // std::invalid_argument: sizes that don't fit each other or their bounds, a number not finite.
  Scorer(const Grams& grams, const ScorerWeights& weights);

  const Grams& grams() const noexcept { return grams_; }
  std::uint32_t levels() const noexcept { return levels_; }
  std::uint32_t classes() const noexcept { return classes_; }
  std::uint32_t heads() const noexcept { return levels_ + classes_; }
  std::uint32_t outputs() const noexcept { return 2 * levels_; }

  // out: (2 L,): the preference of each level, summing to 1, then the joules of each level.
  void score(std::string_view text, std::span<double> out) const noexcept;
  // The first stage alone, for fitting the second. out: (H,)
  void heads(std::string_view text, std::span<double> out) const noexcept;

 private:
  double first(std::string_view text, double* heads) const noexcept;

  Grams grams_;
  std::uint32_t levels_, classes_, blocks_;
  std::vector<std::int8_t> table_;  // (slots, 16 blocks_), the rest 0
  std::vector<double> scales_, biases_, second_;
};

}  // namespace sprout
