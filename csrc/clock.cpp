// SPDX-License-Identifier: Apache-2.0
#include "clock.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

namespace sprout {
namespace {

using S = ClockState;
using Payload = std::array<std::uint64_t, S::kPayload>;
constexpr int kTries = 1000;  // a writer needs well under a microsecond, ten times a second
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

std::uint64_t checksum(std::uint64_t sequence, const Payload& payload) noexcept {
  std::array<std::uint64_t, 1 + S::kPayload> words;
  words[0] = sequence;
  std::copy(payload.begin(), payload.end(), words.begin() + 1);
  return fold(words.data(), words.size());
}

// The state that was read, and how to know that it and its corners stayed as they were.
struct Held {
  const ClockState* state = nullptr;
  std::uint64_t sequence = 0;
  bool still() const noexcept { return load(state->sequence) == sequence; }
};

bool hold(const ClockFile& file, ClockNow& out, Held& held) noexcept {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::uint64_t active = load(file.active);
    if (active > 1) return false;
    held.state = &file.state[active];
    held.sequence = load(held.state->sequence);
    if (held.sequence & 1) continue;
    Payload payload;
    load_all(held.state->payload, payload.data(), payload.size());
    const std::uint64_t stamp = load(held.state->checksum);
    // Between the loads of `active` and `sequence` the writer may have come round to this state and
    // not yet flipped: what is not in force is not to be seen, since its writer may die first.
    if (load(file.active) != active || !held.still()) continue;
    if (stamp != checksum(held.sequence, payload)) return false;
    out.t_ns = static_cast<std::int64_t>(payload[S::kTime]);
    out.integral_j_per_s = real(payload[S::kIntegral]);
    out.rate_j_per_active_s = real(payload[S::kRate]);
    out.metered_joules = real(payload[S::kMetered]);
    out.settled_joules = real(payload[S::kSettled]);
    out.idle_joules = real(payload[S::kIdle]);
    out.meter_joules = real(payload[S::kMeter]);
    out.unattributed_joules = real(payload[S::kUnattributed]);
    out.unmetered_from_ns = static_cast<std::int64_t>(payload[S::kUnmeteredFrom]);
    out.unmetered_until_ns = static_cast<std::int64_t>(payload[S::kUnmeteredUntil]);
    out.corners = payload[S::kCorners];
    out.estimated = payload[S::kBits] & 1;
    out.rated = payload[S::kBits] >> 1 & 1;
    out.measured = payload[S::kBits] >> 2 & 1;
    out.flat = payload[S::kBits] >> 3 & 1;
    out.whole = !(payload[S::kBits] >> 4 & 1);
    return true;
  }
  return false;
}

// from_ns <= to_ns; unsigned, since times out of a corrupt file may be any.
double seconds(std::int64_t from_ns, std::int64_t to_ns) noexcept {
  return static_cast<double>(static_cast<std::uint64_t>(to_ns) -
                             static_cast<std::uint64_t>(from_ns)) *
         1e-9;
}

void write(ClockFile& file, const ClockNow& now, const ClockNow* corner) noexcept {
  const std::uint64_t idle = 1 - (load(file.active) & 1);
  ClockState& state = file.state[idle];
  const std::uint64_t odd = (load(state.sequence) + 1) | 1;
  store(state.sequence, odd);
  if (corner != nullptr) {
    ClockFile::Corner& at = file.ring[corner->corners % kRing];
    store(at.t_ns, static_cast<std::uint64_t>(corner->t_ns));
    store(at.integral, bits(corner->integral_j_per_s));
  }
  const Payload payload = {static_cast<std::uint64_t>(now.t_ns),
                           bits(now.integral_j_per_s),
                           bits(now.rate_j_per_active_s),
                           bits(now.metered_joules),
                           bits(now.settled_joules),
                           bits(now.idle_joules),
                           bits(now.meter_joules),
                           bits(now.unattributed_joules),
                           static_cast<std::uint64_t>(now.unmetered_from_ns),
                           static_cast<std::uint64_t>(now.unmetered_until_ns),
                           now.corners,
                           std::uint64_t{now.estimated} | std::uint64_t{now.rated} << 1 |
                               std::uint64_t{now.measured} << 2 | std::uint64_t{now.flat} << 3 |
                               std::uint64_t{!now.whole} << 4};
  store_all(state.payload, payload.data(), payload.size());
  store(state.checksum, checksum(odd + 1, payload));
  store(state.sequence, odd + 1);
  store(file.active, idle);
}

// C at a time up to the last tick: linear between corners, constant before the oldest one.
double integral_at(const ClockFile& file, const ClockNow& now, std::int64_t t_ns) noexcept {
  struct Point {
    std::int64_t t_ns;
    double integral;
  };
  const auto corner = [&file](std::uint64_t index) {
    const ClockFile::Corner& at = file.ring[index % kRing];
    return Point{static_cast<std::int64_t>(load(at.t_ns)), real(load(at.integral))};
  };
  Point after{now.t_ns, now.integral_j_per_s};
  if (t_ns >= after.t_ns || now.corners == 0) return after.integral;
  // Corners [first, last) stand in time order; find the last one at or before t.
  std::uint64_t first = now.corners - std::min(now.corners, kWindow), last = now.corners;
  while (first < last) {
    const std::uint64_t middle = first + (last - first) / 2;
    const Point at = corner(middle);
    if (at.t_ns <= t_ns) {
      first = middle + 1;
    } else {
      last = middle;
      after = at;
    }
  }
  const std::uint64_t oldest = now.corners - std::min(now.corners, kWindow);
  if (first == oldest) return after.integral;  // after is the oldest corner
  const Point before = corner(first - 1);
  if (after.t_ns <= before.t_ns || !(after.integral >= before.integral)) return kUnknown;
  return before.integral + (after.integral - before.integral) *
                               (seconds(before.t_ns, t_ns) / seconds(before.t_ns, after.t_ns));
}

// Whether a flight was active while not everything was metered. A reading that is not whole opens
// such a stretch at the tick before; it goes on until two whole ones stand side by side.
bool unmetered(const ClockNow& now, std::int64_t start_ns, std::int64_t end_ns) noexcept {
  if (end_ns <= now.unmetered_from_ns) return false;
  return !now.whole || start_ns < now.unmetered_until_ns;
}

void check(double value, const char* what) {
  if (!std::isfinite(value) || value < 0.0)
    throw std::invalid_argument(std::string(what) + ": not a finite number >= 0");
}

ClockNow must_read(const ClockFile& file) {
  ClockNow now;
  if (!clock_read(file, now)) throw CorruptFile("the energy clock is corrupt");
  return now;
}

}  // namespace

