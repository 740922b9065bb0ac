// SPDX-License-Identifier: Apache-2.0
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "philox.h"
#include "words.h"

namespace sprout {

std::uint64_t fold_key(std::uint64_t policy_seed, std::uint64_t node_id, std::uint64_t boot_epoch,
                       std::uint32_t stub_index) noexcept {
  const std::uint64_t words[] = {policy_seed, node_id, boot_epoch, stub_index};
  return fold(words, std::size(words));
}

std::uint64_t threshold(double share) noexcept {
  if (!(share > 0.0)) return 0;
  if (share >= 1.0) return kOne;
  return static_cast<std::uint64_t>(std::nearbyint(share * static_cast<double>(kOne)));
}

Thresholds thresholds(std::span<const double> shares) {
  if (shares.empty()) throw std::invalid_argument("shares: at least one level is needed");
  if (shares.size() > kMaxLevels) throw std::invalid_argument("shares: at most 8 levels");
  Thresholds result;
  double sum = 0.0;
  for (const double share : shares) {
    if (!std::isfinite(share) || share < 0.0)
      throw std::invalid_argument("shares: each must be a finite number >= 0");
    sum += share;
    result.upper[result.levels++] = threshold(sum);
  }
  if (std::abs(sum - 1.0) > 1e-6) throw std::invalid_argument("shares: must sum to 1");
  result.upper[result.levels - 1] = kOne;
  return result;
}

Cuts cuts(const Thresholds& thresholds) noexcept {
  Cuts result;
  for (std::uint32_t i = 0; i + 1 < thresholds.levels; ++i) {
    const std::uint64_t upper = thresholds.upper[i];
    if (upper == 0) {
      ++result.base;
    } else if (upper < kOne) {
      result.at[result.count++] = static_cast<std::uint32_t>(upper);
    }
  }
  return result;
}

namespace {

// Philox over lanes: a fixed inner loop that compilers turn into vector code of any width.
constexpr std::uint32_t kLanes = 32;  // blocks at a time, 128 draws

template <std::uint32_t kCuts>
[[gnu::always_inline]] inline void draw_lanes(const Cuts& cuts, std::uint64_t key,
                                              std::uint64_t block, std::uint32_t stream,
                                              std::uint8_t* out) {  // out: (4 * kLanes,)
  std::uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    c0[i] = low(block + i);
    c1[i] = high(block + i);
    c2[i] = stream;
    c3[i] = 0;
  }
  std::uint32_t k0 = low(key), k1 = high(key);
  for (int round = 0; round < 10; ++round) {
    for (std::uint32_t i = 0; i < kLanes; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0[i];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2[i];
      c0[i] = high(p1) ^ c1[i] ^ k0;
      c1[i] = low(p1);
      c2[i] = high(p0) ^ c3[i] ^ k1;
      c3[i] = low(p0);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  // A lane's four levels are the four bytes of one 32-bit word of the output.
  std::uint32_t levels[kLanes];
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    std::uint32_t l0 = cuts.base, l1 = cuts.base, l2 = cuts.base, l3 = cuts.base;
    for (std::uint32_t j = 0; j < kCuts; ++j) {
      l0 += c0[i] >= cuts.at[j];
      l1 += c1[i] >= cuts.at[j];
      l2 += c2[i] >= cuts.at[j];
      l3 += c3[i] >= cuts.at[j];
    }
    levels[i] = l0 | l1 << 8 | l2 << 16 | l3 << 24;
  }
  std::memcpy(out, levels, sizeof levels);
}

template <std::uint32_t kCuts>
[[gnu::always_inline]] inline void draw_blocks(const Cuts& cuts, std::uint64_t key,
                                               std::uint64_t block, std::uint32_t stream,
                                               std::uint8_t* out, std::size_t strides) {
  const Cuts local = cuts;
  for (std::size_t i = 0; i < strides; ++i)
    draw_lanes<kCuts>(local, key, block + i * kLanes, stream, out + i * 4 * kLanes);
}

// One body, compiled for each instruction set; which one runs is decided once, at run time, so a
// binary of the baseline architecture is as fast as the machine allows.
[[gnu::always_inline]] inline void draw_any(const Cuts& cuts, std::uint64_t key,
                                            std::uint64_t block, std::uint32_t stream,
                                            std::uint8_t* out, std::size_t strides) {
  switch (cuts.count) {
    case 0:
      return draw_blocks<0>(cuts, key, block, stream, out, strides);
    case 1:
      return draw_blocks<1>(cuts, key, block, stream, out, strides);
    case 2:
      return draw_blocks<2>(cuts, key, block, stream, out, strides);
    case 3:
      return draw_blocks<3>(cuts, key, block, stream, out, strides);
    case 4:
      return draw_blocks<4>(cuts, key, block, stream, out, strides);
    case 5:
      return draw_blocks<5>(cuts, key, block, stream, out, strides);
    case 6:
      return draw_blocks<6>(cuts, key, block, stream, out, strides);
    default:
      return draw_blocks<7>(cuts, key, block, stream, out, strides);
  }
}

using DrawStrides = void (*)(const Cuts&, std::uint64_t, std::uint64_t, std::uint32_t,
                             std::uint8_t*, std::size_t);

void draw_baseline(const Cuts& cuts, std::uint64_t key, std::uint64_t block, std::uint32_t stream,
                   std::uint8_t* out, std::size_t strides) {
  draw_any(cuts, key, block, stream, out, strides);
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx2")]] void draw_avx2(const Cuts& cuts, std::uint64_t key, std::uint64_t block,
                                       std::uint32_t stream, std::uint8_t* out,
                                       std::size_t strides) {
  draw_any(cuts, key, block, stream, out, strides);
}
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")]] void draw_avx512(
    const Cuts& cuts, std::uint64_t key, std::uint64_t block, std::uint32_t stream,
    std::uint8_t* out, std::size_t strides) {
  draw_any(cuts, key, block, stream, out, strides);
}
DrawStrides pick() noexcept {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return draw_avx512;
  return __builtin_cpu_supports("avx2") ? draw_avx2 : draw_baseline;
}
#else
DrawStrides pick() noexcept { return draw_baseline; }
#endif

const DrawStrides draw_strides = pick();

}  // namespace

void draw_batch(const Thresholds& thresholds, std::uint64_t key, std::uint64_t first,
                std::uint32_t stream, std::span<std::uint8_t> out) {
  if (out.size() > std::numeric_limits<std::uint64_t>::max() - first)
    throw std::invalid_argument("first_sequence + count exceeds 64 bits");
  constexpr std::size_t stride = 4 * kLanes;
  std::size_t done = 0;
  const auto one_by_one = [&](std::size_t until) {
    for (; done < until; ++done)
      out[done] =
          static_cast<std::uint8_t>(thresholds.level(philox_draw(key, first + done, stream)));
  };
  one_by_one(std::min<std::size_t>(out.size(), (4 - first % 4) % 4));  // up to a block's start
  const std::size_t strides = (out.size() - done) / stride;
  draw_strides(cuts(thresholds), key, (first + done) >> 2, stream, out.data() + done, strides);
  done += strides * stride;
  one_by_one(out.size());
}

#ifndef SPROUT_CUDA
bool cuda_built() noexcept { return false; }
bool cuda_available() noexcept { return false; }
void draw_batch_cuda(const Thresholds&, std::uint64_t, std::uint64_t, std::uint32_t,
                     std::span<std::uint8_t>) {
  throw std::runtime_error("this build has no CUDA: build it where nvcc is found");
}
#endif

}  // namespace sprout
