// SPDX-License-Identifier: Apache-2.0
//
// Levels by prompt: what a policy asks of a prompt's joules and preference, and which level is the
// cheapest at that. The rule stands in proto/sprout/v1/control.proto, PromptPolicy.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "sampler.h"

namespace sprout {

inline constexpr std::size_t kMaxPoints = 4;

struct PricePoint {
  double fraction = 0.0;               // of the requests
  double g_per_preference = 0.0;       // >= 0
  std::array<double, kMaxLevels> g{};  // (levels,) whatever the prompt

  bool operator==(const PricePoint&) const = default;
};

// For the requests of one mix. Zero beyond the levels of the policy and beyond the points.
struct PriceSet {
  std::uint32_t point_count = 0;                 // 0: no level is chosen by its prompt
  std::array<double, kMaxLevels> g_per_joule{};  // (levels,)
  std::array<PricePoint, kMaxPoints> points{};   // fractions sum to 1

  bool operator==(const PriceSet&) const = default;
};

// A set in which everything is right, ready for requests.
class Prices {
 public:
  Prices() = default;
  // No points: chooses nothing. std::invalid_argument: names the field.
  Prices(const PriceSet& set, std::uint32_t levels);

  bool any() const noexcept { return set_.point_count > 0; }
  // The level of a prompt. scores: (2 levels,), as of the scorer; draw: of the point.
  std::uint32_t level(std::span<const double> scores, std::uint32_t draw) const noexcept {
    return cheapest(scores, set_.points[fractions_.level(draw)]);
  }
  // How likely each level is for a prompt. out: (levels,)
  void shares(std::span<const double> scores, std::span<double> out) const noexcept;

 private:
  std::uint32_t cheapest(std::span<const double> scores, const PricePoint& point) const noexcept;

  PriceSet set_;
  std::uint32_t levels_ = 0;
  Thresholds fractions_;
};

}  // namespace sprout
