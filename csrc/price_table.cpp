// SPDX-License-Identifier: Apache-2.0
#include "price_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>

namespace sprout {

namespace {

void finite(const double* values, std::size_t count, const char* what) {
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) throw std::invalid_argument(std::string(what) + " not finite");
  }
}

}  // namespace

PriceTable::PriceTable(const Scores& s)
    : prompts_(s.prompts), levels_(s.levels), rows_(static_cast<std::uint32_t>(s.gains.size())) {
  if (prompts_ == 0) throw std::invalid_argument("costs: at least one prompt");
  if (levels_ < 1 || levels_ > kMaxLevels) throw std::invalid_argument("levels: 1 to 8");
  if (s.gains.empty() || s.gains.size() > kMostRows) throw std::invalid_argument("rows: 1 to 64");
  finite(s.costs, prompts_ * levels_, "costs:");
  for (const double* const gain : s.gains) finite(gain, prompts_ * levels_, "gains:");
  if (s.weights == nullptr) return;
  finite(s.weights, prompts_, "weights:");
  if (*std::min_element(s.weights, s.weights + prompts_) < 0.0)
    throw std::invalid_argument("weights: must not be negative");
}

void PriceTable::check_prices(std::span<const double> prices) const {
  if (prices.empty() || prices.size() % rows_ != 0)
    throw std::invalid_argument("prices: must be (vectors, rows)");
  finite(prices.data(), prices.size(), "prices:");
}

void PriceTable::totals(std::span<const double> prices, std::span<double> out) {
  check_prices(prices);
  if (prices.size() / rows_ > kMostPrices)
    throw std::invalid_argument("prices: at most 64 vectors");
  if (out.size() != prices.size() / rows_ * (rows_ + 1))
    throw std::invalid_argument("out: must be (vectors, 1 + rows)");
  sum(prices, out);
}

void PriceTable::choose(std::span<const double> prices, std::span<std::uint8_t> out) {
  check_prices(prices);
  if (out.size() != prices.size() / rows_ * prompts_)
    throw std::invalid_argument("out: must be (vectors, prompts)");
  take(prices, out);
}

namespace {

// Prompts side by side: vector code of whatever width the machine has.
constexpr std::size_t kLanes = 8;
using Lanes = double __attribute__((vector_size(8 * kLanes)));
using Mask = std::int64_t __attribute__((vector_size(8 * kLanes)));

constexpr std::size_t kBlock = 256;      // prompts that stay in the first cache for all prices
constexpr std::size_t kChunk = 1 << 14;  // prompts of one partial sum, so that the order of sums
                                         // does not depend on the number of threads
static_assert(kBlock % kLanes == 0 && kChunk % kBlock == 0);

// Each prompt's levels from the cheapest on, so that the first of the tied is the one to take; and
// each level's numbers side by side. Padded to whole blocks with prompts that weigh nothing.
struct Laid {
  std::size_t prompts, padded;
  std::uint32_t levels, rows;
  std::vector<double> costs;         // (L, padded)
  std::vector<double> gains;         // (R, L, padded)
  std::vector<double> weights;       // (padded,)
  std::vector<std::uint32_t> order;  // (padded,) four bits a level: which it was
};

struct Pass {
  const Laid* laid;
  std::span<const double> prices;
  std::size_t first, last;  // prompts, whole blocks
};

// By reference: a value of this width is returned in other ways by other instruction sets.
[[gnu::always_inline]] inline void load(Lanes& to, const double* from) {
  __builtin_memcpy(&to, from, sizeof to);
}

// kRows: 0 for a number known at run time only.
template <std::uint32_t kRows>
[[gnu::always_inline]] inline void sum_any(const Pass& pass, double* out) {
  const Laid& laid = *pass.laid;
  const std::uint32_t rows = kRows ? kRows : laid.rows;
  constexpr std::uint32_t most = kRows ? kRows : kMostRows;
  const std::size_t vectors = pass.prices.size() / rows;
  for (std::size_t block = pass.first; block < pass.last; block += kBlock) {
    for (std::size_t k = 0; k < vectors; ++k) {
      const double* const price = pass.prices.data() + k * rows;
      Lanes total_cost{}, total_gain[most] = {};
      for (std::size_t i = block; i < block + kBlock; i += kLanes) {
        const double* cost_at = laid.costs.data() + i;
        Lanes cost, gain[most];
        load(cost, cost_at);
        Lanes least = cost;
        for (std::uint32_t r = 0; r < rows; ++r) {
          load(gain[r], laid.gains.data() + std::size_t{r} * laid.levels * laid.padded + i);
          least -= price[r] * gain[r];
        }
        for (std::uint32_t l = 1; l < laid.levels; ++l) {
          cost_at += laid.padded;
          Lanes other, own[most];
          load(other, cost_at);
          Lanes reduced = other;
          for (std::uint32_t r = 0; r < rows; ++r) {
            load(own[r], laid.gains.data() + (std::size_t{r} * laid.levels + l) * laid.padded + i);
            reduced -= price[r] * own[r];
          }
          const Mask better = reduced < least;
          least = better ? reduced : least;
          cost = better ? other : cost;
          for (std::uint32_t r = 0; r < rows; ++r) gain[r] = better ? own[r] : gain[r];
        }
        Lanes weight;
        load(weight, laid.weights.data() + i);
        total_cost += weight * cost;
        for (std::uint32_t r = 0; r < rows; ++r) total_gain[r] += weight * gain[r];
      }
      double* const to = out + k * (rows + 1);
      for (std::size_t j = 0; j < kLanes; ++j) to[0] += total_cost[j];
      for (std::uint32_t r = 0; r < rows; ++r) {
        for (std::size_t j = 0; j < kLanes; ++j) to[r + 1] += total_gain[r][j];
      }
    }
  }
}

// One body, compiled for each instruction set, as in sampler.cpp.
[[gnu::always_inline]] inline void sum_rows(const Pass& pass, double* out) {
  switch (pass.laid->rows) {
    case 1:
      return sum_any<1>(pass, out);
    case 2:
      return sum_any<2>(pass, out);
    default:
      return sum_any<0>(pass, out);
  }
}

using Sum = void (*)(const Pass&, double*);

void sum_baseline(const Pass& pass, double* out) { sum_rows(pass, out); }

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx2")]] void sum_avx2(const Pass& pass, double* out) { sum_rows(pass, out); }
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")]] void sum_avx512(
    const Pass& pass, double* out) {
  sum_rows(pass, out);
}
Sum pick() noexcept {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return sum_avx512;
  return __builtin_cpu_supports("avx2") ? sum_avx2 : sum_baseline;
}
#else
Sum pick() noexcept { return sum_baseline; }
#endif

