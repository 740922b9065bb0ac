// SPDX-License-Identifier: Apache-2.0
//
// Levels lie as in price_table.cpp: each prompt's from the cheapest on, each level's numbers side
// by side, so that a warp reads whole lines and no tie needs a second look. A pass reads each
// number once: the warps of a block share its prompts and divide up the prices, and what one has
// read the others find in the first cache.
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "device.cuh"
#include "price_table.h"

namespace sprout {
namespace {

constexpr unsigned kLanes = 32, kWarps = 8, kThreads = kLanes * kWarps;
constexpr unsigned kAll = 0xFFFFFFFF;
constexpr std::size_t kPiece = std::size_t{1} << 20;  // prompts of one upload

struct Laid {
  std::size_t prompts;
  std::uint32_t levels, rows;
  const double *costs, *gains, *weights;  // (L, n), (R, L, n), (n,) or null
  const std::uint32_t* order;             // (n,) four bits a level: which it was
};

// The place of each level of `count` prompts among the cheapest.
__global__ void lay_costs(const double* from, std::uint32_t levels, std::size_t prompts,
                          std::size_t first, std::size_t count, double* costs, std::uint32_t* order,
                          std::uint32_t* place) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const double* const own = from + i * levels;
  std::uint32_t which = 0, places = 0;
  for (std::uint32_t l = 0; l < levels; ++l) {
    std::uint32_t before = 0;
    for (std::uint32_t m = 0; m < levels; ++m)
      before += own[m] < own[l] || (own[m] == own[l] && m < l);
    which |= l << (4 * before);
    places |= before << (4 * l);
    costs[before * prompts + first + i] = own[l];
  }
  order[first + i] = which;
  place[i] = places;
}

__global__ void lay_gains(const double* from, const std::uint32_t* place, std::uint32_t levels,
                          std::size_t prompts, std::size_t first, std::size_t count,
                          double* gains) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  for (std::uint32_t l = 0; l < levels; ++l)
    gains[(place[i] >> (4 * l) & 15U) * prompts + first + i] = from[i * levels + l];
}

// A prompt's numbers in registers. kLevels and kRows are the least that the table fits into: what
// is beyond its own is never taken, and free.
template <unsigned kLevels, unsigned kRows>
struct Prompt {
  double cost[kLevels], gain[kRows][kLevels], weight;

  __device__ void read(const Laid& laid, std::size_t i) {
#pragma unroll
    for (unsigned l = 0; l < kLevels; ++l)
      cost[l] = l < laid.levels ? __ldg(laid.costs + l * laid.prompts + i) : HUGE_VAL;
#pragma unroll
    for (unsigned r = 0; r < kRows; ++r) {
#pragma unroll
      for (unsigned l = 0; l < kLevels; ++l) {
        const bool there = r < laid.rows && l < laid.levels;
        gain[r][l] =
            there ? __ldg(laid.gains + (std::size_t{r} * laid.levels + l) * laid.prompts + i) : 0.0;
      }
    }
    weight = laid.weights == nullptr ? 1.0 : __ldg(laid.weights + i);
  }
};

