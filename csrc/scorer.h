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
inline constexpr double kUsualBytes = 256.0;     // the length whose logarithm counts as 0
inline constexpr double kLeastClass = 1e-3;      // so that classes never sum to 0
inline constexpr double kMostExponent = 60.0;    // of joules: e^60 is beyond any request

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

  // As they are computed with; the table is (slots, 16 * ceil(H / 16)), what is beyond H is 0.
  std::span<const std::int8_t> table() const noexcept { return table_; }
  std::span<const double> scales() const noexcept { return scales_; }
  std::span<const double> biases() const noexcept { return biases_; }
  std::span<const double> second() const noexcept { return second_; }

 private:
  double first(std::string_view text, double* heads) const noexcept;

  Grams grams_;
  std::uint32_t levels_, classes_, blocks_;
  std::vector<std::int8_t> table_;  // (slots, 16 blocks_), the rest 0
  std::vector<double> scales_, biases_, second_;
};

// Both stages, or the first alone, of many texts on the current CUDA device: heads are the same
// bits, scores differ by what exp, log and the order of sums do. out: (n, 2 L) or (n, H).
// std::runtime_error: built without CUDA, no device, or what the CUDA runtime said.
enum class Stage { kHeads, kScores };
void score_batch_cuda(const Scorer& scorer, std::span<const std::string_view> texts, Stage stage,
                      std::span<double> out);

}  // namespace sprout
