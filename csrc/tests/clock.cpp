// SPDX-License-Identifier: Apache-2.0
#include "clock.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

namespace {

using namespace sprout;

constexpr std::int64_t kSecond = 1'000'000'000;

ClockFile& file(std::byte* memory) { return *reinterpret_cast<ClockFile*>(memory); }

// Tick n comes at n seconds; each third interval is idle and takes 1 J, the others 2 J.
bool idle(std::int64_t n) { return n % 3 == 0; }

void write(std::byte* memory, const test::Running& running) {
  ClockNow now;
  EXPECT(clock_read(file(memory), now));
  std::int64_t n = now.t_ns / kSecond;
  std::minstd_rand random(static_cast<unsigned>(n + 1));
  while (running) {
    // In bursts: a reader looks at a dozen corners, and for that two ticks must not come.
    for (int i = 0; i < 3; ++i) {
      ++n;
      clock_tick(file(memory), n * kSecond, idle(n) ? 0.0 : 1.0, idle(n) ? 1.0 : 2.0, 0.0, false);
    }
    const auto next = test::Clock::now() + std::chrono::microseconds(random() % 32);
    while (test::Clock::now() < next) {
    }
  }
}

void check(std::byte* memory) {
  ClockNow now;
  EXPECT(clock_read(file(memory), now));
  EXPECT(now.metered_joules == now.settled_joules + now.idle_joules);
  const std::int64_t n = now.t_ns / kSecond;
  if (n < 2) return;
  // The first tick opens no interval: its 2 J count as idle.
  EXPECT(now.idle_joules == static_cast<double>(n / 3 + 2));
  EXPECT(now.settled_joules == static_cast<double>(2 * (n - n / 3 - 1)));
  const std::int64_t begin = std::max<std::int64_t>(1, n - 90);
  const Joules found = clock_energy(file(memory), begin * kSecond, n * kSecond);
  EXPECT(!found.provisional);
  ClockNow later;
  EXPECT(clock_read(file(memory), later));
  if (later.t_ns / kSecond - begin > 8000) return;  // it may have left the clock's memory
  double expected = 0.0;
  for (std::int64_t i = begin + 1; i <= n; ++i) expected += idle(i) ? 0.0 : 2.0;
  EXPECT(std::abs(found.joules - expected) < 1e-6);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run({.bytes = sizeof(ClockFile),
                    .init = [](std::byte* memory) { clock_init(file(memory)); },
                    .writers = {write},
                    .check = check},
                   argc, argv);
}
