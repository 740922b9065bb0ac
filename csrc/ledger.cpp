// SPDX-License-Identifier: Apache-2.0
#include "ledger.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace sprout {
namespace {

std::uint64_t ns(std::int64_t value) noexcept { return static_cast<std::uint64_t>(value); }
std::int64_t ns(const Word& word) noexcept { return static_cast<std::int64_t>(load(word)); }

// The generation of a state word, 0 if its mark is none of first … last.
std::uint32_t marked(const Word& state, std::uint32_t first, std::uint32_t last) noexcept {
  const std::uint64_t word = load(state);
  return low(word) >= first && low(word) <= last ? high(word) : 0;
}

bool released(const Record& record, std::uint32_t generation) noexcept {
  return marked(record.released.state, Record::kReleased, Record::kReleased) == generation;
}

// The record of an open flight, or nullptr.
Record* flying(SegmentView& view, std::uint64_t ticket) noexcept {
  const std::uint32_t slot = high(ticket) & 0xFFFF, generation = low(ticket);
  if (ticket_tag(ticket) != view.tag || slot >= view.records || generation == 0) return nullptr;
  Record& record = view.record[slot];
  if (load(record.opened.state) != pack(Record::kOpen, generation)) return nullptr;
  return released(record, generation) ? nullptr : &record;
}

bool ended(const Record& record, std::uint32_t generation) noexcept {
  return high(load(record.end.state)) == generation;
}

// Moves the live line on to `phase`; a line of an earlier flight is taken over first.
void live(Record& record, std::uint32_t generation, Phase phase, std::int64_t now_ns) noexcept {
  Record::Live& line = record.live;
  const auto mark = static_cast<std::uint32_t>(phase);
  const std::uint64_t state = load(line.state);
  const bool fresh = high(state) != generation;
  const auto last = fresh ? Phase::kOpened : Phase{low(state)};
  if (fresh) store(line.output_tokens, 0);
  if (last < Phase::kScheduled && phase >= Phase::kScheduled) store(line.scheduled_ns, ns(now_ns));
  if (last < Phase::kFirstToken && phase == Phase::kFirstToken)
    store(line.first_token_ns, ns(now_ns));
  store(line.heartbeat_ns, ns(now_ns));
  if (fresh || last < phase) store(line.state, pack(mark, generation));
}

template <typename Move>
bool move(SegmentView& view, std::uint64_t ticket, Move&& with) noexcept {
  Record* const record = flying(view, ticket);
  if (record == nullptr) return false;
  with(*record, low(ticket));
  return true;
}

}  // namespace

SegmentView segment_view(std::byte* data, std::size_t size) {
  SegmentView view;
  if (size < segment_bytes(0)) throw CorruptFile("segment: too short");
  view.head = reinterpret_cast<Head*>(data);
  head_check(*view.head, kSegmentFile);
  const SegmentIdentity identity = segment_identity(view);
  if (identity.records > kMaxRecords || size < segment_bytes(identity.records))
    throw CorruptFile("segment: shorter than its table");
  view.records = identity.records;
  view.tag = identity.tag;
  view.counters = reinterpret_cast<Word*>(data + sizeof(Head));
  view.record = reinterpret_cast<Record*>(data + segment_bytes(0));
  return view;
}

void segment_init(std::byte* data, const SegmentIdentity& identity) noexcept {
  // The rest of the file is zero, which is what an empty table looks like.
  head_init(data, kSegmentFile, identity, identity.role,
            pack(identity.records, identity.stub_index));
}

SegmentIdentity segment_identity(const SegmentView& view) noexcept {
  const Head& head = *view.head;
  return {owner_of(head), high(load(head.owner)), high(load(head.shape)), low(load(head.shape))};
}

std::uint64_t flight_open(SegmentView& view, std::uint32_t& cursor, const Opening& with) noexcept {
  for (std::uint32_t tried = 0; tried < view.records; ++tried) {
    const std::uint32_t slot = cursor % view.records;
    cursor = slot + 1;
    Record& record = view.record[slot];
    const std::uint32_t last = high(load(record.opened.state));
    if (last != 0 && !released(record, last)) continue;
    // Generation 0 means none; after 2^32 flights in one slot the count starts again at 1.
    const std::uint32_t generation = last + 1 == 0 ? 1 : last + 1;
    Record::Opened& line = record.opened;
    store(line.state, pack(Record::kWriting, generation));
    store(line.level_flags, with.level | std::uint64_t{with.flags} << 16);
    store(line.policy_version, with.policy_version);
    store(line.policy_seed, with.policy_seed);
    store(line.sequence, with.sequence);
    const Name task = name_of(with.task), tenant = name_of(with.tenant);
    store_all(line.task, task.data(), task.size());
    store(line.opened_ns, ns(with.opened_ns));
    store(line.tokens, pack(with.input_tokens, with.max_tokens));
    store(line.intensity_g_per_kwh, bits(with.intensity_g_per_kwh));
    store(line.pue, bits(with.pue));
    store(line.embodied_g_per_s, bits(with.embodied_g_per_s));
    store_all(line.tenant, tenant.data(), tenant.size());
    store(line.state, pack(Record::kOpen, generation));
    return make_ticket(view.tag, slot, generation);
  }
  return 0;
}

