// SPDX-License-Identifier: Apache-2.0
//
// A ring of sampled prompts: one file per preprocessing stub, which is its only writer; the agent
// is its only reader. Memory-backed or not at all.
//
// Prompts are numbered 1, 2, … and prompt n lives in slot (n - 1) % slots until prompt n + slots
// takes its place: the oldest goes where the reader lags. A slot's state word says which prompt is
// in it and whose it is now. The writer takes a slot by compare-and-swap, fills it, and only then
// calls it whole; one killed in between leaves a slot that says nothing. The reader claims a whole
// slot the same way, so that it can wipe what it has read while nobody else touches it. Neither
// waits for the other: a writer that finds its slot claimed gives its prompt up, a reader that
// finds its prompt overwritten counts it as missed. So a process that dies with a slot in its hands
// costs that slot's prompt, and no request.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "head.h"
#include "mapping.h"
#include "names.h"
#include "words.h"

namespace sprout {

inline constexpr std::uint32_t kMaxSlots = 65536;
inline constexpr std::uint32_t kMaxPromptBytes = 1 << 20;

struct RingMarks {
  struct alignas(64) Writer {
    Word written;   // number of the newest prompt
    Word too_long;  // prompts that no slot holds
    Word refused;   // by the request or for its tenant
    Word unknown;   // whose level's propensity nobody could tell
    Word unused[4];
  } writer;
  struct alignas(64) Reader {
    Word read;    // number of the newest prompt that is done with
    Word missed;  // of those: overwritten before they were read, or never whole
    Word unused[6];
  } reader;
};
static_assert(sizeof(RingMarks) == 128);

struct alignas(64) RingSlot {
  enum Mark : std::uint32_t { kEmpty = 0, kWriting = 1, kWhole = 2, kClaimed = 3 };
  Word state;        // number << 2 | mark
  Word level_flags;  // level | flags << 16
  Word policy_version;
  Word propensity;  // of the level
  Word sizes;       // bytes of the text | max_tokens << 32
  Word opened_ns;
  Word task[3];    // kNameBytes characters, zero-padded
  Word tenant[3];  // likewise
  Word unused[4];
  // The text follows: bytes in words, zero-padded.
};
static_assert(sizeof(RingSlot) == 128 && alignof(RingSlot) == 64);
// Of its head: owner = pid | stub index << 32, shape = slots | bytes of the longest prompt << 32.
inline constexpr FileKind kRingFile = {"ring", "prompts-", 0x3130474E52525053,  // "SPRRNG01"
                                       1 | std::uint64_t{sizeof(RingSlot)} << 32};

struct RingView {
  Head* head = nullptr;
  RingMarks* marks = nullptr;
  std::byte* first = nullptr;  // slot
  std::uint32_t slots = 0;
  std::uint32_t prompt_bytes = 0;
};
constexpr std::size_t slot_bytes(std::size_t prompt_bytes) noexcept {
  return sizeof(RingSlot) + (prompt_bytes + 63) / 64 * 64;
}
constexpr std::size_t ring_bytes(std::size_t slots, std::size_t prompt_bytes) noexcept {
  return sizeof(Head) + sizeof(RingMarks) + slots * slot_bytes(prompt_bytes);
}

struct RingIdentity : Owner {
  std::uint32_t stub_index = 0, slots = 0, prompt_bytes = 0;
};

// What a prompt was served with.
struct PromptFacts {
  std::uint8_t level = 0;
  std::uint16_t flags = 0;  // of board.h's Flag
  std::uint64_t policy_version = 0;
  double propensity = 1.0;  // of the level under that policy
  std::uint32_t max_tokens = 0;
  std::int64_t opened_ns = 0;  // CLOCK_MONOTONIC
};
struct RingPrompt {
  std::uint64_t number = 0;
  PromptFacts facts;
  std::string task, tenant, text;
};

struct RingCounts {
  std::uint64_t written = 0, too_long = 0, refused = 0, unknown = 0, read = 0, missed = 0;
};

// CorruptFile unless `data` starts a whole ring.
RingView ring_view(std::byte* data, std::size_t size);
void ring_init(std::byte* data, const RingIdentity& identity) noexcept;
RingIdentity ring_identity(const RingView& view) noexcept;
RingCounts ring_counts(const RingView& view) noexcept;

// The writer's move. False where the text is longer than a slot (counted), or the reader is in it.
bool ring_write(RingView& view, const PromptFacts& facts, std::string_view task,
                std::string_view tenant, std::string_view text) noexcept;
// The reader's: everything written and not yet read, oldest first; wiped in the ring.
std::vector<RingPrompt> ring_drain(RingView& view);
// What a reader that died held is wiped and given back. Before a reader's first drain.
void ring_recover(RingView& view) noexcept;

// The owner's side.
class Ring {
 public:
  // FileError: ENOTSUP where the folder is not memory-backed.
  Ring(const std::string& directory, std::uint32_t stub_index, std::uint64_t node_id,
       std::uint32_t slots, std::uint32_t prompt_bytes);
  // std::invalid_argument: task or tenant is longer than kNameBytes - 1.
  bool write(const PromptFacts& facts, std::string_view task, std::string_view tenant,
             std::string_view text);
  void refused();
  void unknown();
  void close(bool unlink);
  const RingIdentity& identity() const noexcept { return identity_; }
  const std::string& path() const noexcept { return path_; }

 private:
  RingView& view();
  RingIdentity identity_;
  std::string path_;
  Mapping mapping_;
  RingView view_;
};

// The agent's side. Two at a time would wipe under each other's eyes: the agent's lock keeps a
// second one away.
class RingReader {
 public:
  explicit RingReader(std::string path);
  const RingIdentity& identity() const noexcept { return identity_; }
  const std::string& path() const noexcept { return path_; }
  bool alive() const noexcept { return identity_.alive(); }
  std::vector<RingPrompt> drain() { return ring_drain(view_); }
  RingCounts counts() const noexcept { return ring_counts(view_); }
  void unlink() { mapping_.unlink(path_); }

 private:
  std::string path_;
  Mapping mapping_;
  RingView view_;
  RingIdentity identity_;
};

}  // namespace sprout
