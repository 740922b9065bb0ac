// SPDX-License-Identifier: Apache-2.0
#include "ring.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <stdexcept>

namespace sprout {
namespace {

constexpr std::uint64_t state_of(std::uint64_t number, RingSlot::Mark mark) noexcept {
  return number << 2 | mark;
}
constexpr std::uint32_t mark_of(std::uint64_t state) noexcept { return state & 3; }

bool swap(Word& word, std::uint64_t expected, std::uint64_t value) noexcept {
  SPROUT_BEFORE_ACCESS();
  return word.compare_exchange_strong(expected, value, std::memory_order_acq_rel);
}

RingSlot& slot_of(const RingView& view, std::uint64_t number) noexcept {
  const std::uint64_t index = (number - 1) % view.slots;
  return *reinterpret_cast<RingSlot*>(view.first + index * slot_bytes(view.prompt_bytes));
}

Word* text_of(RingSlot& slot) noexcept { return reinterpret_cast<Word*>(&slot + 1); }

constexpr std::size_t words_of(std::size_t bytes) noexcept { return (bytes + 7) / 8; }

// The words of the text that the slot holds, whatever its sizes say.
std::size_t held_words(const RingView& view, const RingSlot& slot) noexcept {
  return words_of(std::min(low(load(slot.sizes)), view.prompt_bytes));
}

void zero(Word* first, std::size_t from, std::size_t until) noexcept {
  for (std::size_t i = from; i < until; ++i) store(first[i], 0);
}

// Of a slot in the caller's hands: the text, and what it says of whose it was.
void wipe(const RingView& view, RingSlot& slot) noexcept {
  zero(text_of(slot), 0, held_words(view, slot));
  zero(slot.task, 0, std::size(slot.task));
  zero(slot.tenant, 0, std::size(slot.tenant));
  store(slot.sizes, 0);
}

void store_name(Word* to, std::string_view name) noexcept {
  const Name words = name_of(name);
  store_all(to, words.data(), words.size());
}

std::string load_name(const Word* from) {
  Name words;
  load_all(from, words.data(), words.size());
  return std::string(name_text(words));
}

// A core dump is a file on a disk: prompts stay out of it.
void keep_out_of_dumps(const Mapping& mapping) noexcept {
  ::madvise(mapping.data(), mapping.size(), MADV_DONTDUMP);
}

void check_memory_backed(const std::string& directory) {
  struct statfs status{};
  if (::statfs(directory.c_str(), &status) != 0) throw FileError(errno, "statfs", directory);
  if (status.f_type != TMPFS_MAGIC && status.f_type != RAMFS_MAGIC)
    throw FileError(ENOTSUP, "prompts are kept in memory alone; not memory-backed", directory);
}

}  // namespace

RingView ring_view(std::byte* data, std::size_t size) {
  RingView view;
  if (size < ring_bytes(0, 0)) throw CorruptFile("ring: too short");
  view.head = reinterpret_cast<Head*>(data);
  head_check(*view.head, kRingFile);
  const std::uint64_t shape = load(view.head->shape);
  view.slots = low(shape);
  view.prompt_bytes = high(shape);
  if (view.slots == 0 || view.slots > kMaxSlots || view.prompt_bytes > kMaxPromptBytes ||
      size < ring_bytes(view.slots, view.prompt_bytes))
    throw CorruptFile("ring: shorter than its slots");
  view.marks = reinterpret_cast<RingMarks*>(data + sizeof(Head));
  view.first = data + sizeof(Head) + sizeof(RingMarks);
  return view;
}

void ring_init(std::byte* data, const RingIdentity& identity) noexcept {
  // The rest of the file is zero, which is what an empty ring looks like.
  head_init(data, kRingFile, identity, identity.stub_index,
            pack(identity.slots, identity.prompt_bytes));
}

RingIdentity ring_identity(const RingView& view) noexcept {
  const Head& head = *view.head;
  return {owner_of(head), high(load(head.owner)), view.slots, view.prompt_bytes};
}

RingCounts ring_counts(const RingView& view) noexcept {
  const auto& [writer, reader] = *view.marks;
  return {load(writer.written), load(writer.too_long), load(writer.refused),
          load(writer.unknown), load(reader.read),     load(reader.missed)};
}

bool ring_write(RingView& view, const PromptFacts& facts, std::string_view task,
                std::string_view tenant, std::string_view text) noexcept {
  RingMarks::Writer& marks = view.marks->writer;
  if (text.size() > view.prompt_bytes) {
    store(marks.too_long, load(marks.too_long) + 1);
    return false;
  }
  const std::uint64_t number = load(marks.written) + 1;
  RingSlot& slot = slot_of(view, number);
  const std::uint64_t before = load(slot.state);
  if (mark_of(before) == RingSlot::kClaimed ||
      !swap(slot.state, before, state_of(number, RingSlot::kWriting))) {
    // Not this slot again: a reader that died in it would keep it for ever.
    store(marks.written, number);
    return false;
  }
  const std::size_t held = held_words(view, slot), needed = words_of(text.size());
  store(slot.level_flags, facts.level | std::uint64_t{facts.flags} << 16);
  store(slot.policy_version, facts.policy_version);
  store(slot.propensity, bits(facts.propensity));
  store(slot.sizes, pack(static_cast<std::uint32_t>(text.size()), facts.max_tokens));
  store(slot.opened_ns, static_cast<std::uint64_t>(facts.opened_ns));
  store_name(slot.task, task);
  store_name(slot.tenant, tenant);
  Word* const words = text_of(slot);
  for (std::size_t i = 0; i < needed; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + 8 * i, std::min<std::size_t>(8, text.size() - 8 * i));
    store(words[i], word);
  }
  zero(words, needed, held);  // the end of a longer prompt that nobody read
  store(slot.state, state_of(number, RingSlot::kWhole));
  store(marks.written, number);
  return true;
}

