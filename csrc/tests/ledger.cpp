// SPDX-License-Identifier: Apache-2.0
#include "ledger.h"

#include "harness.h"

namespace {

using namespace sprout;

constexpr std::uint32_t kRecords = 4;
constexpr std::size_t kBytes = segment_bytes(kRecords);

SegmentView view(std::byte* memory) { return segment_view(memory, kBytes); }

void init(std::byte* memory) {
  std::memset(memory, 0, kBytes);
  SegmentIdentity identity;
  identity.records = kRecords;
  identity.tag = 0x55AA;
  segment_init(memory, identity);
}

// Everything in a flight is a function of its ticket, or of n, which only the opener knows.
std::uint32_t number(std::uint64_t ticket, std::uint32_t salt) {
  return static_cast<std::uint32_t>(mix64(ticket + salt) >> 34);
}

Opening opening_of(std::uint64_t n) {
  Opening with;
  with.level = static_cast<std::uint8_t>(n);
  with.flags = static_cast<std::uint16_t>(n);
  with.policy_version = n * 3;
  with.policy_seed = n * 5;
  with.sequence = n;
  with.task = n % 2 ? "odd" : "an even flight";
  with.tenant = n % 3 ? "" : "a third of all flights";
  with.input_tokens = static_cast<std::uint32_t>(n);
  with.max_tokens = static_cast<std::uint32_t>(n + 1);
  with.opened_ns = static_cast<std::int64_t>(n * 7);
  with.intensity_g_per_kwh = static_cast<double>(n);
  with.pue = static_cast<double>(n + 2);
  with.embodied_g_per_s = static_cast<double>(n + 3);
  return with;
}

void expect_whole(const FlightRow& row) {
  const Opening with = opening_of(row.sequence);
  EXPECT(row.level == with.level && row.flags == with.flags);
  EXPECT(row.policy_version == with.policy_version && row.policy_seed == with.policy_seed);
  EXPECT(row.task == with.task && row.opened_ns == with.opened_ns && row.pue == with.pue);
  EXPECT(row.max_tokens == with.max_tokens && row.intensity_g_per_kwh == with.intensity_g_per_kwh);
  EXPECT(row.embodied_g_per_s == with.embodied_g_per_s && row.tenant == with.tenant);
  const std::uint64_t t = row.ticket;
  const auto phase = static_cast<Phase>(row.phase);
  if (phase >= Phase::kFinished) {
    EXPECT(row.phase == 3 + number(t, 0) % 3);
    EXPECT(row.scheduled_ns == 1 + number(t, 4) && row.first_token_ns == 1 + number(t, 5));
    EXPECT(row.last_token_ns == number(t, 6));
    EXPECT(row.input_tokens == 1 + number(t, 7) && row.output_tokens == number(t, 8));
  } else {
    EXPECT(row.input_tokens == with.input_tokens && row.last_token_ns == 0);
    EXPECT(row.scheduled_ns == (phase >= Phase::kScheduled ? number(t, 1) : 0));
    EXPECT(row.first_token_ns == (phase >= Phase::kFirstToken ? number(t, 2) : 0));
    EXPECT(row.output_tokens == 0 || row.output_tokens == number(t, 3));
  }
  EXPECT(row.closed_ns == (row.closed ? number(t, 9) : 0));
  EXPECT(row.receipt_joules == (row.closed ? static_cast<float>(number(t, 10)) : 0.0F));
}

template <typename Each>
void for_flights(std::byte* memory, const test::Running& running, Each&& each) {
  SegmentView table = view(memory);
  FlightRow row;
  while (running) {
    for (std::uint32_t slot = 0; slot < kRecords; ++slot)
      if (flight_read(table, slot, row)) each(table, row);
    ::sched_yield();
  }
}

void open(std::byte* memory, const test::Running& running) {
  SegmentView table = view(memory);
  std::uint32_t cursor = 0;
  for (std::uint64_t n = 1; running;) {
    if (const std::uint64_t ticket = flight_open(table, cursor, opening_of(n)); ticket != 0) {
      const Record& record = table.record[high(ticket) & 0xFFFF];
      EXPECT(high(load(record.released.state)) + 1 >= low(ticket));  // its last flight was over
      ++n;
    } else {
      ::sched_yield();
    }
  }
}

void engine(std::byte* memory, const test::Running& running) {
  for_flights(memory, running, [](SegmentView& table, const FlightRow& row) {
    const std::uint64_t t = row.ticket;
    if (number(t, 12) % 2 == 0) flight_arrived(table, t, number(t, 13));
    flight_scheduled(table, t, number(t, 1));
    if (number(t, 11) % 4 == 0) return;  // not yet, perhaps never
    flight_first_token(table, t, number(t, 2));
    flight_progress(table, t, number(t, 3), number(t, 3));
    flight_finished(table, t,
                    {Phase{3 + number(t, 0) % 3}, 1 + number(t, 7), number(t, 8), 1 + number(t, 4),
                     1 + number(t, 5), number(t, 6)});
  });
}

void closer(std::byte* memory, const test::Running& running) {
  for_flights(memory, running, [](SegmentView& table, const FlightRow& row) {
    flight_close(table, row.ticket, number(row.ticket, 9), number(row.ticket, 10));
  });
}

// Releases what has ended; now and then reaps one that has not, under the hands of its writers.
void agent(std::byte* memory, const test::Running& running) {
  std::minstd_rand random(1);
  for_flights(memory, running, [&random](SegmentView& table, const FlightRow& row) {
    expect_whole(row);
    const bool ended = row.phase >= static_cast<std::uint8_t>(Phase::kFinished) && row.closed;
    if (ended || random() % 16 == 0) flight_release(table, row.slot, row.generation);
  });
}

// Flights opened since the table was made.
std::uint64_t opened(std::byte* memory) {
  const SegmentView table = view(memory);
  std::uint64_t sum = 0;
  for (std::uint32_t slot = 0; slot < kRecords; ++slot)
    sum += high(load(table.record[slot].opened.state));
  return sum;
}

void check(std::byte* memory) {
  const SegmentView table = view(memory);
  FlightRow row;
  for (std::uint32_t slot = 0; slot < kRecords; ++slot)
    if (flight_read(table, slot, row)) expect_whole(row);
}

// A slot whose opener died while opening goes down with its segment; here it stands in for one of
// a new segment, so that generations go on counting.
void renew(std::byte* memory, std::uint32_t slot) {
  Record& record = view(memory).record[slot];
  const std::uint32_t generation = high(load(record.opened.state));
  store(record.released.state, pack(Record::kReleased, generation));
}

void bury(std::byte* memory) {
  const SegmentView table = view(memory);
  for (std::uint32_t slot = 0; slot < kRecords; ++slot)
    if (low(load(table.record[slot].opened.state)) == Record::kWriting) renew(memory, slot);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run({.bytes = kBytes,
                    .init = init,
                    .writers = {open, engine, closer, agent},
                    .check = check,
                    .written = opened,
                    .bury = bury},
                   argc, argv);
}