bool flight_arrived(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept {
  return move(view, ticket, [=](Record& record, std::uint32_t generation) {
    if (!ended(record, generation)) live(record, generation, Phase::kOpened, now_ns);
  });
}

bool flight_scheduled(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept {
  return move(view, ticket, [=](Record& record, std::uint32_t generation) {
    if (!ended(record, generation)) live(record, generation, Phase::kScheduled, now_ns);
  });
}

bool flight_first_token(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns) noexcept {
  return move(view, ticket, [=](Record& record, std::uint32_t generation) {
    if (!ended(record, generation)) live(record, generation, Phase::kFirstToken, now_ns);
  });
}

bool flight_progress(SegmentView& view, std::uint64_t ticket, std::uint32_t output_tokens,
                     std::int64_t now_ns) noexcept {
  return move(view, ticket, [=](Record& record, std::uint32_t generation) {
    if (ended(record, generation)) return;
    live(record, generation, output_tokens > 0 ? Phase::kFirstToken : Phase::kScheduled, now_ns);
    store(record.live.output_tokens, output_tokens);
  });
}

bool flight_finished(SegmentView& view, std::uint64_t ticket, const Ending& ending) noexcept {
  return move(view, ticket, [&](Record& record, std::uint32_t generation) {
    if (ended(record, generation)) return;  // the first end stands
    Record::End& line = record.end;
    store(line.scheduled_ns, ns(ending.scheduled_ns));
    store(line.first_token_ns, ns(ending.first_token_ns));
    store(line.last_token_ns, ns(ending.last_token_ns));
    store(line.tokens, pack(ending.input_tokens, ending.output_tokens));
    store(line.state, pack(static_cast<std::uint32_t>(ending.phase), generation));
  });
}

bool flight_close(SegmentView& view, std::uint64_t ticket, std::int64_t now_ns,
                  double receipt_joules) noexcept {
  return move(view, ticket, [=](Record& record, std::uint32_t generation) {
    Record::Closed& line = record.closed;
    if (marked(line.state, Record::kClosed, Record::kClosed) == generation) return;
    store(line.closed_ns, ns(now_ns));
    store(line.receipt_joules, bits(receipt_joules));
    store(line.state, pack(Record::kClosed, generation));
  });
}

bool flight_release(SegmentView& view, std::uint32_t slot, std::uint32_t generation) noexcept {
  if (slot >= view.records || generation == 0) return false;
  Record& record = view.record[slot];
  if (high(load(record.opened.state)) != generation) return false;
  store(record.released.state, pack(Record::kReleased, generation));
  return true;
}

bool flight_read(const SegmentView& view, std::uint32_t slot, FlightRow& out) noexcept {
  if (slot >= view.records) return false;
  const Record& record = view.record[slot];
  const Record::Opened& opened = record.opened;
  const std::uint32_t generation = marked(opened.state, Record::kOpen, Record::kOpen);
  if (generation == 0 || released(record, generation)) return false;
  std::memset(&out, 0, sizeof out);  // the padding too
  out.ticket = make_ticket(view.tag, slot, generation);
  out.slot = static_cast<std::uint16_t>(slot);
  out.generation = generation;
  const std::uint64_t level_flags = load(opened.level_flags);
  out.level = static_cast<std::uint8_t>(level_flags);
  out.flags = static_cast<std::uint16_t>(level_flags >> 16);
  out.policy_version = load(opened.policy_version);
  out.policy_seed = load(opened.policy_seed);
  out.sequence = load(opened.sequence);
  Name name;
  load_all(opened.task, name.data(), name.size());
  std::memcpy(out.task, name.data(), kNameBytes);
  load_all(opened.tenant, name.data(), name.size());
  std::memcpy(out.tenant, name.data(), kNameBytes);
  out.opened_ns = ns(opened.opened_ns);
  out.input_tokens = low(load(opened.tokens));
  out.max_tokens = high(load(opened.tokens));
  out.intensity_g_per_kwh = real(load(opened.intensity_g_per_kwh));
  out.pue = real(load(opened.pue));
  out.embodied_g_per_s = real(load(opened.embodied_g_per_s));

  constexpr auto mark = [](Phase phase) { return static_cast<std::uint32_t>(phase); };
  const Record::Live& line = record.live;
  if (marked(line.state, mark(Phase::kOpened), mark(Phase::kFirstToken)) == generation) {
    out.phase = static_cast<std::uint8_t>(load(line.state));
    if (out.phase >= mark(Phase::kScheduled)) out.scheduled_ns = ns(line.scheduled_ns);
    if (out.phase == mark(Phase::kFirstToken)) out.first_token_ns = ns(line.first_token_ns);
    out.heartbeat_ns = ns(line.heartbeat_ns);
    out.output_tokens = low(load(line.output_tokens));
  }
  const Record::End& end = record.end;
  if (marked(end.state, mark(Phase::kFinished), mark(Phase::kCancelled)) == generation) {
    out.phase = static_cast<std::uint8_t>(load(end.state));
    if (const auto at = ns(end.scheduled_ns); at != 0) out.scheduled_ns = at;
    if (const auto at = ns(end.first_token_ns); at != 0) out.first_token_ns = at;
    out.last_token_ns = ns(end.last_token_ns);
    if (const auto tokens = low(load(end.tokens)); tokens != 0) out.input_tokens = tokens;
    out.output_tokens = high(load(end.tokens));
  }
  if (marked(record.closed.state, Record::kClosed, Record::kClosed) == generation) {
    out.closed = true;
    out.closed_ns = ns(record.closed.closed_ns);
    out.receipt_joules = static_cast<float>(real(load(record.closed.receipt_joules)));
  }
  // Every writer of a later flight in this slot acts after the opener stored its state; had one of
  // the loads above seen any of that, this one would see that state.
  return load(opened.state) == pack(Record::kOpen, generation);
}

Segment::Segment(const std::string& directory, std::uint32_t role, std::uint32_t stub_index,
                 std::uint64_t node_id, std::uint32_t records) {
  if (records > kMaxRecords) throw std::invalid_argument("records: at most 65536");
  identity_ = {this_process(node_id), role, stub_index, records};
  path_ = create_tagged(directory, kSegmentFile, segment_bytes(records), identity_,
                        [this](std::byte* data) { segment_init(data, identity_); });
  mapping_ = Mapping(path_, Access::kWrite, segment_bytes(records));
  view_ = segment_view(mapping_.data(), mapping_.size());
}

SegmentView& Segment::view() {
  if (!mapping_) throw std::invalid_argument("the segment is closed");
  return view_;
}

std::uint64_t Segment::open_flight(const Opening& with) {
  if (with.task.size() >= kNameBytes) throw std::invalid_argument("task: at most 23 bytes");
  if (with.tenant.size() >= kNameBytes) throw std::invalid_argument("tenant: at most 23 bytes");
  const std::uint64_t ticket = flight_open(view(), cursor_, with);
  if (ticket == 0) count(kLedgerFull, 1);
  return ticket;
}

void Segment::count(std::uint32_t counter, std::uint64_t n) {
  if (counter >= kCounters) throw std::invalid_argument("counter: at most 31");
  view().counters[counter].fetch_add(n, std::memory_order_relaxed);
}

void Segment::close(bool unlink) {
  if (!mapping_) return;
  if (unlink && mapping_.current(path_)) ::unlink(path_.c_str());
  mapping_ = Mapping();
}

SegmentView* Flights::find(std::uint64_t ticket) noexcept {
  const std::uint16_t tag = ticket_tag(ticket);
  if (tag == 0) return nullptr;
  ++clock_;
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [tag](const Kept& kept) { return kept.view.tag == tag; });
  if (found != kept_.end()) {
    if (!found->watch.due() || found->mapping.current(found->path)) {
      found->used = clock_;
      return &found->view;
    }
    kept_.erase(found);  // its owner is gone; another may have the name now
  }
  try {
    Kept kept;
    kept.path = directory_ + "/" + tagged_name(kSegmentFile, tag);
    kept.mapping = Mapping(kept.path, Access::kWrite, segment_bytes(0));
    kept.view = segment_view(kept.mapping.data(), kept.mapping.size());
    if (kept.view.tag != tag) return nullptr;
    kept.watch.due();
    kept.used = clock_;
    if (kept_.size() >= kKept) {
      kept_.erase(std::min_element(kept_.begin(), kept_.end(),
                                   [](const Kept& a, const Kept& b) { return a.used < b.used; }));
    }
    kept_.push_back(std::move(kept));
    return &kept_.back().view;
  } catch (const std::exception&) {
    return nullptr;
  }
}

SegmentReader::SegmentReader(std::string path)
    : path_(std::move(path)), mapping_(path_, Access::kWrite, segment_bytes(0)) {
  view_ = segment_view(mapping_.data(), mapping_.size());
  identity_ = segment_identity(view_);
}

std::vector<FlightRow> SegmentReader::scan() const {
  std::vector<FlightRow> rows;
  FlightRow row;
  for (std::uint32_t slot = 0; slot < view_.records; ++slot)
    if (flight_read(view_, slot, row)) rows.push_back(row);
  return rows;
}

bool SegmentReader::release(std::uint32_t slot, std::uint32_t generation) {
  if (slot >= view_.records) throw std::out_of_range("slot: not in this segment");
  return flight_release(view_, slot, generation);
}

std::array<std::uint64_t, kCounters> SegmentReader::counters() const noexcept {
  std::array<std::uint64_t, kCounters> result;
  load_all(view_.counters, result.data(), result.size());
  return result;
}

}  // namespace sprout
