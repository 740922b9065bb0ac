// SPDX-License-Identifier: Apache-2.0
#include "prices.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace sprout {
namespace {

void finite(std::span<const double> values, const char* what) {
  if (!std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); }))
    throw std::invalid_argument(std::string("prompt: ") + what + ": must be finite");
}

}  // namespace

Prices::Prices(const PriceSet& set, std::uint32_t levels) : set_(set), levels_(levels) {
  if (set.point_count == 0) return;
  if (set.point_count > kMaxPoints) throw std::invalid_argument("prompt: at most 4 points");
  finite(std::span(set.g_per_joule).first(levels), "g_per_joule");
  std::array<double, kMaxPoints> fractions{};
  for (std::uint32_t i = 0; i < set.point_count; ++i) {
    const PricePoint& point = set.points[i];
    finite(std::span(point.g).first(levels), "g");
    finite({&point.g_per_preference, 1}, "g_per_preference");
    if (point.g_per_preference < 0.0)
      throw std::invalid_argument("prompt: g_per_preference: must be >= 0");
    fractions[i] = point.fraction;
  }
  try {
    fractions_ = thresholds(std::span(fractions).first(set.point_count));
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("prompt: fractions as ") + error.what());
  }
}

// Sums are made in the order of the rule, so that every implementation finds the same. Costs that
// are no numbers (infinite less infinite) are never the least: level 0 at worst.
std::uint32_t Prices::cheapest(std::span<const double> scores,
                               const PricePoint& point) const noexcept {
  const auto cost = [&](std::uint32_t l) {
    return point.g[l] + set_.g_per_joule[l] * scores[levels_ + l] -
           point.g_per_preference * scores[l];
  };
  std::uint32_t best = 0;
  double least = cost(0);
  for (std::uint32_t l = 1; l < levels_; ++l) {
    if (const double here = cost(l); here < least) {
      best = l;
      least = here;
    }
  }
  return best;
}

void Prices::shares(std::span<const double> scores, std::span<double> out) const noexcept {
  std::fill(out.begin(), out.end(), 0.0);
  for (std::uint32_t i = 0; i < set_.point_count; ++i)
    out[cheapest(scores, set_.points[i])] += set_.points[i].fraction;
}

}  // namespace sprout
