// SPDX-License-Identifier: Apache-2.0
//
// The energy clock: C(t), the running integral of joules per active-second, in a file with one
// writer (the agent). An interval in which A active-seconds (over all flights) cost E joules has
// slope E / A, so a flight that was active over [s, e] cost C(e) - C(s), and all flights' costs sum
// to what was metered while any was active.
//
// A meter may stand still for a while (a GPU that fell off the bus). An interval whose joules are
// not all there, or that has those of such a while, belongs to nobody: its joules are
// `unattributed`, and what a flight cost that was active in it is not known. So metered = settled +
// idle + unattributed. The latest such stretch is kept; a flight is looked up as it ends.
//
// Two states as on the policy board: the idle one is written, then `active` flips, so a killed
// writer leaves a whole state. The ring holds the corners of the polygon C; the state holds its
// last point. A tick writes a corner outside the window that the present state refers to.
#pragma once

#include <cstdint>
#include <string>

#include "mapping.h"
#include "words.h"

namespace sprout {

inline constexpr std::uint64_t kClockMagic = 0x31304B4C43525053;  // "SPRCLK01"
inline constexpr std::uint64_t kClockLayout = 2;
inline constexpr std::uint64_t kRing = 8192;         // corners in the file
inline constexpr std::uint64_t kWindow = kRing - 1;  // corners that a state may refer to

struct ClockNow {
  std::int64_t t_ns = 0;          // CLOCK_MONOTONIC of the last tick; 0 = none yet
  double integral_j_per_s = 0.0;  // C at t_ns: joules per active-second, times seconds
  double rate_j_per_active_s = 0.0;
  double metered_joules = 0.0;         // = settled + idle + unattributed
  double settled_joules = 0.0;         // while any flight was active
  double idle_joules = 0.0;            // while none was
  double meter_joules = 0.0;           // the meter's own reading at the last tick
  double unattributed_joules = 0.0;    // of intervals that were not metered whole
  std::int64_t unmetered_from_ns = 0;  // the latest stretch of those; 0 = there was none
  std::int64_t unmetered_until_ns = 0;
  std::uint64_t corners = 0;  // ever written; the next goes to ring[corners % kRing]
  bool estimated = false;     // the last interval's joules come from a model, not a meter
  bool rated = false;         // rate is known: measured, or a prior
  bool measured = false;      // rate comes from a tick
  bool flat = false;          // C stood still in the last interval
  bool whole = true;          // the last reading had everything that was used
};

struct ClockState {
  enum Field : std::size_t {
    kTime,
    kIntegral,
    kRate,
    kMetered,
    kSettled,
    kIdle,
    kMeter,
    kUnattributed,
    kUnmeteredFrom,
    kUnmeteredUntil,
    kCorners,
    kBits,  // estimated | rated << 1 | measured << 2 | flat << 3 | not whole << 4
    kPayload,
  };
  Word sequence;  // odd while being written
  Word payload[kPayload];
  Word checksum;  // fold(sequence, payload…)
  Word unused[2];
};
static_assert(sizeof(ClockState) == 128);

struct ClockFile {
  Word magic;
  Word layout;
  Word boot;    // boot_id(): times of another boot mean nothing
  Word active;  // 0 or 1
  Word unused[4];
  ClockState state[2];
  struct Corner {
    Word t_ns;
    Word integral;
  } ring[kRing];
};
static_assert(sizeof(ClockFile) == 320 + 16 * kRing);

struct Joules {
  double joules = 0.0;      // NaN = not known
  bool provisional = true;  // rests on the last rate, not on a measurement
};

void clock_init(ClockFile& file) noexcept;
bool clock_valid(const ClockFile& file) noexcept;
bool clock_read(const ClockFile& file, ClockNow& out) noexcept;  // false: corrupt
void clock_write(ClockFile& file, const ClockNow& now) noexcept;
// The interval since the last tick. std::invalid_argument: time does not move on, or a number is
// negative or not finite. whole: the meter's reading now has everything that was used.
void clock_tick(ClockFile& file, std::int64_t t_ns, double active_seconds, double joules,
                double meter_joules, bool estimated, bool whole = true);
void clock_prior(ClockFile& file, double rate_j_per_active_s);
// What a flight active over [start, end] cost. Time before the oldest corner costs nothing; of time
// that was not metered it is not known.
Joules clock_energy(const ClockFile& file, std::int64_t start_ns, std::int64_t end_ns) noexcept;

class ClockWriter {
 public:
  explicit ClockWriter(std::string path);  // as BoardWriter
  ClockFile& file();
  ClockNow now();
  void close() noexcept { mapping_ = Mapping(); }

 private:
  std::string path_;
  Mapping mapping_;
};

// One thread at a time (under Python: the GIL).
class ClockReader {
 public:
  explicit ClockReader(std::string path) : path_(std::move(path)) {}
  Joules energy(std::int64_t start_ns, std::int64_t end_ns) noexcept;
  bool now(ClockNow& out) noexcept;  // false: absent or corrupt

 private:
  const ClockFile* file() noexcept;
  std::string path_;
  Mapping mapping_;
  Watch watch_;
};

}  // namespace sprout
