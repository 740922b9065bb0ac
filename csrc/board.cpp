// SPDX-License-Identifier: Apache-2.0
#include "board.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
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
constexpr int kTries = 1000;  // writings are minutes apart: the second hardly ever fails

std::uint64_t checksum(std::uint64_t sequence, const Payload& payload) noexcept {
  const std::uint64_t first = fold(&sequence, 1);
  return fold(payload.data(), payload.size(), first);
}

void write_payload(BoardFile& file, const Payload& payload) noexcept {
  const std::uint64_t idle = 1 - (load(file.active) & 1);
  BoardBuffer& buffer = file.buffer[idle];
  // The next odd number, also after a writer that died while it was odd.
  const std::uint64_t odd = (load(buffer.sequence) + 1) | 1;
  const std::uint64_t sum = checksum(odd + 1, payload);
  store(buffer.sequence, odd);
  store_all(buffer.payload, payload.data(), payload.size());
  store(buffer.checksum, sum);
  store(buffer.sequence, odd + 1);
  store(file.active, idle);
}

// Of a policy in which everything is right.
Rules check(const Policy& policy) {
  if (policy.levels > kMaxLevels) throw std::invalid_argument("shares: at most 8 levels");
  if (policy.mix_count > kMaxMixes) throw std::invalid_argument("mixes: at most 32");
  const std::span mixes(policy.mixes.data(), policy.mix_count);
  const PromptPolicy& prompt = policy.prompt;
  Rules rules{Mixes({policy.shares.data(), policy.levels}, prompt, mixes), prompt.weights, 0};
  const auto share = [](double value) { return value >= 0.0 && value <= 1.0; };
  if (!share(policy.control_share)) throw std::invalid_argument("control_share: not in [0, 1]");
  if (!share(policy.canary_share)) throw std::invalid_argument("canary_share: not in [0, 1]");
  if (std::isinf(policy.intensity_g_per_kwh))
    throw std::invalid_argument("intensity_g_per_kwh: neither finite nor NaN");
  if (!std::isfinite(policy.pue) || policy.pue <= 0.0)
    throw std::invalid_argument("pue: not a finite number > 0");
  if (!std::isfinite(policy.embodied_g_per_s) || policy.embodied_g_per_s < 0.0)
    throw std::invalid_argument("embodied_g_per_s: not a finite number >= 0");
  if (prompt.point_count > 0) {
    if (!share(prompt.share)) throw std::invalid_argument("prompt: share: not in [0, 1]");
    rules.by_prompt = threshold(prompt.share);
  } else if (std::ranges::any_of(mixes,
                                 [](const Mix& mix) { return mix.prices.point_count > 0; })) {
    throw std::invalid_argument("mixes: prices, and none for all others");
  }
  return rules;
}

void put_set(const PriceSet& set, std::uint32_t levels, std::uint64_t* to) noexcept {
  *to++ = set.point_count;
  for (std::size_t l = 0; l < levels; ++l) to[l] = bits(set.g_per_joule[l]);
  to += kMaxLevels;
  for (const PricePoint& point : std::span(set.points).first(set.point_count)) {
    to[0] = bits(point.fraction);
    to[1] = bits(point.g_per_preference);
    for (std::size_t l = 0; l < levels; ++l) to[2 + l] = bits(point.g[l]);
    to += B::kPoint;
  }
}

void get_set(const std::uint64_t* from, PriceSet& set) noexcept {
  set.point_count = low(*from++);
  for (std::size_t l = 0; l < kMaxLevels; ++l) set.g_per_joule[l] = real(from[l]);
  from += kMaxLevels;
  for (PricePoint& point : set.points) {
    point.fraction = real(from[0]);
    point.g_per_preference = real(from[1]);
    for (std::size_t l = 0; l < kMaxLevels; ++l) point.g[l] = real(from[2 + l]);
    from += B::kPoint;
  }
}

constexpr std::size_t set_of(std::size_t mix) { return B::kSets + (1 + mix) * B::kSet; }

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
  const auto put = [&](std::size_t at, const std::array<double, kMaxLevels>& shares) {
    for (std::size_t i = 0; i < policy.levels; ++i) payload[at + i] = bits(shares[i]);
  };
  put(B::kShares, policy.shares);
  std::uint32_t tenants = 0;
  for (std::uint32_t i = 0; i < policy.mix_count; ++i) {
    const Mix& mix = policy.mixes[i];
    if (mix.tenant) tenants |= std::uint32_t{1} << i;
    const std::size_t row = B::kRows + i * B::kRow;
    std::copy(mix.name.begin(), mix.name.end(), payload.begin() + row);
    put(row + mix.name.size(), mix.shares);
    put_set(mix.prices, policy.levels, payload.data() + set_of(i));
  }
  payload[B::kMixes] = pack(policy.mix_count, tenants);
  if (const PromptPolicy& prompt = policy.prompt; prompt.point_count > 0) {
    std::copy(prompt.weights.begin(), prompt.weights.end(), payload.begin() + B::kWeights);
    payload[B::kPrompt] = bits(prompt.share);
    put_set(prompt, policy.levels, payload.data() + B::kSets);
  }
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
    // Between the two loads the writer may have come round to this buffer and not yet flipped: what
    // is not in force is not to be seen, since its writer may die first. If it still is the active
    // one, its writing of this sequence is in force, and a flip from here on does no harm.
    const Stamp stamp{active, sequence, load(buffer.checksum)};
    if (load(file.active) != active) continue;
    const bool known = sequence != 0 && stamp == copy.stamp;
    if (!known) {
      copy.stamp = {};  // until it is verified
      load_all(buffer.payload, copy.payload.data(), copy.payload.size());
    }
    // Each load acquires: had one of them seen a later writing, this one would see its sequence.
    if (load(buffer.sequence) != sequence) continue;
    if (!known && stamp.checksum != checksum(sequence, copy.payload)) return BoardState::kCorrupt;
    copy.stamp = stamp;
    return copy.payload[B::kShape] & kPresentBit ? BoardState::kOk : BoardState::kAbsent;
  }
  return BoardState::kCorrupt;
}

