// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3" (SC 2011). The same bits on CPU, CUDA and NumPy (sprout_ext/reference/sampler.py).
#pragma once

#include <cstdint>

#include "device.h"

namespace sprout {

struct PhiloxBlock {
  std::uint32_t word[4];
};

SPROUT_HD PhiloxBlock philox(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3,
                             std::uint32_t k0, std::uint32_t k1) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

// Block `index` of `stream`: draws 4*index … 4*index+3 of it.
SPROUT_HD PhiloxBlock philox_block(std::uint64_t key, std::uint64_t index,
                                   std::uint32_t stream) noexcept {
  return philox(static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), stream,
                0, static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32));
}

// Draw `sequence` of `stream`: uniform over [0, 2^32).
SPROUT_HD std::uint32_t philox_draw(std::uint64_t key, std::uint64_t sequence,
                                    std::uint32_t stream) noexcept {
  return philox_block(key, sequence >> 2, stream).word[sequence & 3];
}

}  // namespace sprout
