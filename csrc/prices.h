// SPDX-License-Identifier: Apache-2.0
//
// Levels by prompt: what a policy asks of a prompt's joules and preference, and which level is the
// cheapest at that. The rule stands in proto/sprout/v1/control.proto, PromptPolicy.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "sampler.h"
#include "sha256.h"

namespace sprout {

inline constexpr std::size_t kMaxPoints = 4;

struct PricePoint {
  double fraction = 0.0;               // of the requests
  double g_per_preference = 0.0;       // >= 0
  std::array<double, kMaxLevels> g{};  // (levels,) whatever the prompt

  bool operator==(const PricePoint&) const = default;
};

// Zero beyond the levels of the policy and beyond the points.
struct PromptPolicy {
  Digest weights{};                              // of the scorer's weights
  double share = 0.0;                            // of the requests that have no mix of their own
  std::uint32_t point_count = 0;                 // 0: no level is chosen by its prompt
  std::array<double, kMaxLevels> g_per_joule{};  // (levels,)
  std::array<PricePoint, kMaxPoints> points{};   // fractions sum to 1

  bool operator==(const PromptPolicy&) const = default;
};

// A policy in which everything is right, ready for requests.
class Prices {
 public:
  Prices() = default;
  // No points: chooses nothing. std::invalid_argument: names the field.
  Prices(const PromptPolicy& policy, std::uint32_t levels);

  bool any() const noexcept { return share_ > 0; }
  const Digest& weights() const noexcept { return policy_.weights; }
  // Whether a draw falls to those whose prompt chooses.
  bool takes(std::uint32_t draw) const noexcept { return draw < share_; }
  // The level of a prompt. scores: (2 levels,), as of the scorer; draw: of the point.
  std::uint32_t level(std::span<const double> scores, std::uint32_t draw) const noexcept {
    return cheapest(scores, policy_.points[fractions_.level(draw)]);
  }
  // How likely each level is for a prompt. out: (levels,)
  void shares(std::span<const double> scores, std::span<double> out) const noexcept;

 private:
  std::uint32_t cheapest(std::span<const double> scores, const PricePoint& point) const noexcept;

  PromptPolicy policy_;
  std::uint32_t levels_ = 0;
  std::uint64_t share_ = 0;  // a threshold
  Thresholds fractions_;
};

}  // namespace sprout
