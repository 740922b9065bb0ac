// SPDX-License-Identifier: Apache-2.0
//
// Runs the writers of a shared file against its readers, without Python: as threads (for
// ThreadSanitizer, which sees all memory there is), or as processes that are killed with -9.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#define EXPECT(condition)                                                            \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::fflush(stderr);                                                           \
      std::_Exit(1);                                                                 \
    }                                                                                \
  } while (false)

namespace sprout::test {

using Running = std::atomic<bool>;
using Writer = void (*)(std::byte* memory, const Running& running);

struct Scenario {
  std::size_t bytes;
  void (*init)(std::byte* memory);  // a fresh file in zeroed memory
  std::vector<Writer> writers;      // one process or thread each; go on with what they find
  void (*check)(std::byte* memory);
  std::uint64_t (*written)(std::byte* memory);  // how much the writers did so far
  // After all writers were killed: what the next ones need. May be empty.
  void (*bury)(std::byte* memory) = nullptr;
};

inline std::byte* shared_memory(std::size_t bytes) {
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT(memory != MAP_FAILED);
  return static_cast<std::byte*>(memory);
}

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kLeast = 100;  // writings that show anything

// On a busy machine the writers may hardly have run by then: they get up to a minute more.
inline bool enough(const Scenario& scenario, std::byte* memory, Clock::time_point until) {
  const auto now = Clock::now();
  return now >= until &&
         (scenario.written(memory) > kLeast || now >= until + std::chrono::minutes(1));
}

inline long threads(const Scenario& scenario, std::byte* memory, Clock::time_point until) {
  Running running = true;
  std::atomic<long> checks = 0;
  std::vector<std::thread> all;
  for (const Writer writer : scenario.writers)
    all.emplace_back([=, &running] { writer(memory, running); });
  for (int i = 0; i < 2; ++i) {
    all.emplace_back([&, memory] {
      for (; running; ++checks) {
        scenario.check(memory);
        if (checks % 8 == 0) ::sched_yield();  // more threads than cores: let the writers write
      }
    });
  }
  std::this_thread::sleep_until(until);
  while (!enough(scenario, memory, until))
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  running = false;
  for (std::thread& thread : all) thread.join();
  return checks;
}

inline long kills(const Scenario& scenario, std::byte* memory, Clock::time_point until) {
  std::mt19937 random(7);
  const pid_t parent = ::getpid();
  long rounds = 0;
  for (; !enough(scenario, memory, until); ++rounds) {
    std::vector<pid_t> children;
    for (const Writer writer : scenario.writers) {
      const pid_t child = ::fork();
      EXPECT(child >= 0);
      if (child == 0) {
        // Nobody hammers on after a failed check.
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) std::_Exit(2);
        const Running running = true;
        writer(memory, running);
        std::_Exit(2);
      }
      children.push_back(child);
    }
    const auto death = Clock::now() + std::chrono::microseconds(50 + random() % 3000);
    do {
      scenario.check(memory);
      ::sched_yield();
    } while (Clock::now() < death);
    for (const pid_t child : children) {
      int status = 0;
      EXPECT(::kill(child, SIGKILL) == 0);
      EXPECT(::waitpid(child, &status, 0) == child);
      EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      scenario.check(memory);  // while its fellows go on
    }
    if (scenario.bury != nullptr) scenario.bury(memory);
  }
  return rounds;
}

// PROGRAM threads|kills SECONDS
inline int run(const Scenario& scenario, int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s threads|kills SECONDS\n", argv[0]);
    return 2;
  }
  std::byte* const memory = shared_memory(scenario.bytes);
  scenario.init(memory);
  const auto until = Clock::now() + std::chrono::milliseconds(std::atol(argv[2]) * 1000);
  const bool kill = std::string_view(argv[1]) == "kills";
  const long done = (kill ? kills : threads)(scenario, memory, until);
  scenario.check(memory);
  const auto written = static_cast<unsigned long long>(scenario.written(memory));
  EXPECT(done > 0 && written > kLeast);
  std::printf("%s: %ld %s, %llu writings, no fault\n", argv[0], done,
              kill ? "rounds of kills" : "checks", written);
  ::munmap(memory, scenario.bytes);
  return 0;
}

}  // namespace sprout::test
