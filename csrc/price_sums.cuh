// SPDX-License-Identifier: Apache-2.0
//
// How price_table.cu's scores lie, and what sums them. A pass reads each number once: the warps of
// a block share its prompts and divide up the prices, so that sums stay in registers.
#pragma once

#include <cuda_pipeline.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace sprout {
namespace {

constexpr unsigned kLanes = 32, kWarps = 8, kThreads = kLanes * kWarps;
constexpr unsigned kAll = 0xFFFFFFFF;

// In tiles of a warp's prompts, a tile's numbers side by side. Each prompt's levels lie from the
// cheapest on, so that no tie needs a second look. Filled up to whole tiles, a multiple of kWarps,
// with prompts that cost and gain nothing.
struct Laid {
  std::size_t prompts, tiles;
  std::uint32_t levels, rows;
  bool weighted;
  const double* scores;        // (tiles, numbers, kLanes): L costs, R times L gains, the weight
  const std::uint32_t* order;  // (n,) four bits a level: which it was

  __host__ __device__ std::size_t numbers() const {
    return std::size_t{1 + rows} * levels + (weighted ? 1 : 0);
  }
  __device__ std::size_t at(std::size_t number, std::size_t prompt) const {
    return (prompt / kLanes * numbers() + number) * kLanes + prompt % kLanes;
  }
};

// Sums of a block's warps, of which `groups` divide up the price vectors: parts (blocks, vectors,
// 1 + kRows).
template <unsigned kPrices, unsigned kRows>
__device__ void hand_over(const double (&sum)[kPrices][1 + kRows], unsigned groups, double* parts) {
  constexpr unsigned kValues = kPrices * (1 + kRows);
  __shared__ double shared[kWarps][kValues];
  const unsigned lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, many = kWarps / groups;
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

struct Taken {
  double least, cost, gain;
};

// Of kCount levels from kFirst on the one to take, of the tied the first. Two by two: as many
// comparisons as one after the other, fewer selections (half of them under a predicate), shorter
// chains. With one row nothing is ever not a number, so that the order can't matter.
template <unsigned kFirst, unsigned kCount, unsigned kLevels>
__device__ __forceinline__ Taken take(const double (&cost)[kLevels], const double (&gain)[kLevels],
                                      double price) {
  if constexpr (kCount == 1) {  // not fused: NumPy's and the CPU's bits
    return {__dsub_rn(cost[kFirst], __dmul_rn(price, gain[kFirst])), cost[kFirst], gain[kFirst]};
  } else {
    constexpr unsigned kHalf = kCount > 4 ? 4 : (kCount + 1) / 2;
    const Taken early = take<kFirst, kHalf>(cost, gain, price);
    const Taken late = take<kFirst + kHalf, kCount - kHalf>(cost, gain, price);
    const bool later = late.least < early.least;
    return {later ? late.least : early.least, later ? late.cost : early.cost,
            later ? late.gain : early.gain};
  }
}

constexpr unsigned kStages = 2;
// Tiles of one copy to shared memory, so that two fit into what every GPU gives a block.
template <unsigned kLevels>
constexpr unsigned kTilesFor = kLevels <= 4 ? kWarps : kWarps / 2;

// One row. A block copies tiles to shared memory, the next while these are counted: the compiler
// moves a load into registers behind the sums that it should go under way before. Of its warps
// `groups` divide up the prices, kPrices each; the others divide up the tiles.
template <unsigned kLevels, unsigned kPrices>
__global__ __launch_bounds__(kThreads,
                             kPrices == 1 ? 4 : 2) void sum_row(const __grid_constant__ Laid laid,
                                                                const double* prices,
                                                                unsigned groups, double* parts) {
  constexpr unsigned kTiles = kTilesFor<kLevels>;
  extern __shared__ double2 room[];  // (kStages, kTiles, numbers, kLanes / 2)
  const unsigned lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const unsigned group = warp % groups, part = warp / groups, many = kWarps / groups;
  double price[kPrices], sum[kPrices][2] = {};
#pragma unroll
  for (unsigned k = 0; k < kPrices; ++k) price[k] = prices[group * kPrices + k];
  const unsigned tile = (2 * kLevels + (laid.weighted ? 1 : 0)) * kLanes;  // numbers of one
  const unsigned size = kTiles * tile / 2;                                 // pairs of one piece
  const auto pieces = static_cast<unsigned>(laid.tiles / kTiles);
  const auto copy = [&](unsigned piece, unsigned stage) {
    if (piece < pieces) {
      const double2* const from =
          reinterpret_cast<const double2*>(laid.scores) + std::size_t{piece} * size;
#pragma unroll 4
      for (unsigned i = threadIdx.x; i < size; i += kThreads)
        __pipeline_memcpy_async(room + stage * size + i, from + i, sizeof(double2));
    }
    __pipeline_commit();
  };
  unsigned stage = 0;
  copy(blockIdx.x, stage);
  for (unsigned piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this piece is there, and nobody reads the one before it any more
    copy(piece + gridDim.x, 1 - stage);
    const double* const here = reinterpret_cast<const double*>(room + stage * size) + lane;
#pragma unroll 1
    for (unsigned t = part; t < kTiles; t += many) {
      const double* const own = here + t * tile;
      double cost[kLevels], gain[kLevels];
#pragma unroll
      for (unsigned l = 0; l < kLevels; ++l) {
        cost[l] = own[l * kLanes];
        gain[l] = own[(kLevels + l) * kLanes];
      }
      const double weight = laid.weighted ? own[2 * kLevels * kLanes] : 1.0;
#pragma unroll
      for (unsigned k = 0; k < kPrices; ++k) {
        const Taken taken = take<0, kLevels>(cost, gain, price[k]);
        sum[k][0] = fma(weight, taken.cost, sum[k][0]);
        sum[k][1] = fma(weight, taken.gain, sum[k][1]);
      }
    }
    stage = 1 - stage;
  }
  hand_over<kPrices, 1>(sum, groups, parts);
}

// A prompt's numbers in registers. kLevels and kRows are the least that the table fits into: what
// is beyond its own is never taken, and free.
template <unsigned kLevels, unsigned kRows>
struct Prompt {
  double cost[kLevels], gain[kRows][kLevels], weight;

  __device__ void read(const Laid& laid, std::size_t i) {
    const double* const own = laid.scores + laid.at(0, i);
#pragma unroll
    for (unsigned l = 0; l < kLevels; ++l)
      cost[l] = l < laid.levels ? __ldg(own + l * kLanes) : HUGE_VAL;
#pragma unroll
    for (unsigned r = 0; r < kRows; ++r) {
#pragma unroll
      for (unsigned l = 0; l < kLevels; ++l) {
        const bool there = r < laid.rows && l < laid.levels;
        gain[r][l] = there ? __ldg(own + ((1 + r) * laid.levels + l) * kLanes) : 0.0;
      }
    }
    weight = laid.weighted ? __ldg(own + (1 + laid.rows) * laid.levels * kLanes) : 1.0;
  }
};

// Several rows. Groups as above, each warp reads for itself: what one has read the others find in
// the first cache.
template <unsigned kLevels, unsigned kRows, unsigned kPrices>
__global__ __launch_bounds__(kThreads) void sum_rows(const __grid_constant__ Laid laid,
                                                     const double* prices, unsigned groups,
                                                     double* parts) {
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
    if (i < laid.prompts) next.read(laid, i);
#pragma unroll
    for (unsigned k = 0; k < kPrices; ++k) {
      double least = 0.0, cost = own.cost[0], gain[kRows];
#pragma unroll
      for (unsigned l = 0; l < kLevels; ++l) {
        double reduced = own.cost[l];
#pragma unroll
        for (unsigned r = 0; r < kRows; ++r)
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
  hand_over<kPrices, kRows>(sum, groups, parts);
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

using Kernel = void (*)(const Laid, const double*, unsigned, double*);

struct Way {
  Kernel kernel;
  unsigned prices, rows;  // of one thread
  unsigned tiles = 0;     // that a block copies at a time; 0: its warps read for themselves
};

// So many prices a thread that its sums stay in registers; a single one leaves room for more
// threads, and then the memory is what counts.
template <unsigned kLevels>
Way way_of_row(std::size_t vectors) {
  if (vectors == 1) return {sum_row<kLevels, 1>, 1, 1, kTilesFor<kLevels>};
  return {sum_row<kLevels, 8>, 8, 1, kTilesFor<kLevels>};
}

template <unsigned kLevels>
Way way_of_rows(std::uint32_t rows) {
  if (rows == 2) return {sum_rows<kLevels, 2, 4>, 4, 2};
  if (rows <= 4) return {sum_rows<kLevels, 4, 2>, 2, 4};
  return {sum_rows<kLevels, 8, 1>, 1, 8};
}

inline Way way_of(std::uint32_t levels, std::uint32_t rows, std::size_t vectors) {
  if (rows > 1) {
    if (levels <= 3) return way_of_rows<3>(rows);
    return levels == 4 ? way_of_rows<4>(rows) : way_of_rows<8>(rows);
  }
  constexpr Way (*ways[])(std::size_t) = {way_of_row<1>, way_of_row<2>, way_of_row<3>,
                                          way_of_row<4>, way_of_row<5>, way_of_row<6>,
                                          way_of_row<7>, way_of_row<8>};
  return ways[levels - 1](vectors);
}

}  // namespace
}  // namespace sprout
