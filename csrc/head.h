// SPDX-License-Identifier: Apache-2.0
//
// How a file begins that one stub process owns (a segment of flights, a ring of prompts): whose it
// is, of what shape, and the tag that its name ends in.
#pragma once

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

#include "mapping.h"
#include "words.h"

namespace sprout {

// What tells the files of one kind from others.
struct FileKind {
  const char* what;
  const char* prefix;  // of its name
  std::uint64_t magic;
  std::uint64_t layout;  // layout version | size of a row << 32
};

// Written before the file has a name, never after. What stands in the upper half of `owner` and in
// `shape` is the kind's own.
struct Head {
  Word magic;
  Word layout;
  Word uid;      // random: the boot epoch of the stub, part of the key of its draws
  Word owner;    // pid | … << 32
  Word started;  // start time of the owner, ticks since boot (/proc/PID/stat, field 22)
  Word node;     // node id
  Word shape;
  Word tag;       // 1 … 65535, in the file's name too
  Word checksum;  // fold of the eight above
  Word unused[7];
};
static_assert(sizeof(Head) == 128);
inline constexpr std::size_t kChecked = 8;  // words under the checksum

struct Owner {
  std::uint64_t uid = 0, node_id = 0, started = 0;
  std::uint32_t pid = 0;
  std::uint16_t tag = 0;  // of its file

  bool alive() const noexcept {
    const std::uint64_t now = process_started(pid);
    return now == kNotTold || (now != 0 && now == started);
  }
};

// This process, whose file has no tag yet. FileError: its start time is not told.
inline Owner this_process(std::uint64_t node_id) {
  Owner owner;
  owner.uid = random_word();
  owner.node_id = node_id;
  owner.pid = static_cast<std::uint32_t>(::getpid());
  owner.started = process_started(owner.pid);
  if (owner.started == kNotTold) throw FileError(EMFILE, "no start time", "/proc/self/stat");
  return owner;
}

inline Owner owner_of(const Head& head) noexcept {
  Owner owner;
  owner.uid = load(head.uid);
  owner.node_id = load(head.node);
  owner.started = load(head.started);
  owner.pid = low(load(head.owner));
  owner.tag = static_cast<std::uint16_t>(load(head.tag));
  return owner;
}

// At the start of zeroed memory. upper: half of the word `owner`.
inline void head_init(std::byte* data, const FileKind& kind, const Owner& owner,
                      std::uint32_t upper, std::uint64_t shape) noexcept {
  Head& head = *new (data) Head{};
  const std::array<std::uint64_t, kChecked> words = {
      kind.magic,    kind.layout,   owner.uid, pack(owner.pid, upper),
      owner.started, owner.node_id, shape,     owner.tag};
  store_all(&head.magic, words.data(), words.size());
  store(head.checksum, fold(words.data(), words.size()));
}

// CorruptFile unless the head is a whole one of this kind.
inline void head_check(const Head& head, const FileKind& kind) {
  std::array<std::uint64_t, kChecked> words;
  load_all(&head.magic, words.data(), words.size());
  const std::string what = kind.what;
  if (words[0] != kind.magic) throw CorruptFile(what + ": not one");
  if (words[1] != kind.layout) throw CorruptFile(what + ": of another version");
  if (load(head.checksum) != fold(words.data(), words.size()))
    throw CorruptFile(what + ": wrong checksum");
}

inline std::string tagged_name(const FileKind& kind, std::uint16_t tag) {
  constexpr char digits[] = "0123456789abcdef";
  std::string name = kind.prefix;
  for (int shift = 12; shift >= 0; shift -= 4) name += digits[tag >> shift & 0xF];
  return name;
}

// Makes a file of `size` bytes under a free tag, which `owner` has as `fill` is called; its path.
inline std::string create_tagged(const std::string& directory, const FileKind& kind,
                                 std::size_t size, Owner& owner, const Fill& fill) {
  for (int attempt = 0; attempt < 64; ++attempt) {
    owner.tag = static_cast<std::uint16_t>(1 + random_word() % 0xFFFF);
    std::string path = directory + "/" + tagged_name(kind, owner.tag);
    if (create_file(path, size, fill)) return path;
  }
  throw FileError(EEXIST, std::string("no free name of a ") + kind.what, directory);
}

}  // namespace sprout
