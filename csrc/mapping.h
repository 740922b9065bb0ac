// SPDX-License-Identifier: Apache-2.0
//
// Files in memory: how they come to be, how they are mapped, how a reader notices a new one.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace sprout {

// The operating system refused: errno and the file it was about.
struct FileError : std::runtime_error {
  FileError(int code_, const std::string& what, std::string path_)
      : std::runtime_error(what), code(code_), path(std::move(path_)) {}
  int code;  // errno
  std::string path;
};

// The bytes are not what this version writes.
struct CorruptFile : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Access { kRead, kWrite };

// A whole file, mapped shared; unmapped on destruction. The files never shrink, so a length that
// was checked at mapping stays good.
class Mapping {
 public:
  Mapping() = default;
  // FileError: can't be opened or mapped. CorruptFile: not a plain file, or shorter than `least`.
  Mapping(const std::string& path, Access access, std::size_t least);
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  explicit operator bool() const noexcept { return data_ != nullptr; }
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  template <typename T>
  T* as() const noexcept {
    return reinterpret_cast<T*>(data_);
  }

  // Does `path` still lead to this file?
  bool current(const std::string& path) const noexcept;
  // Takes the name away from this file, not from another that has it by now. FileError.
  void unlink(const std::string& path) const;
  // Only one process at a time holds this: FileError EBUSY where another one does. The kernel lets
  // go when the holder dies.
  void lock(const std::string& path);

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  int fd_ = -1;  // kept open only under a lock
};

using Fill = std::function<void(std::byte*)>;  // writes the first content of a zeroed file

// Puts a file of `size` bytes, mode 0600, at `path` in one step: nobody sees a part of it, its
// memory is reserved (no SIGBUS on a full tmpfs). `replace_file` takes the place of what is there
// and is for the one writer of `path`; `create_file` returns false if there is something.
void replace_file(const std::string& path, std::size_t size, const Fill& fill);
bool create_file(const std::string& path, std::size_t size, const Fill& fill);

// The bytes of a plain file; what becomes of the file afterwards does not matter. FileError: can't
// be read. CorruptFile: not a plain file, or of more than `most` bytes.
std::vector<std::byte> read_file(const std::string& path, std::size_t most);

// At most once a second, true: time to look whether a file was replaced.
class Watch {
 public:
  bool due() noexcept;
  void restart() noexcept { last_ms_ = -1; }

 private:
  std::int64_t last_ms_ = -1;  // CLOCK_MONOTONIC_COARSE
};

std::string parent(const std::string& path);  // the directory that it is in
std::int64_t boottime_ns() noexcept;
// Hash of the kernel's boot id: what was stamped under another boot is void. 0 where unreadable.
std::uint64_t boot_id() noexcept;
// Start time of a process in ticks since boot; 0 = there is no such process; kNotTold = it could
// not be asked (no descriptors left, no /proc): that is no reason to call it dead.
inline constexpr std::uint64_t kNotTold = ~std::uint64_t{0};
std::uint64_t process_started(std::uint32_t pid) noexcept;
std::uint64_t random_word();

}  // namespace sprout