// Block b sums what its share of the prompts comes to: parts (blocks, vectors, 1 + kRows). Of its
// warps `groups` divide up the vectors, kPrices each; the others divide up the prompts.
template <unsigned kLevels, unsigned kRows, unsigned kPrices>
__global__ __launch_bounds__(kThreads,
                             kRows == 1 ? 2 : 1) void sum_kernel(const __grid_constant__ Laid laid,
                                                                 const double* prices,
                                                                 unsigned groups, double* parts) {
  constexpr unsigned kValues = kPrices * (1 + kRows);
  __shared__ double shared[kWarps][kValues];
  const unsigned lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const unsigned group = warp % groups, part = warp / groups, many = kWarps / groups;
  double price[kPrices][kRows], sum[kPrices][1 + kRows];
#pragma unroll
  for (unsigned k = 0; k < kPrices; ++k) {
#pragma unroll
    for (unsigned r = 0; r < kRows; ++r)
      price[k][r] = r < laid.rows ? prices[(group * kPrices + k) * laid.rows + r] : 0.0;
#pragma unroll
    for (unsigned v = 0; v <= kRows; ++v) sum[k][v] = 0.0;
  }
  const std::size_t step = std::size_t{gridDim.x} * many * kLanes;
  std::size_t i = (std::size_t{blockIdx.x} * many + part) * kLanes + lane;
  Prompt<kLevels, kRows> next;
  if (i < laid.prompts) next.read(laid, i);
  while (i < laid.prompts) {
    const Prompt<kLevels, kRows> own = next;
    i += step;
    if (i < laid.prompts) next.read(laid, i);  // is under way while this one is counted
#pragma unroll
    for (unsigned k = 0; k < kPrices; ++k) {
      double least = 0.0, cost = own.cost[0], gain[kRows];
#pragma unroll
      for (unsigned l = 0; l < kLevels; ++l) {
        double reduced = own.cost[l];
#pragma unroll
        for (unsigned r = 0; r < kRows; ++r)  // not fused: NumPy's and the CPU's bits
          reduced = __dsub_rn(reduced, __dmul_rn(price[k][r], own.gain[r][l]));
        const bool better = l == 0 || reduced < least;
        least = better ? reduced : least;
        cost = better ? own.cost[l] : cost;
#pragma unroll
        for (unsigned r = 0; r < kRows; ++r) gain[r] = better ? own.gain[r][l] : gain[r];
      }
      sum[k][0] = fma(own.weight, cost, sum[k][0]);
#pragma unroll
      for (unsigned r = 0; r < kRows; ++r) sum[k][1 + r] = fma(own.weight, gain[r], sum[k][1 + r]);
    }
  }
#pragma unroll
  for (unsigned k = 0; k < kPrices; ++k) {
#pragma unroll
    for (unsigned v = 0; v <= kRows; ++v) {
      double total = sum[k][v];
#pragma unroll
      for (unsigned half = kLanes / 2; half > 0; half /= 2)
        total += __shfl_xor_sync(kAll, total, half);
      if (lane == 0) shared[warp][k * (1 + kRows) + v] = total;
    }
  }
  __syncthreads();
  for (unsigned v = threadIdx.x; v < groups * kValues; v += kThreads) {
    double total = 0.0;
    for (unsigned p = 0; p < many; ++p) total += shared[p * groups + v / kValues][v % kValues];
    parts[std::size_t{blockIdx.x} * groups * kValues + v] = total;
  }
}

// Block v adds up value v of all blocks, in the same order each time.
__global__ __launch_bounds__(kThreads) void add_kernel(const double* parts, unsigned blocks,
                                                       double* out) {
  __shared__ double shared[kWarps];
  double total = 0.0;
  for (unsigned b = threadIdx.x; b < blocks; b += kThreads)
    total += parts[std::size_t{b} * gridDim.x + blockIdx.x];
  for (unsigned half = kLanes / 2; half > 0; half /= 2) total += __shfl_xor_sync(kAll, total, half);
  if (threadIdx.x % kLanes == 0) shared[threadIdx.x / kLanes] = total;
  __syncthreads();
  if (threadIdx.x != 0) return;
  total = 0.0;
  for (const double each : shared) total += each;
  out[blockIdx.x] = total;
}