void clock_init(ClockFile& file) noexcept {
  new (&file) ClockFile{};
  store(file.magic, kClockMagic);
  store(file.layout, kClockLayout);
  store(file.boot, boot_id());
  clock_write(file, ClockNow{});
}

bool clock_valid(const ClockFile& file) noexcept {
  return load(file.magic) == kClockMagic && load(file.layout) == kClockLayout &&
         load(file.active) <= 1;
}

bool clock_read(const ClockFile& file, ClockNow& out) noexcept {
  Held held;
  return clock_valid(file) && hold(file, out, held);
}

void clock_write(ClockFile& file, const ClockNow& now) noexcept { write(file, now, nullptr); }

void clock_tick(ClockFile& file, std::int64_t t_ns, double active_seconds, double joules,
                double meter_joules, bool estimated, bool whole) {
  check(active_seconds, "active_seconds");
  check(joules, "joules");
  check(meter_joules, "meter_joules");
  ClockNow now = must_read(file);
  if (t_ns <= now.t_ns) throw std::invalid_argument("t_ns: not after the last tick");
  const ClockNow before = now;
  const bool first = before.t_ns == 0;  // no interval yet: it only sets the time
  const bool known = before.whole && whole;
  const bool active = active_seconds > 0.0 && !first && known;
  now.t_ns = t_ns;
  now.metered_joules += joules;
  now.meter_joules = meter_joules;
  now.estimated = estimated;
  now.whole = whole;
  if (first) {
    now.idle_joules += joules;
    if (!whole) now.unmetered_from_ns = now.unmetered_until_ns = t_ns;
  } else if (!known) {
    now.unattributed_joules += joules;
    if (before.unmetered_until_ns != before.t_ns) now.unmetered_from_ns = before.t_ns;
    now.unmetered_until_ns = t_ns;
  } else if (active) {
    now.rate_j_per_active_s = joules / active_seconds;
    now.rated = now.measured = true;
    now.integral_j_per_s += now.rate_j_per_active_s * seconds(before.t_ns, t_ns);
    now.settled_joules += joules;
  } else {
    now.idle_joules += joules;
  }
  now.flat = !active && !first;
  // Idle after idle is one straight line: it needs no corner, so the ring counts busy time only.
  const bool straight = first || (before.flat && now.flat);
  if (!straight) ++now.corners;
  write(file, now, straight ? nullptr : &before);
}

