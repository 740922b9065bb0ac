// SPDX-License-Identifier: Apache-2.0
//
// Included before everything else: any load or store of a shared word may let others run first.
// What is a window of a nanosecond in production is open here for as long as a reader, a writer or
// a kill needs.
#pragma once

#include <sched.h>

#include <cstdint>

namespace sprout::test {
inline void pause() noexcept {
  static thread_local std::uint32_t state = 0x9E3779B9;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  if (state % 32 == 0) ::sched_yield();
}
}  // namespace sprout::test

#define SPROUT_BEFORE_ACCESS() ::sprout::test::pause()