__global__ void choose_kernel(const __grid_constant__ Laid laid, const double* prices,
                              unsigned vectors, std::uint8_t* out) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= laid.prompts) return;
  for (unsigned k = 0; k < vectors; ++k) {
    unsigned found = 0;
    double least = 0.0;
    for (unsigned l = 0; l < laid.levels; ++l) {
      double reduced = laid.costs[l * laid.prompts + i];
      for (unsigned r = 0; r < laid.rows; ++r)
        reduced = __dsub_rn(
            reduced, __dmul_rn(prices[k * laid.rows + r],
                               laid.gains[(std::size_t{r} * laid.levels + l) * laid.prompts + i]));
      if (l == 0 || reduced < least) {
        least = reduced;
        found = l;
      }
    }
    out[k * laid.prompts + i] = static_cast<std::uint8_t>(laid.order[i] >> (4 * found) & 15U);
  }
}

using Kernel = void (*)(const Laid, const double*, unsigned, double*);

struct Way {
  Kernel kernel;
  unsigned prices, rows;  // of one thread
};

// So many prices a thread that its sums stay in registers; a single one leaves room for more
// threads, and then the memory is what counts.
template <unsigned kLevels>
Way way_of(std::uint32_t rows, std::size_t vectors) {
  if (rows == 1 && vectors == 1) return {sum_kernel<kLevels, 1, 1>, 1, 1};
  if (rows == 1) return {sum_kernel<kLevels, 1, 8>, 8, 1};
  if (rows == 2) return {sum_kernel<kLevels, 2, 4>, 4, 2};
  if (rows <= 4) return {sum_kernel<kLevels, 4, 2>, 2, 4};
  return {sum_kernel<kLevels, 8, 1>, 1, 8};
}

Way way_of(std::uint32_t levels, std::uint32_t rows, std::size_t vectors) {
  if (levels <= 3) return way_of<3>(rows, vectors);
  return levels == 4 ? way_of<4>(rows, vectors) : way_of<8>(rows, vectors);
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
    costs_ = DeviceArray<double>(n * width);
    gains_ = DeviceArray<double>(n * width * rows());
    order_ = DeviceArray<std::uint32_t>(n);
    const std::size_t most = std::min(n, kPiece);
    const DeviceArray<double> piece(most * width);
    const DeviceArray<std::uint32_t> place(most);
    for (std::size_t first = 0; first < n; first += kPiece) {
      const std::size_t count = std::min(n - first, kPiece);
      upload(piece.get(), scores.costs + first * width, count * width);
      lay_costs<<<grid_for(count), kThreads>>>(piece.get(), levels(), n, first, count, costs_.get(),
                                               order_.get(), place.get());
      check(cudaGetLastError(), "lay_costs");
      for (std::uint32_t r = 0; r < rows(); ++r) {
        upload(piece.get(), scores.gains[r] + first * width, count * width);
        lay_gains<<<grid_for(count), kThreads>>>(piece.get(), place.get(), levels(), n, first,
                                                 count, gains_.get() + r * width * n);
        check(cudaGetLastError(), "lay_gains");
      }
    }
    if (scores.weights != nullptr) {
      weights_ = DeviceArray<double>(n);
      upload(weights_.get(), scores.weights, n);
    }
    check(cudaGetDevice(&device_), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device_),
          "cudaDeviceGetAttribute");
    check(cudaDeviceSynchronize(), "lay_gains");
    laid_ = {n, levels(), rows(), costs_.get(), gains_.get(), weights_.get(), order_.get()};
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
    unsigned groups = 1;
    while (groups < kWarps && groups * way.prices < vectors) groups *= 2;
    const std::size_t together = groups * way.prices;
    const std::size_t values = together * (1 + way.rows);
    const std::size_t rounds = (vectors + together - 1) / together;
    int resident = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, way.kernel, kThreads, 0),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const std::size_t of_block = kLanes * (kWarps / groups);
    const auto blocks = static_cast<unsigned>(
        std::min<std::size_t>((prompts() + of_block - 1) / of_block,
                              static_cast<std::size_t>(processors_ * std::max(resident, 1))));
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
      way.kernel<<<blocks, kThreads>>>(laid_, there + round * together * rows(), groups, parts);
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

  DeviceArray<double> costs_, gains_, weights_;
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
