// SPDX-License-Identifier: Apache-2.0
#include "ring.h"

#include "harness.h"

namespace {

using namespace sprout;

constexpr std::uint32_t kSlots = 4, kPromptBytes = 200;
constexpr std::size_t kBytes = ring_bytes(kSlots, kPromptBytes);

RingView view(std::byte* memory) { return ring_view(memory, kBytes); }

void init(std::byte* memory) {
  std::memset(memory, 0, kBytes);
  RingIdentity identity;
  identity.slots = kSlots;
  identity.prompt_bytes = kPromptBytes;
  identity.tag = 0x55AA;
  ring_init(memory, identity);
}

// Everything about a prompt is a function of n, which stands in its version.
PromptFacts facts_of(std::uint64_t n) {
  return {static_cast<std::uint8_t>(n),
          static_cast<std::uint16_t>(n * 3),
          n,
          static_cast<double>(n % 1000) / 1000,
          static_cast<std::uint32_t>(n * 5),
          static_cast<std::int64_t>(n * 7)};
}

std::string text_of(std::uint64_t n) {
  return std::string(n % (kPromptBytes + 1), static_cast<char>('a' + n % 26));
}

void expect_whole(const RingPrompt& prompt) {
  const std::uint64_t n = prompt.facts.policy_version;
  const PromptFacts facts = facts_of(n);
  EXPECT(prompt.facts.level == facts.level && prompt.facts.flags == facts.flags);
  EXPECT(prompt.facts.propensity == facts.propensity && prompt.facts.opened_ns == facts.opened_ns);
  EXPECT(prompt.facts.max_tokens == facts.max_tokens && prompt.text == text_of(n));
  EXPECT(prompt.task == (n % 2 ? "odd" : "an even one") && prompt.tenant == std::to_string(n));
}

void write(std::byte* memory, const test::Running& running) {
  RingView ring = view(memory);
  for (std::uint64_t n = load(ring.marks->writer.written) + 1; running; ++n)
    ring_write(ring, facts_of(n), n % 2 ? "odd" : "an even one", std::to_string(n), text_of(n));
}

// Starts as any reader does: what its predecessor held is given back.
void drain(std::byte* memory, const test::Running& running) {
  RingView ring = view(memory);
  ring_recover(ring);
  std::uint64_t last = 0;
  while (running) {
    for (const RingPrompt& prompt : ring_drain(ring)) {
      expect_whole(prompt);
      EXPECT(prompt.number > last);
      last = prompt.number;
    }
    ::sched_yield();
  }
}

// Marks only move on, and the reader's never beyond the writer's.
void check(std::byte* memory) {
  const RingView ring = view(memory);
  const RingCounts first = ring_counts(ring), second = ring_counts(ring);
  EXPECT(second.written >= first.written && second.read >= first.read);
  EXPECT(second.missed >= first.missed && first.read <= second.written);
}

std::uint64_t written(std::byte* memory) { return load(view(memory).marks->writer.written); }

}  // namespace

int main(int argc, char** argv) {
  return test::run({.bytes = kBytes,
                    .init = init,
                    .writers = {write, drain},
                    .check = check,
                    .written = written},
                   argc, argv);
}
