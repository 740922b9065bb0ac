// SPDX-License-Identifier: Apache-2.0
//
// What prompts come to at many prices at once: docs/prompt_aware.md, "The program and its prices".
// At prices y (rows,) a prompt i takes
//
//     argmin_l  c_il - sum_r y_r a_ril      the cheaper level if tied, then the lower
//
// each product and difference rounded, in the rows' order: NumPy's choices, bit for bit, here and
// on CUDA. Sums are of double precision, in an order that depends on the device alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sampler.h"

namespace sprout {

inline constexpr std::uint32_t kMostPrices = 64;     // vectors of one pass
inline constexpr std::uint32_t kMostRows = 64;       // of a table
inline constexpr std::uint32_t kMostRowsOnCuda = 8;  // which has registers for so many

// What a table is made of. n prompts, L levels, R rows.
struct Scores {
  std::size_t prompts = 0;
  std::uint32_t levels = 0;
  const double* costs = nullptr;     // (n, L)
  std::vector<const double*> gains;  // (R,) of (n, L)
  const double* weights = nullptr;   // (n,), or null: each counts 1
};

// For any number of threads; on CUDA they take turns.
class PriceTable {
 public:
  virtual ~PriceTable() = default;
  PriceTable(const PriceTable&) = delete;
  PriceTable& operator=(const PriceTable&) = delete;

  std::size_t prompts() const noexcept { return prompts_; }
  std::uint32_t levels() const noexcept { return levels_; }
  std::uint32_t rows() const noexcept { return rows_; }

  // Of each price vector the weighted sum of cost, then of each row's gain, over what is taken.
  // prices: (K, R), out: (K, 1 + R). std::invalid_argument: K is 0 or above 64, a price not finite.
  void totals(std::span<const double> prices, std::span<double> out);
  // The level that each prompt takes. prices: (K, R), out: (K, n); K as it likes.
  void choose(std::span<const double> prices, std::span<std::uint8_t> out);
  // How long the device took over the last totals, by its own clock; 0 on the CPU.
  virtual double device_seconds() { return 0.0; }

 protected:
  explicit PriceTable(const Scores& scores);
  virtual void sum(std::span<const double> prices, std::span<double> out) = 0;
  virtual void take(std::span<const double> prices, std::span<std::uint8_t> out) = 0;

 private:
  void check_prices(std::span<const double> prices) const;

  std::size_t prompts_;
  std::uint32_t levels_, rows_;
};

// Both copy the scores. std::invalid_argument: no prompt, levels not 1 to 8, rows not 1 to 64 (8 on
// CUDA), a number not finite, a weight below 0. threads: that a call works with, at least 1.
std::unique_ptr<PriceTable> price_table(const Scores& scores, unsigned threads);
// On the current CUDA device. std::runtime_error: built without CUDA, no device, no memory left.
std::unique_ptr<PriceTable> price_table_cuda(const Scores& scores);

}  // namespace sprout
