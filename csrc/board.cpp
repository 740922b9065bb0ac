// SPDX-License-Identifier: Apache-2.0
#include "board.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "philox.h"

namespace sprout {
namespace {

using Payload = std::array<std::uint64_t, BoardBuffer::kPayload>;
using B = BoardBuffer;

constexpr std::uint64_t kPausedBit = 1 << 8, kPresentBit = 1 << 9;
constexpr int kTries = 1000;  // a writer needs well under a microsecond, once in minutes

std::uint64_t checksum(std::uint64_t sequence, const Payload& payload) noexcept {
  std::array<std::uint64_t, 1 + B::kPayload> words;
  words[0] = sequence;
  std::copy(payload.begin(), payload.end(), words.begin() + 1);
  return fold(words.data(), words.size());
}

void write_payload(BoardFile& file, const Payload& payload) noexcept {
  const std::uint64_t idle = 1 - (load(file.active) & 1);
  BoardBuffer& buffer = file.buffer[idle];
  // The next odd number, also after a writer that died while it was odd.
  const std::uint64_t odd = (load(buffer.sequence) + 1) | 1;
  store(buffer.sequence, odd);
  store_all(buffer.payload, payload.data(), payload.size());
  store(buffer.checksum, checksum(odd + 1, payload));
  store(buffer.sequence, odd + 1);
  store(file.active, idle);
}

void check(const Policy& policy) {
  thresholds({policy.shares.data(), std::min<std::size_t>(policy.levels, kMaxLevels)});
  const auto share = [](double value) { return value >= 0.0 && value <= 1.0; };
  if (!share(policy.control_share)) throw std::invalid_argument("control_share: not in [0, 1]");
  if (!share(policy.canary_share)) throw std::invalid_argument("canary_share: not in [0, 1]");
  if (std::isinf(policy.intensity_g_per_kwh))
    throw std::invalid_argument("intensity_g_per_kwh: neither finite nor NaN");
  if (!std::isfinite(policy.pue) || policy.pue <= 0.0)
    throw std::invalid_argument("pue: not a finite number > 0");
  if (!std::isfinite(policy.embodied_g_per_s) || policy.embodied_g_per_s < 0.0)
    throw std::invalid_argument("embodied_g_per_s: not a finite number >= 0");
}

}  // namespace

void board_init(BoardFile& file) noexcept {
  new (&file) BoardFile{};
  store(file.magic, kBoardMagic);
  store(file.layout, kBoardLayout);
  store(file.boot, boot_id());
  board_clear(file);
}

bool board_valid(const BoardFile& file) noexcept {
  return load(file.magic) == kBoardMagic && load(file.layout) == kBoardLayout &&
         load(file.active) <= 1;
}

void board_publish(BoardFile& file, const Policy& policy) noexcept {
  Payload payload{};
  payload[B::kVersion] = policy.version;
  payload[B::kSeed] = policy.seed;
  payload[B::kPackHash] = policy.pack_hash;
  payload[B::kShape] = policy.levels | (policy.paused ? kPausedBit : 0) | kPresentBit;
  payload[B::kDeadline] = static_cast<std::uint64_t>(policy.deadline_boottime_ns);
  payload[B::kControl] = bits(policy.control_share);
  payload[B::kCanary] = bits(policy.canary_share);
  payload[B::kIntensity] = bits(policy.intensity_g_per_kwh);
  payload[B::kPue] = bits(policy.pue);
  payload[B::kEmbodied] = bits(policy.embodied_g_per_s);
  for (std::size_t i = 0; i < kMaxLevels; ++i)
    payload[B::kShares + i] = bits(i < policy.levels ? policy.shares[i] : 0.0);
  write_payload(file, payload);
}

void board_clear(BoardFile& file) noexcept { write_payload(file, Payload{}); }

BoardState board_copy(const BoardFile& file, BoardCopy& copy) noexcept {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::uint64_t active = load(file.active);
    if (active > 1) return BoardState::kCorrupt;
    const BoardBuffer& buffer = file.buffer[active];
    const std::uint64_t sequence = load(buffer.sequence);
    if (sequence & 1) continue;  // flipped and being written again since `active` was read
    Payload payload;
    load_all(buffer.payload, payload.data(), payload.size());
    const std::uint64_t stamp = load(buffer.checksum);
    // Between the loads of `active` and `sequence` the writer may have come round to this buffer
    // and not yet flipped: what is not in force is not to be seen, since its writer may die first.
    if (load(file.active) != active) continue;
    // Each load acquires: had one of them seen a later writing, this one would see its sequence.
    if (load(buffer.sequence) != sequence) continue;
    const bool known = copy.words[0] == sequence &&
                       std::memcmp(copy.words.data() + 1, payload.data(), sizeof payload) == 0;
    if (!known && stamp != checksum(sequence, payload)) return BoardState::kCorrupt;
    copy.words[0] = sequence;
    std::copy(payload.begin(), payload.end(), copy.words.begin() + 1);
    return payload[B::kShape] & kPresentBit ? BoardState::kOk : BoardState::kAbsent;
  }
  return BoardState::kCorrupt;
}