bool board_decode(const BoardCopy& copy, Policy& policy, Rules& out) noexcept {
  const Payload& payload = copy.payload;
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
  const auto get = [&](std::size_t at, std::array<double, kMaxLevels>& shares) {
    for (std::size_t i = 0; i < kMaxLevels; ++i) shares[i] = real(payload[at + i]);
  };
  get(B::kShares, policy.shares);
  policy.mix_count = low(payload[B::kMixes]);
  for (std::uint32_t i = 0; i < kMaxMixes; ++i) {
    Mix& mix = policy.mixes[i];
    const std::size_t row = B::kRows + i * B::kRow;
    std::copy_n(payload.begin() + row, mix.name.size(), mix.name.begin());
    mix.tenant = (high(payload[B::kMixes]) >> i & 1) != 0;
    get(row + mix.name.size(), mix.shares);
    get_set(payload.data() + set_of(i), mix.prices);
  }
  PromptPolicy& prompt = policy.prompt;
  std::copy_n(payload.begin() + B::kWeights, prompt.weights.size(), prompt.weights.begin());
  prompt.share = real(payload[B::kPrompt]);
  get_set(payload.data() + B::kSets, prompt);
  try {
    out = check(policy);
  } catch (const std::exception&) {
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
      stub_index_(stub_index),
      scorer_(parent(path_)) {}

void BoardReader::remap() noexcept {
  copy_ = {};
  decoded_ = {};
  valid_ = false;
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
  if (const BoardState state = board_copy(file, copy_); state != BoardState::kOk) return state;
  if (copy_.stamp != decoded_) {
    decoded_ = copy_.stamp;
    valid_ = board_decode(copy_, policy_, rules_);
    key_ = fold_key(policy_.seed, node_id_, boot_epoch_, stub_index_);
    control_ = threshold(policy_.control_share);
    canary_ = threshold(policy_.canary_share);
  }
  if (!valid_) return BoardState::kCorrupt;
  if (load(file.boot) != boot_id() || boottime_ns() >= policy_.deadline_boottime_ns)
    return BoardState::kExpired;
  return policy_.pack_hash == pack_hash_ ? BoardState::kOk : BoardState::kPack;
}

// nullptr: no such weights, or of other levels than the policy's.
const Scorer* BoardReader::scorer() noexcept {
  const Scorer* const found = scorer_.of(rules_.weights);
  return found != nullptr && found->levels() == policy_.levels ? found : nullptr;
}

void BoardReader::choose(std::uint64_t first, std::size_t count, const Asker* askers,
                         const std::string_view* texts, Choice* out) noexcept {
  const std::lock_guard lock(mutex_);
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
  const Mixes& mixes = rules_.mixes;
  // Without the weights on the node nobody reads a text, but who would have chosen is told apart.
  const bool lacking = rules_.lacking();
  const bool by_prompt = base.flags == 0 && rules_.by_prompt > 0 && (texts != nullptr || lacking);
  const Scorer* const scorer = by_prompt && !lacking ? this->scorer() : nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = base;
    if (base.flags != 0) continue;
    const std::uint64_t sequence = first + i;
    if (draw(sequence, Stream::kControl) < control_) {
      out[i].flags = kControl;
    } else if (draw(sequence, Stream::kCanary) >= canary_) {
      out[i].flags = kHeldBack;
    } else {
      const Served& mix = askers == nullptr ? mixes.others() : mixes.of(askers[i]);
      if (by_prompt && mix.prices.any() && draw(sequence, Stream::kPrompt) < rules_.by_prompt) {
        if (scorer != nullptr) {
          std::array<double, 2 * kMaxLevels> scores;
          scorer->score(texts[i], scores);
          out[i].flags = kByPrompt;
          out[i].level =
              static_cast<std::int32_t>(mix.prices.level(scores, draw(sequence, Stream::kPoint)));
          continue;
        }
        out[i].flags = kUnscored;
      }
      out[i].level = static_cast<std::int32_t>(mix.shares.level(draw(sequence, Stream::kLevel)));
    }
  }
}

bool BoardReader::by_prompt() noexcept {
  const std::lock_guard lock(mutex_);
  return refresh() == BoardState::kOk && !policy_.paused && rules_.by_prompt > 0 &&
         !rules_.lacking();
}

std::uint32_t BoardReader::shares(std::string_view text, const Asker& asker,
                                  std::span<double> out) noexcept {
  const std::lock_guard lock(mutex_);
  if (refresh() != BoardState::kOk || policy_.paused || rules_.by_prompt == 0) return 0;
  const Prices& prices = rules_.mixes.of(asker).prices;
  const Scorer* const scorer = prices.any() && !rules_.lacking() ? this->scorer() : nullptr;
  if (scorer == nullptr) return 0;
  std::array<double, 2 * kMaxLevels> scores;
  scorer->score(text, scores);
  prices.shares(scores, out);
  return policy_.levels;
}

bool BoardReader::policy(Policy& out) noexcept {
  const std::lock_guard lock(mutex_);
  const BoardState state = refresh();
  if (state == BoardState::kAbsent || state == BoardState::kCorrupt) return false;
  out = policy_;
  return true;
}

BoardState BoardReader::state() noexcept {
  const std::lock_guard lock(mutex_);
  return refresh();
}

}  // namespace sprout
