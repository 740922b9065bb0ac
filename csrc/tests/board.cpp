// SPDX-License-Identifier: Apache-2.0
#include "board.h"

#include <chrono>
#include <string>
#include <thread>

#include "harness.h"

namespace {

using namespace sprout;

void put_prices(std::uint64_t n, std::uint32_t levels, PriceSet& set) {
  set.point_count = static_cast<std::uint32_t>(n % (kMaxPoints + 1));
  if (set.point_count == 0) return;
  for (std::uint32_t l = 0; l < levels; ++l) set.g_per_joule[l] = static_cast<double>(n + l);
  for (std::uint32_t i = 0; i < set.point_count; ++i) {
    PricePoint& point = set.points[i];
    point.fraction = 1.0 / set.point_count;
    point.g_per_preference = static_cast<double>(n % 1000 + i);
    for (std::uint32_t l = 0; l < levels; ++l) point.g[l] = -static_cast<double>(n + i * l);
  }
}

Policy policy_of(std::uint64_t n) {
  Policy policy;
  policy.version = n;
  policy.seed = n * 3;
  policy.pack_hash = n * 5;
  policy.levels = 1 + static_cast<std::uint32_t>(n % 8);
  for (std::uint32_t i = 0; i < policy.levels; ++i) policy.shares[i] = 1.0 / policy.levels;
  policy.paused = n % 7 == 0;
  policy.control_share = static_cast<double>(n % 64) / 64;
  policy.canary_share = static_cast<double>(n % 32) / 32;
  policy.deadline_boottime_ns = static_cast<std::int64_t>(n * 9);
  policy.intensity_g_per_kwh = static_cast<double>(n);
  policy.pue = static_cast<double>(n + 1);
  policy.embodied_g_per_s = static_cast<double>(n + 2);
  policy.mix_count = static_cast<std::uint32_t>(n % (kMaxMixes + 1));
  const bool priced = n % (kMaxPoints + 1) > 0;
  for (std::uint32_t i = 0; i < policy.mix_count; ++i) {
    policy.mixes[i].name = name_of(std::to_string(n) + " " + std::to_string(i));
    policy.mixes[i].tenant = (n + i) % 3 == 0;
    policy.mixes[i].shares[(n + i) % policy.levels] = 1.0;
    if (priced) put_prices(n + i, policy.levels, policy.mixes[i].prices);
  }
  if (!priced) return policy;
  policy.prompt.weights = {n, n + 1, n + 2, n + 3};
  policy.prompt.share = static_cast<double>(n % 16) / 16;
  put_prices(n, policy.levels, policy.prompt);
  return policy;
}

BoardFile& file(std::byte* memory) { return *reinterpret_cast<BoardFile*>(memory); }

// The version in force. What there is of it is of one writing.
std::uint64_t whole(std::byte* memory, BoardCopy& copy) {
  const BoardState state = board_copy(file(memory), copy);
  EXPECT(state == BoardState::kOk || state == BoardState::kAbsent);
  if (state == BoardState::kAbsent) return 0;
  Policy found;
  Rules rules;
  EXPECT(board_decode(copy, found, rules));
  const Policy expected = policy_of(found.version);
  EXPECT(found.seed == expected.seed && found.pack_hash == expected.pack_hash);
  EXPECT(found.levels == expected.levels && found.shares == expected.shares);
  EXPECT(found.paused == expected.paused && found.control_share == expected.control_share);
  EXPECT(found.canary_share == expected.canary_share && found.pue == expected.pue);
  EXPECT(found.deadline_boottime_ns == expected.deadline_boottime_ns);
  EXPECT(found.intensity_g_per_kwh == expected.intensity_g_per_kwh);
  EXPECT(found.embodied_g_per_s == expected.embodied_g_per_s);
  EXPECT(found.mix_count == expected.mix_count && found.mixes == expected.mixes);
  EXPECT(found.prompt == expected.prompt);
  return found.version;
}

std::uint64_t whole(std::byte* memory) {
  BoardCopy copy;
  return whole(memory, copy);
}

// What was in force once is not taken back, neither from one who comes new nor from one who holds a
// copy of something earlier.
void check(std::byte* memory) {
  static thread_local BoardCopy kept;
  const std::uint64_t before = whole(memory, kept);
  const std::uint64_t fresh = whole(memory);
  EXPECT(fresh >= before && whole(memory, kept) >= fresh);
}

// Real writings are minutes apart. Now and then it lets a reader come through: against one that
// never rests, a copy that is interrupted on the way (pause.h) may well lose every time.
void write(std::byte* memory, const test::Running& running) {
  std::uint64_t n = whole(memory);
  while (running) {
    board_publish(file(memory), policy_of(++n));
    if (n % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run({.bytes = sizeof(BoardFile),
                    .init = [](std::byte* memory) { board_init(file(memory)); },
                    .writers = {write},
                    .check = check,
                    .written = whole},
                   argc, argv);
}