std::vector<RingPrompt> ring_drain(RingView& view) {
  RingMarks::Reader& marks = view.marks->reader;
  const std::uint64_t written = load(view.marks->writer.written);
  const std::uint64_t read = std::min(load(marks.read), written);
  const std::uint64_t lost = std::max(read, written - std::min<std::uint64_t>(written, view.slots));
  std::uint64_t missed = load(marks.missed) + (lost - read);
  std::vector<RingPrompt> prompts;
  for (std::uint64_t number = lost + 1; number <= written; ++number) {
    RingSlot& slot = slot_of(view, number);
    if (!swap(slot.state, state_of(number, RingSlot::kWhole),
              state_of(number, RingSlot::kClaimed))) {
      ++missed;
    } else {
      RingPrompt prompt;
      prompt.number = number;
      const std::uint64_t level_flags = load(slot.level_flags), sizes = load(slot.sizes);
      prompt.facts.level = static_cast<std::uint8_t>(level_flags);
      prompt.facts.flags = static_cast<std::uint16_t>(level_flags >> 16);
      prompt.facts.policy_version = load(slot.policy_version);
      prompt.facts.propensity = real(load(slot.propensity));
      prompt.facts.max_tokens = high(sizes);
      prompt.facts.opened_ns = static_cast<std::int64_t>(load(slot.opened_ns));
      prompt.task = load_name(slot.task);
      prompt.tenant = load_name(slot.tenant);
      const std::size_t size = std::min(low(sizes), view.prompt_bytes);
      prompt.text.resize(size);
      const Word* const words = text_of(slot);
      for (std::size_t i = 0; i < words_of(size); ++i) {
        const std::uint64_t word = load(words[i]);
        std::memcpy(prompt.text.data() + 8 * i, &word, std::min<std::size_t>(8, size - 8 * i));
      }
      wipe(view, slot);
      store(slot.state, state_of(number, RingSlot::kEmpty));
      prompts.push_back(std::move(prompt));
    }
    store(marks.missed, missed);
    store(marks.read, number);
  }
  return prompts;
}

void ring_recover(RingView& view) noexcept {
  for (std::uint64_t number = 1; number <= view.slots; ++number) {
    RingSlot& slot = slot_of(view, number);
    const std::uint64_t state = load(slot.state);
    if (mark_of(state) != RingSlot::kClaimed) continue;
    wipe(view, slot);
    store(slot.state, state_of(state >> 2, RingSlot::kEmpty));
  }
}

Ring::Ring(const std::string& directory, std::uint32_t stub_index, std::uint64_t node_id,
           std::uint32_t slots, std::uint32_t prompt_bytes) {
  if (slots == 0 || slots > kMaxSlots) throw std::invalid_argument("slots: 1 to 65536");
  if (prompt_bytes == 0 || prompt_bytes > kMaxPromptBytes)
    throw std::invalid_argument("prompt_bytes: 1 to 1048576");
  check_memory_backed(directory);
  identity_ = {this_process(node_id), stub_index, slots, prompt_bytes};
  const std::size_t size = ring_bytes(slots, prompt_bytes);
  path_ = create_tagged(directory, kRingFile, size, identity_,
                        [this](std::byte* data) { ring_init(data, identity_); });
  mapping_ = Mapping(path_, Access::kWrite, size);
  keep_out_of_dumps(mapping_);
  view_ = ring_view(mapping_.data(), mapping_.size());
}

RingView& Ring::view() {
  if (!mapping_) throw std::invalid_argument("the ring is closed");
  return view_;
}

bool Ring::write(const PromptFacts& facts, std::string_view task, std::string_view tenant,
                 std::string_view text) {
  if (task.size() >= kNameBytes) throw std::invalid_argument("task: at most 23 bytes");
  if (tenant.size() >= kNameBytes) throw std::invalid_argument("tenant: at most 23 bytes");
  return ring_write(view(), facts, task, tenant, text);
}

void Ring::refused() {
  Word& count = view().marks->writer.refused;
  store(count, load(count) + 1);
}

void Ring::unknown() {
  Word& count = view().marks->writer.unknown;
  store(count, load(count) + 1);
}

void Ring::close(bool unlink) {
  if (!mapping_) return;
  if (unlink && mapping_.current(path_)) ::unlink(path_.c_str());
  mapping_ = Mapping();
}

RingReader::RingReader(std::string path)
    : path_(std::move(path)), mapping_(path_, Access::kWrite, ring_bytes(0, 0)) {
  keep_out_of_dumps(mapping_);
  view_ = ring_view(mapping_.data(), mapping_.size());
  identity_ = ring_identity(view_);
  ring_recover(view_);
}

}  // namespace sprout
