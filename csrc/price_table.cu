// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "device.cuh"
#include "price_sums.cuh"
#include "price_table.h"

namespace sprout {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;  // prompts of one upload

// The place of each level of `count` prompts among the cheapest.
__global__ void lay_costs(const __grid_constant__ Laid laid, const double* from, std::size_t first,
                          std::size_t count, double* scores, std::uint32_t* order,
                          std::uint32_t* place) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const std::uint32_t levels = laid.levels;
  const double* const own = from + i * levels;
  std::uint32_t which = 0, places = 0;
  for (std::uint32_t l = 0; l < levels; ++l) {
    std::uint32_t before = 0;
    for (std::uint32_t m = 0; m < levels; ++m)
      before += own[m] < own[l] || (own[m] == own[l] && m < l);
    which |= l << (4 * before);
    places |= before << (4 * l);
    scores[laid.at(before, first + i)] = own[l];
  }
  order[first + i] = which;
  place[i] = places;
}

__global__ void lay_gains(const __grid_constant__ Laid laid, const double* from,
                          const std::uint32_t* place, std::uint32_t row, std::size_t first,
                          std::size_t count, double* scores) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  for (std::uint32_t l = 0; l < laid.levels; ++l) {
    const std::uint32_t before = place[i] >> (4 * l) & 15U;
    scores[laid.at((1 + row) * laid.levels + before, first + i)] = from[i * laid.levels + l];
  }
}

__global__ void lay_weights(const __grid_constant__ Laid laid, const double* from,
                            std::size_t first, std::size_t count, double* scores) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) scores[laid.at((1 + laid.rows) * laid.levels, first + i)] = from[i];
}

__global__ void choose_kernel(const __grid_constant__ Laid laid, const double* prices,
                              unsigned vectors, std::uint8_t* out) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= laid.prompts) return;
  for (unsigned k = 0; k < vectors; ++k) {
    unsigned found = 0;
    double least = 0.0;
    for (unsigned l = 0; l < laid.levels; ++l) {
      double reduced = laid.scores[laid.at(l, i)];
      for (unsigned r = 0; r < laid.rows; ++r)
        reduced = __dsub_rn(reduced, __dmul_rn(prices[k * laid.rows + r],
                                               laid.scores[laid.at((1 + r) * laid.levels + l, i)]));
      if (l == 0 || reduced < least) {
        least = reduced;
        found = l;
      }
    }
    out[k * laid.prompts + i] = static_cast<std::uint8_t>(laid.order[i] >> (4 * found) & 15U);
  }
}

