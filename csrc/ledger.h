// SPDX-License-Identifier: Apache-2.0
//
// The flight ledger: one segment per stub process, a table of flights in it.
//
// A flight record is a group of cache lines and each has one writer: the opener (preprocessing),
// the engine slot (a live line and an end line), the closer (postprocessing), the agent. A line is
// valid for a flight if its state word carries the flight's generation; the state word is stored
// after the fields, so a writer killed in between leaves a line that says nothing. Every field is
// written once per generation, but for the two live counters. A slot is used again only after the
// agent's line says `released` for its generation. No locks.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "head.h"
#include "mapping.h"
#include "names.h"
#include "words.h"

namespace sprout {

inline constexpr std::size_t kCounters = 32;
inline constexpr std::uint32_t kLedgerFull = 7;  // the one counter that the core itself adds to
inline constexpr std::size_t kMaxRecords = 65536;

enum class Phase : std::uint32_t {
  kOpened = 0,
  kScheduled = 1,
  kFirstToken = 2,
  kFinished = 3,
  kFailed = 4,
  kCancelled = 5,
};

// State words of a record: generation << 32 | mark. Generations count from 1.
struct Record {
  enum Mark : std::uint32_t { kWriting = 1, kOpen = 2, kClosed = 1, kReleased = 1 };
  struct alignas(64) Opened {  // by preprocessing
    Word state;
    Word level_flags;  // level | flags << 16
    Word policy_version;
    Word policy_seed;
    Word sequence;  // of the draw
    Word task[3];   // a Name
    Word opened_ns;
    Word tokens;  // input_tokens | max_tokens << 32
    Word intensity_g_per_kwh;
    Word pue;
    Word embodied_g_per_s;
    Word tenant[3];  // a Name
  } opened;
  struct alignas(64) Live {  // by the engine slot
    Word state;              // mark = Phase; kOpened: it has reached the slot, and waits there
    Word scheduled_ns;       // valid from kScheduled
    Word first_token_ns;     // valid from kFirstToken
    Word heartbeat_ns;       // any sign of life
    Word output_tokens;      // so far
    Word unused[3];
  } live;
  struct alignas(64) End {  // by the engine slot, once
    Word state;             // mark = Phase, kFinished …
    Word scheduled_ns;      // 0 = as in the live line
    Word first_token_ns;    // likewise
    Word last_token_ns;
    Word tokens;  // input_tokens | output_tokens << 32
    Word unused[3];
  } end;
  struct alignas(64) Closed {  // by postprocessing
    Word state;
    Word closed_ns;
    Word receipt_joules;
    Word unused[5];
  } closed;
  struct alignas(64) Released {  // by the agent
    Word state;
    Word unused[7];
  } released;
};
static_assert(sizeof(Record) == 384 && alignof(Record) == 64);
// Of its head: owner = pid | role << 32, shape = records | stub index << 32.
inline constexpr FileKind kSegmentFile = {"segment", "segment-", 0x3130474553525053,  // "SPRSEG01"
                                          2 | std::uint64_t{sizeof(Record)} << 32};

// A segment in memory. Whoever makes one has checked that `records` of them are there.
struct SegmentView {
  Head* head = nullptr;
  Word* counters = nullptr;  // (kCounters,), added to by the owner alone
  Record* record = nullptr;  // (records,)
  std::uint32_t records = 0;
  std::uint16_t tag = 0;
};
constexpr std::size_t segment_bytes(std::size_t records) noexcept {
  return sizeof(Head) + kCounters * sizeof(Word) + records * sizeof(Record);
}

struct SegmentIdentity : Owner {
  std::uint32_t role = 0, stub_index = 0, records = 0;
};

// What a flight is opened with.
struct Opening {
  std::uint8_t level = 0;
  std::uint16_t flags = 0;
  std::uint64_t policy_version = 0, policy_seed = 0, sequence = 0;
  std::string_view task, tenant;  // at most kNameBytes - 1 each
  std::uint32_t input_tokens = 0, max_tokens = 0;
  std::int64_t opened_ns = 0;
  double intensity_g_per_kwh = 0.0, pue = 1.0, embodied_g_per_s = 0.0;
};

// How the engine ended a flight. Times are CLOCK_MONOTONIC, ns; 0 = not known.
struct Ending {
  Phase phase = Phase::kFinished;
  std::uint32_t input_tokens = 0, output_tokens = 0;
  std::int64_t scheduled_ns = 0, first_token_ns = 0, last_token_ns = 0;
};

// A copy of a flight, all lines joined. The layout is that of the NumPy dtype FLIGHT.
struct FlightRow {
  std::uint64_t ticket;
  std::uint16_t slot;
  std::uint32_t generation;
  std::uint8_t level;
  std::uint16_t flags;
  std::uint8_t phase;  // Phase
  bool closed;
  std::uint64_t policy_version;
  std::uint64_t policy_seed;
  std::uint64_t sequence;
  char task[kNameBytes];
  char tenant[kNameBytes];
  std::int64_t opened_ns;
  std::uint32_t input_tokens;  // as the engine counted, once it has ended
  std::uint32_t max_tokens;
  std::uint32_t output_tokens;
  std::int64_t scheduled_ns;  // 0 = not yet; so are the others
  std::int64_t first_token_ns;
  std::int64_t last_token_ns;  // set with the end
  std::int64_t heartbeat_ns;
  std::int64_t closed_ns;
  float receipt_joules;
  double intensity_g_per_kwh;
  double pue;
  double embodied_g_per_s;
};
static_assert(sizeof(FlightRow) == 192);

// tag << 48 | slot << 32 | generation; 0 = no flight.
constexpr std::uint64_t make_ticket(std::uint16_t tag, std::uint32_t slot,
                                    std::uint32_t generation) noexcept {
  return std::uint64_t{tag} << 48 | std::uint64_t{slot & 0xFFFF} << 32 | generation;
}
constexpr std::uint16_t ticket_tag(std::uint64_t ticket) noexcept {
  return static_cast<std::uint16_t>(ticket >> 48);
}

// CorruptFile unless `data` starts a whole segment.
SegmentView segment_view(std::byte* data, std::size_t size);
void segment_init(std::byte* data, const SegmentIdentity& identity) noexcept;
SegmentIdentity segment_identity(const SegmentView& view) noexcept;

// The moves of a flight, each by its one writer. False: no such flight, or no longer.
// `cursor`: where the search for a free slot starts; 0 is returned if the table is full.
std::uint64_t flight_open(SegmentView& view, std::uint32_t& cursor, const Opening& with) noexcept;
bool flight_arrived(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept;
bool flight_scheduled(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept;
bool flight_first_token(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept;
bool flight_progress(SegmentView& view, std::uint64_t ticket, std::uint32_t output_tokens,
                     std::int64_t now_ns) noexcept;
bool flight_finished(SegmentView& view, std::uint64_t ticket, const Ending& ending) noexcept;
bool flight_close(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns,
                  double receipt_joules) noexcept;
bool flight_release(SegmentView& view, std::uint32_t slot, std::uint32_t generation) noexcept;
// A copy of the flight in `slot`, if one is opened and not released.
bool flight_read(const SegmentView& view, std::uint32_t slot, FlightRow& out) noexcept;

// The owner's side.
class Segment {
 public:
  Segment(const std::string& directory, std::uint32_t role, std::uint32_t stub_index,
          std::uint64_t node_id, std::uint32_t records);
  std::uint64_t open_flight(const Opening& with);
  void count(std::uint32_t counter, std::uint64_t n);
  void close(bool unlink);
  const SegmentIdentity& identity() const noexcept { return identity_; }
  const std::string& path() const noexcept { return path_; }

 private:
  SegmentView& view();
  SegmentIdentity identity_;
  std::string path_;
  Mapping mapping_;
  SegmentView view_;
  std::uint32_t cursor_ = 0;
};

// The engine slot's and postprocessing's side: finds a flight by its ticket. Maps segments when
// they are first asked for and keeps the last used few. One thread at a time (Python: the GIL).
class Flights {
 public:
  static constexpr std::size_t kKept = 64;
  explicit Flights(std::string directory) : directory_(std::move(directory)) {}
  SegmentView* find(std::uint64_t ticket) noexcept;  // nullptr: no such segment
  std::size_t mapped() const noexcept { return kept_.size(); }

 private:
  struct Kept {
    Mapping mapping;
    SegmentView view;
    std::string path;
    Watch watch;
    std::uint64_t used = 0;
  };
  std::string directory_;
  std::vector<Kept> kept_;
  std::uint64_t clock_ = 0;
};

// The agent's side.
class SegmentReader {
 public:
  explicit SegmentReader(std::string path);
  const SegmentIdentity& identity() const noexcept { return identity_; }
  const std::string& path() const noexcept { return path_; }
  bool alive() const noexcept { return identity_.alive(); }
  std::vector<FlightRow> scan() const;
  bool release(std::uint32_t slot, std::uint32_t generation);  // std::out_of_range: slot
  std::array<std::uint64_t, kCounters> counters() const noexcept;
  void unlink() { mapping_.unlink(path_); }

 private:
  std::string path_;
  Mapping mapping_;
  SegmentView view_;
  SegmentIdentity identity_;
};

}  // namespace sprout