const Sum sum_blocks = pick();

class CpuTable final : public PriceTable {
 public:
  CpuTable(const Scores& scores, unsigned threads)
      : PriceTable(scores), threads_(std::max(threads, 1U)) {
    laid_.prompts = prompts();
    laid_.padded = (prompts() + kBlock - 1) / kBlock * kBlock;
    laid_.levels = levels();
    laid_.rows = rows();
    laid_.costs.assign(levels() * laid_.padded, 0.0);
    laid_.gains.assign(std::size_t{rows()} * levels() * laid_.padded, 0.0);
    laid_.weights.assign(laid_.padded, 0.0);
    laid_.order.assign(laid_.padded, 0);
    in_parts([&](std::size_t chunk) {
      const std::size_t last = std::min((chunk + 1) * kChunk, prompts());
      for (std::size_t i = chunk * kChunk; i < last; ++i) lay(scores, i);
    });
  }

 private:
  void lay(const Scores& scores, std::size_t i) {
    std::array<std::uint32_t, kMaxLevels> order{};
    for (std::uint32_t l = 0; l < levels(); ++l) order[l] = l;
    const double* const cost = scores.costs + i * levels();
    std::stable_sort(order.begin(), order.begin() + levels(),
                     [cost](std::uint32_t a, std::uint32_t b) { return cost[a] < cost[b]; });
    for (std::uint32_t l = 0; l < levels(); ++l) {
      laid_.costs[l * laid_.padded + i] = cost[order[l]];
      laid_.order[i] |= order[l] << (4 * l);
      for (std::uint32_t r = 0; r < rows(); ++r)
        laid_.gains[(std::size_t{r} * levels() + l) * laid_.padded + i] =
            scores.gains[r][i * levels() + order[l]];
    }
    laid_.weights[i] = scores.weights == nullptr ? 1.0 : scores.weights[i];
  }

  std::size_t chunks() const { return (laid_.padded + kChunk - 1) / kChunk; }

  // work(chunk) for each, on threads_ threads.
  template <typename Work>
  void in_parts(const Work& work) const {
    const std::size_t many = std::min<std::size_t>(threads_, chunks());
    const auto part = [&](std::size_t t) {
      for (std::size_t chunk = chunks() * t / many; chunk < chunks() * (t + 1) / many; ++chunk)
        work(chunk);
    };
    std::vector<std::jthread> others;
    for (std::size_t t = 1; t < many; ++t) others.emplace_back(part, t);
    part(0);
  }

  void sum(std::span<const double> prices, std::span<double> out) override {
    std::vector<double> parts(chunks() * out.size(), 0.0);
    in_parts([&](std::size_t chunk) {
      const std::size_t last = std::min((chunk + 1) * kChunk, laid_.padded);
      sum_blocks({&laid_, prices, chunk * kChunk, last}, parts.data() + chunk * out.size());
    });
    std::fill(out.begin(), out.end(), 0.0);
    for (std::size_t i = 0; i < parts.size(); ++i) out[i % out.size()] += parts[i];
  }

  void take(std::span<const double> prices, std::span<std::uint8_t> out) override {
    const std::size_t vectors = prices.size() / rows();
    in_parts([&](std::size_t chunk) {
      const std::size_t last = std::min((chunk + 1) * kChunk, prompts());
      for (std::size_t k = 0; k < vectors; ++k) {
        for (std::size_t i = chunk * kChunk; i < last; ++i)
          out[k * prompts() + i] = level(i, prices.subspan(k * rows(), rows()));
      }
    });
  }

  std::uint8_t level(std::size_t i, std::span<const double> price) const {
    std::uint32_t found = 0;
    double least = 0.0;
    for (std::uint32_t l = 0; l < levels(); ++l) {
      double reduced = laid_.costs[l * laid_.padded + i];
      for (std::uint32_t r = 0; r < rows(); ++r)
        reduced -= price[r] * laid_.gains[(std::size_t{r} * levels() + l) * laid_.padded + i];
      if (l == 0 || reduced < least) {
        least = reduced;
        found = l;
      }
    }
    return laid_.order[i] >> (4 * found) & 15U;
  }

  unsigned threads_;
  Laid laid_;
};

}  // namespace

std::unique_ptr<PriceTable> price_table(const Scores& scores, unsigned threads) {
  return std::make_unique<CpuTable>(scores, threads);
}

#ifndef SPROUT_CUDA
std::unique_ptr<PriceTable> price_table_cuda(const Scores&) {
  throw std::runtime_error("this build has no CUDA: build it where nvcc is found");
}
#endif

}  // namespace sprout