unsigned grid_for(std::size_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

template <typename T>
void upload(T* to, const T* from, std::size_t count) {
  check(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
}

// Kept from pass to pass: to ask for memory takes longer than many a pass.
struct Scratch {
  double* of(std::size_t count) {
    if (count > size) {
      array = DeviceArray<double>(count);
      size = count;
    }
    return array.get();
  }
  DeviceArray<double> array;
  std::size_t size = 0;
};

class CudaTable final : public PriceTable {
 public:
  explicit CudaTable(const Scores& scores) : PriceTable(scores) {
    if (rows() > kMostRowsOnCuda) throw std::invalid_argument("rows: 1 to 8 on CUDA");
    need_device();
    const std::size_t n = prompts(), width = levels();
    const std::size_t tiles = (n + kThreads - 1) / kThreads * kWarps;
    laid_ = {n, tiles, levels(), rows(), scores.weights != nullptr, nullptr, nullptr};
    const std::size_t last = kWarps * laid_.numbers() * kLanes, all = tiles / kWarps * last;
    scores_ = DeviceArray<double>(all);
    order_ = DeviceArray<std::uint32_t>(n);
    check(cudaMemset(scores_.get() + all - last, 0, last * sizeof(double)), "cudaMemset");
    const std::size_t most = std::min(n, kPiece);
    const DeviceArray<double> piece(most * width);
    const DeviceArray<std::uint32_t> place(most);
    for (std::size_t first = 0; first < n; first += kPiece) {
      const std::size_t count = std::min(n - first, kPiece);
      upload(piece.get(), scores.costs + first * width, count * width);
      lay_costs<<<grid_for(count), kThreads>>>(laid_, piece.get(), first, count, scores_.get(),
                                               order_.get(), place.get());
      check(cudaGetLastError(), "lay_costs");
      for (std::uint32_t r = 0; r < rows(); ++r) {
        upload(piece.get(), scores.gains[r] + first * width, count * width);
        lay_gains<<<grid_for(count), kThreads>>>(laid_, piece.get(), place.get(), r, first, count,
                                                 scores_.get());
        check(cudaGetLastError(), "lay_gains");
      }
      if (!laid_.weighted) continue;
      upload(piece.get(), scores.weights + first, count);
      lay_weights<<<grid_for(count), kThreads>>>(laid_, piece.get(), first, count, scores_.get());
      check(cudaGetLastError(), "lay_weights");
    }
    check(cudaGetDevice(&device_), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device_),
          "cudaDeviceGetAttribute");
    check(cudaDeviceSynchronize(), "lay_gains");
    laid_.scores = scores_.get();
    laid_.order = order_.get();
  }

  double device_seconds() override {
    const std::lock_guard turn(one_at_a_time_);
    return timed_ ? watch_.seconds() : 0.0;
  }

 private:
  void sum(std::span<const double> prices, std::span<double> out) override {
    const std::lock_guard turn(one_at_a_time_);
    check(cudaSetDevice(device_), "cudaSetDevice");
    const std::size_t vectors = prices.size() / rows();
    const Way way = way_of(levels(), rows(), vectors);
    // Warps by vectors: a power of two, at most all of a block, again and again for the rest.
    unsigned groups = way.tiles == 0 ? 1 : kWarps / way.tiles;
    while (groups < kWarps && groups * way.prices < vectors) groups *= 2;
    const std::size_t together = groups * way.prices;
    const std::size_t values = together * (1 + way.rows);
    const std::size_t rounds = (vectors + together - 1) / together;
    const std::size_t of_block = way.tiles == 0 ? kWarps / groups : way.tiles;  // tiles
    const std::size_t room = kStages * way.tiles * laid_.numbers() * kLanes * sizeof(double);
    int resident = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, way.kernel, kThreads, room),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const auto blocks = static_cast<unsigned>(std::min<std::size_t>(
        laid_.tiles / of_block, static_cast<std::size_t>(processors_ * std::max(resident, 1))));
    // Filled up with the last vector.
    std::vector<double> given(prices.begin(), prices.end());
    for (std::size_t k = vectors; k < rounds * together; ++k)
      given.insert(given.end(), prices.end() - rows(), prices.end());
    double* const there = prices_.of(given.size());
    double* const parts = parts_.of(blocks * values);
    double* const found = found_.of(rounds * values);
    upload(there, given.data(), given.size());
    watch_.start(nullptr);
    for (std::size_t round = 0; round < rounds; ++round) {
      way.kernel<<<blocks, kThreads, room>>>(laid_, there + round * together * rows(), groups,
                                             parts);
      check(cudaGetLastError(), "sum_kernel");
      add_kernel<<<static_cast<unsigned>(values), kThreads>>>(parts, blocks,
                                                              found + round * values);
      check(cudaGetLastError(), "add_kernel");
    }
    watch_.stop(nullptr);
    timed_ = true;
    std::vector<double> wide(rounds * values);
    check(cudaMemcpy(wide.data(), found, wide.size() * sizeof(double), cudaMemcpyDeviceToHost),
          "sum_kernel");
    for (std::size_t k = 0; k < vectors; ++k)
      std::copy_n(wide.begin() + static_cast<std::ptrdiff_t>(k * (1 + way.rows)), 1 + rows(),
                  out.begin() + static_cast<std::ptrdiff_t>(k * (1 + rows())));
  }

  void take(std::span<const double> prices, std::span<std::uint8_t> out) override {
    const std::lock_guard turn(one_at_a_time_);
    check(cudaSetDevice(device_), "cudaSetDevice");
    const std::size_t n = prompts(), vectors = prices.size() / rows();
    const DeviceArray<double> there(prices.size());
    upload(there.get(), prices.data(), prices.size());
    const std::size_t most = std::max<std::size_t>(1, (std::size_t{64} << 20) / n);
    const DeviceArray<std::uint8_t> found(std::min(most, vectors) * n);
    for (std::size_t first = 0; first < vectors; first += most) {
      const std::size_t count = std::min(most, vectors - first);
      choose_kernel<<<grid_for(n), kThreads>>>(laid_, there.get() + first * rows(),
                                               static_cast<unsigned>(count), found.get());
      check(cudaGetLastError(), "choose_kernel");
      check(cudaMemcpy(out.data() + first * n, found.get(), count * n, cudaMemcpyDeviceToHost),
            "choose_kernel");
    }
  }

  DeviceArray<double> scores_;
  DeviceArray<std::uint32_t> order_;
  Laid laid_{};
  int device_ = 0, processors_ = 0;
  Scratch prices_, parts_, found_;
  std::mutex one_at_a_time_;
  Stopwatch watch_;
  bool timed_ = false;
};

}  // namespace

std::unique_ptr<PriceTable> price_table_cuda(const Scores& scores) {
  need_device();
  return std::make_unique<CudaTable>(scores);
}

}  // namespace sprout