void clock_prior(ClockFile& file, double rate_j_per_active_s) {
  check(rate_j_per_active_s, "joules_per_active_second");
  ClockNow now = must_read(file);
  if (now.measured) return;
  now.rate_j_per_active_s = rate_j_per_active_s;
  now.rated = true;
  clock_write(file, now);
}

Joules clock_energy(const ClockFile& file, std::int64_t start_ns, std::int64_t end_ns) noexcept {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    ClockNow now;
    Held held;
    if (!clock_valid(file) || !hold(file, now, held)) break;
    Joules result{0.0, end_ns > now.t_ns};
    if (end_ns <= start_ns) return result;
    if (now.unmetered_until_ns != 0 && unmetered(now, start_ns, end_ns)) break;
    if (result.provisional && !now.rated) break;
    const std::int64_t settled_end = std::min(end_ns, now.t_ns);
    if (now.t_ns != 0 && start_ns < settled_end)
      result.joules = integral_at(file, now, settled_end) - integral_at(file, now, start_ns);
    if (result.provisional) {
      const std::int64_t from = now.t_ns == 0 ? start_ns : std::max(start_ns, now.t_ns);
      result.joules += now.rate_j_per_active_s * seconds(from, end_ns);
    }
    if (!held.still()) continue;
    if (!std::isfinite(result.joules) || result.joules < 0.0) break;  // a corrupt ring
    return result;
  }
  return {kUnknown, true};
}

ClockWriter::ClockWriter(std::string path) : path_(std::move(path)) {
  const auto adopt = [this] {
    Mapping mapping(path_, Access::kWrite, sizeof(ClockFile));
    const ClockFile& found = *mapping.as<ClockFile>();
    ClockNow now;
    if (!clock_read(found, now) || load(found.boot) != boot_id())
      throw CorruptFile(path_ + ": not an energy clock of this version and boot");
    mapping.lock(path_);
    return mapping;
  };
  try {
    mapping_ = adopt();
    return;
  } catch (const CorruptFile&) {
  } catch (const FileError& error) {
    if (error.code != ENOENT) throw;
  }
  replace_file(path_, sizeof(ClockFile),
               [](std::byte* data) { clock_init(*reinterpret_cast<ClockFile*>(data)); });
  mapping_ = adopt();
}

ClockFile& ClockWriter::file() {
  if (!mapping_) throw std::invalid_argument("the clock writer is closed");
  return *mapping_.as<ClockFile>();
}

ClockNow ClockWriter::now() { return must_read(file()); }

const ClockFile* ClockReader::file() noexcept {
  if (watch_.due() && !mapping_.current(path_)) {
    mapping_ = Mapping();
    try {
      mapping_ = Mapping(path_, Access::kRead, sizeof(ClockFile));
    } catch (const std::exception&) {  // absent or foreign: looked for again in a second
    }
  }
  return mapping_ ? mapping_.as<ClockFile>() : nullptr;
}

Joules ClockReader::energy(std::int64_t start_ns, std::int64_t end_ns) noexcept {
  const ClockFile* const found = file();
  if (found == nullptr || load(found->boot) != boot_id()) return {kUnknown, true};
  return clock_energy(*found, start_ns, end_ns);
}

bool ClockReader::now(ClockNow& out) noexcept {
  const ClockFile* const found = file();
  return found != nullptr && clock_read(*found, out);
}

}  // namespace sprout
