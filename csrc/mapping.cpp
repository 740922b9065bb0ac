// SPDX-License-Identifier: Apache-2.0
#include "mapping.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

#include "words.h"

namespace sprout {
namespace {

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

[[noreturn]] void fail(const char* what, const std::string& path, int code = errno) {
  throw FileError(code, what, path);
}

// Reserves, maps, fills, unmaps.
void prepare(int fd, const std::string& path, std::size_t size, const Fill& fill) {
  if (const int code = ::posix_fallocate(fd, 0, static_cast<off_t>(size)); code != 0)
    fail("no memory for the file", path, code);
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) fail("mmap", path);
  fill(static_cast<std::byte*>(data));
  ::munmap(data, size);
}

}  // namespace

std::string parent(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Mapping::Mapping(const std::string& path, Access access, std::size_t least) {
  const bool write = access == Access::kWrite;
  File file(
      ::open(path.c_str(), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0) fail("open", path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) fail("fstat", path);
  if (!S_ISREG(status.st_mode)) throw CorruptFile(path + ": not a plain file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < least || size == 0) throw CorruptFile(path + ": too short");
  void* const data =
      ::mmap(nullptr, size, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) fail("mmap", path);
  data_ = static_cast<std::byte*>(data);
  size_ = size;
  device_ = status.st_dev;
  inode_ = status.st_ino;
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      device_(other.device_),
      inode_(other.inode_),
      fd_(std::exchange(other.fd_, -1)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(device_, other.device_);
  std::swap(inode_, other.inode_);
  std::swap(fd_, other.fd_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
}

bool Mapping::current(const std::string& path) const noexcept {
  struct stat status{};
  return data_ != nullptr && ::stat(path.c_str(), &status) == 0 && status.st_ino == inode_ &&
         status.st_dev == device_;
}

void Mapping::unlink(const std::string& path) const {
  if (current(path) && ::unlink(path.c_str()) != 0 && errno != ENOENT) fail("unlink", path);
}

void Mapping::lock(const std::string& path) {
  File file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (file.get() < 0) fail("open", path);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) fail("another writer holds this file", path, EBUSY);
    fail("flock", path);
  }
  if (!current(path)) fail("replaced by another writer just now", path, EBUSY);
  fd_ = file.release();
}

void replace_file(const std::string& path, std::size_t size, const Fill& fill) {
  // One writer, one name: what a killed writer left half made is taken away by the next.
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  File file(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) fail("open", temporary);
  try {
    prepare(file.get(), temporary, size, fill);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail("rename", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

bool create_file(const std::string& path, std::size_t size, const Fill& fill) {
  // A file without a name gets its name when it is whole; if we die before, nothing is left.
  if (const File file(::open(parent(path).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
      file.get() >= 0) {
    prepare(file.get(), path, size, fill);
    const std::string self = "/proc/self/fd/" + std::to_string(file.get());
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0)
      return true;
    if (errno == EEXIST) return false;
  }
  // File systems without O_TMPFILE, or no /proc: a name of its own first.
  const std::string temporary = path + "." + std::to_string(::getpid()) + ".new";
  const File file(
      ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) fail("open", temporary);
  int code = 0;
  try {
    prepare(file.get(), temporary, size, fill);
    if (::link(temporary.c_str(), path.c_str()) != 0) code = errno;
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  ::unlink(temporary.c_str());
  if (code != 0 && code != EEXIST) fail("link", path, code);
  return code == 0;
}

std::vector<std::byte> read_file(const std::string& path, std::size_t most) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0) fail("open", path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) fail("fstat", path);
  if (!S_ISREG(status.st_mode)) throw CorruptFile(path + ": not a plain file");
  if (static_cast<std::size_t>(status.st_size) > most) throw CorruptFile(path + ": too large");
  std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path);
    if (got == 0) break;  // it shrank
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

bool Watch::due() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const std::int64_t now_ms = std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
  if (last_ms_ >= 0 && now_ms - last_ms_ < 1000) return false;
  last_ms_ = now_ms;
  return true;
}

std::int64_t boottime_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::uint64_t boot_id() noexcept {
  static const std::uint64_t id = [] {
    char text[64] = {};
    const File file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
    if (file.get() < 0 || ::read(file.get(), text, sizeof text - 1) < 36) return std::uint64_t{0};
    // FNV-1a of the 36 characters of the UUID.
    std::uint64_t hash = 0xCBF29CE484222325;
    for (int i = 0; i < 36; ++i)
      hash = (hash ^ static_cast<unsigned char>(text[i])) * 0x100000001B3;
    return hash;
  }();
  return id;
}

std::uint64_t process_started(std::uint32_t pid) noexcept {
  char path[32] = "/proc/";
  char* end = std::to_chars(path + 6, path + sizeof path - 6, pid).ptr;
  std::memcpy(end, "/stat", 6);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ESRCH ? 0 : kNotTold;
  char text[1024];
  const ssize_t got = ::read(fd, text, sizeof text);
  ::close(fd);
  if (got <= 0) return 0;
  // Field 2 is the command in parentheses and may hold anything: count fields after the last ')'.
  std::string_view rest(text, static_cast<std::size_t>(got));
  const auto paren = rest.rfind(')');
  if (paren == std::string_view::npos) return 0;
  rest.remove_prefix(paren + 1);
  // A zombie is dead; that its parent has not looked yet changes nothing.
  if (rest.size() > 1 && (rest[1] == 'Z' || rest[1] == 'X')) return 0;
  for (int field = 3; field <= 22; ++field) {
    const auto space = rest.find(' ');
    if (space == std::string_view::npos) return 0;
    rest.remove_prefix(space + 1);
  }
  std::uint64_t ticks = 0;
  std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
  return ticks;
}

std::uint64_t random_word() {
  std::uint64_t word = 0;
  if (::getrandom(&word, sizeof word, 0) != static_cast<ssize_t>(sizeof word))
    fail("getrandom", "");
  return word;
}

}  // namespace sprout