bool board_decode(const BoardCopy& copy, Policy& policy, Thresholds& out) noexcept {
  const std::uint64_t* payload = copy.words.data() + 1;
  policy.version = payload[B::kVersion];
  policy.seed = payload[B::kSeed];
  policy.pack_hash = payload[B::kPackHash];
  policy.levels = static_cast<std::uint32_t>(payload[B::kShape] & 0xFF);
  policy.paused = (payload[B::kShape] & kPausedBit) != 0;
  policy.deadline_boottime_ns = static_cast<std::int64_t>(payload[B::kDeadline]);
  policy.control_share = real(payload[B::kControl]);
  policy.canary_share = real(payload[B::kCanary]);
  policy.intensity_g_per_kwh = real(payload[B::kIntensity]);
  policy.pue = real(payload[B::kPue]);
  policy.embodied_g_per_s = real(payload[B::kEmbodied]);
  for (std::size_t i = 0; i < kMaxLevels; ++i) policy.shares[i] = real(payload[B::kShares + i]);
  if (policy.levels > kMaxLevels) return false;
  try {
    check(policy);
    out = thresholds({policy.shares.data(), policy.levels});
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

BoardWriter::BoardWriter(std::string path) : path_(std::move(path)) {
  const auto adopt = [this] {
    Mapping mapping(path_, Access::kWrite, sizeof(BoardFile));
    const BoardFile& found = *mapping.as<BoardFile>();
    if (!board_valid(found) || load(found.boot) != boot_id())
      throw CorruptFile(path_ + ": not a policy board of this version and boot");
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
  replace_file(path_, sizeof(BoardFile),
               [](std::byte* data) { board_init(*reinterpret_cast<BoardFile*>(data)); });
  mapping_ = adopt();
}

BoardFile& BoardWriter::file() {
  if (!mapping_) throw std::invalid_argument("the board writer is closed");
  return *mapping_.as<BoardFile>();
}

void BoardWriter::publish(const Policy& policy) {
  if (policy.levels > kMaxLevels) throw std::invalid_argument("shares: at most 8 levels");
  check(policy);
  board_publish(file(), policy);
}

void BoardWriter::clear() { board_clear(file()); }

BoardReader::BoardReader(std::string path, std::uint64_t pack_hash, std::uint64_t node_id,
                         std::uint64_t boot_epoch, std::uint32_t stub_index)
    : path_(std::move(path)),
      pack_hash_(pack_hash),
      node_id_(node_id),
      boot_epoch_(boot_epoch),
      stub_index_(stub_index) {}

void BoardReader::remap() noexcept {
  copy_ = {};
  decoded_ = false;
  mapping_ = Mapping();
  try {
    Mapping mapping(path_, Access::kRead, sizeof(BoardFile));
    unmapped_ = BoardState::kCorrupt;
    if (board_valid(*mapping.as<BoardFile>())) mapping_ = std::move(mapping);
  } catch (const FileError& error) {
    unmapped_ = error.code == ENOENT ? BoardState::kAbsent : BoardState::kCorrupt;
  } catch (const std::exception&) {
    unmapped_ = BoardState::kCorrupt;
  }
}

BoardState BoardReader::refresh() noexcept {
  if (watch_.due() && !mapping_.current(path_)) remap();
  if (!mapping_) return unmapped_;
  const BoardFile& file = *mapping_.as<BoardFile>();
  if (!board_valid(file)) return BoardState::kCorrupt;
  BoardCopy fresh = copy_;
  if (const BoardState state = board_copy(file, fresh); state != BoardState::kOk) return state;
  if (!decoded_ || fresh.words != copy_.words) {
    copy_ = fresh;
    decoded_ = board_decode(copy_, policy_, thresholds_);
    key_ = fold_key(policy_.seed, node_id_, boot_epoch_, stub_index_);
    control_ = threshold(policy_.control_share);
    canary_ = threshold(policy_.canary_share);
  }
  if (!decoded_) return BoardState::kCorrupt;
  if (load(file.boot) != boot_id() || boottime_ns() >= policy_.deadline_boottime_ns)
    return BoardState::kExpired;
  return policy_.pack_hash == pack_hash_ ? BoardState::kOk : BoardState::kPack;
}

void BoardReader::choose(std::uint64_t first, std::size_t count, Choice* out) noexcept {
  const BoardState state = refresh();
  const bool known =
      state == BoardState::kOk || state == BoardState::kExpired || state == BoardState::kPack;
  Choice base;
  base.state = state;
  base.intensity_g_per_kwh =
      known ? policy_.intensity_g_per_kwh : std::numeric_limits<double>::quiet_NaN();
  if (known) {
    base.pue = policy_.pue;
    base.embodied_g_per_s = policy_.embodied_g_per_s;
  }
  if (state == BoardState::kOk) {
    base.version = policy_.version;
    base.seed = policy_.seed;
    if (policy_.paused) base.flags = kPaused;
  } else {
    base.flags = kFallback;
  }
  const auto draw = [this](std::uint64_t sequence, Stream stream) {
    return philox_draw(key_, sequence, static_cast<std::uint32_t>(stream));
  };
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = base;
    if (base.flags != 0) continue;
    const std::uint64_t sequence = first + i;
    if (draw(sequence, Stream::kControl) < control_) {
      out[i].flags = kControl;
    } else if (draw(sequence, Stream::kCanary) >= canary_) {
      out[i].flags = kHeldBack;
    } else {
      out[i].level = static_cast<std::int32_t>(thresholds_.level(draw(sequence, Stream::kLevel)));
    }
  }
}

bool BoardReader::policy(Policy& out) noexcept {
  const BoardState state = refresh();
  if (state == BoardState::kAbsent || state == BoardState::kCorrupt) return false;
  out = policy_;
  return true;
}

BoardState BoardReader::state() noexcept { return refresh(); }

}  // namespace sprout
