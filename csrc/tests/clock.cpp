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

// What a flight over these intervals costs.
double between(std::int64_t begin, std::int64_t end) {
  return 2.0 * static_cast<double>((end - begin) - (end / 3 - begin / 3));
}

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
  // From close by, or from the far end of the clock's memory, where the writer is at work.
  for (const std::int64_t back : {50, 8185}) {
    const std::int64_t begin = std::max<std::int64_t>(1, n - back);
    const Joules found = clock_energy(file(memory), begin * kSecond, n * kSecond);
    ClockNow later;
    EXPECT(clock_read(file(memory), later));
    EXPECT(!found.provisional);
    // What it answered from was some state from `now` to `later`, and knew nothing older than that
    // state's oldest corner.
    const std::int64_t oldest = later.t_ns / kSecond - static_cast<std::int64_t>(kWindow);
    EXPECT(found.joules <= between(begin, n) + 1e-6);
    EXPECT(found.joules >= between(std::min(std::max(begin, oldest), n), n) - 1e-6);
    EXPECT(std::abs(found.joules - std::round(found.joules)) < 1e-6);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run({.bytes = sizeof(ClockFile),
                    .init = [](std::byte* memory) { clock_init(file(memory)); },
                    .writers = {write},
                    .check = check,
                    .written =
                        [](std::byte* memory) {
                          ClockNow now;
                          EXPECT(clock_read(file(memory), now));
                          return static_cast<std::uint64_t>(now.t_ns / kSecond);
                        }},
                   argc, argv);
}
