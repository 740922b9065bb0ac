// SPDX-License-Identifier: Apache-2.0
//
// The policy board: one file, one writer (the agent), any number of readers (Triton's stubs).
//
// Two buffers. The writer fills the idle one, stamps its checksum, and then flips `active`; the
// buffer's sequence is odd while it is being filled. Whoever kills the writer at whatever point,
// the active buffer is whole. A reader copies the active buffer and takes the copy only if the
// sequence stayed the same and the checksum fits. It copies once per policy: from then on it only
// looks whether the same writing is still in force.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "mapping.h"
#include "mixes.h"
#include "sampler.h"
#include "sha256.h"
#include "weights.h"
#include "words.h"

namespace sprout {

inline constexpr std::uint64_t kBoardMagic = 0x3130445242525053;  // "SPRBRD01"
inline constexpr std::uint64_t kBoardLayout = 4;

// For a share of the requests, whatever their mix, as far as that has prices.
struct PromptPolicy : PriceSet {  // its prices: of those that no mix is for
  Digest weights{};               // of the scorer's weights; zero: they are not on this node
  double share = 0.0;

  bool operator==(const PromptPolicy&) const = default;
};

struct Policy {
  std::uint64_t version = 0;                // control-plane epoch << 32 | counter
  std::uint64_t seed = 0;                   // of the draws
  std::uint64_t pack_hash = 0;              // of the directive pack that the shares refer to
  std::array<double, kMaxLevels> shares{};  // (levels,), sums to 1
  std::uint32_t levels = 0;                 // 1 … 8
  bool paused = false;                      // kill switch: level 0 everywhere
  double control_share = 0.0;               // of all requests: level 0, for comparison
  double canary_share = 1.0;                // of all requests: under the policy
  std::int64_t deadline_boottime_ns = 0;    // CLOCK_BOOTTIME; from then on void
  double intensity_g_per_kwh = 0.0;         // NaN = unknown
  double pue = 1.0;                         // building energy / device energy
  double embodied_g_per_s = 0.0;            // per device-second
  std::array<Mix, kMaxMixes> mixes{};       // (mix_count,): for whom `shares` are not
  std::uint32_t mix_count = 0;              // 0 … 32
  PromptPolicy prompt;                      // no points: no level is chosen by its prompt
};

struct BoardBuffer {
  enum Field : std::size_t {
    kVersion,
    kSeed,
    kPackHash,
    kShape,  // levels | paused << 8 | present << 9
    kDeadline,
    kControl,
    kCanary,
    kIntensity,
    kPue,
    kEmbodied,
    kMixes,  // how many | those of tenants << 32, a bit each
    kShares,
    kRows = kShares + kMaxLevels,  // kMaxMixes of kRow words: name, shares
    kRow = kNameBytes / 8 + kMaxLevels,
    kWeights = kRows + kMaxMixes * kRow,  // a digest
    kPrompt = kWeights + 4,               // share
    // Of all others, then of each of the kMaxMixes: kSet words, the number of points, g per joule,
    // kMaxPoints of kPoint words (fraction, g per preference, g).
    kSets = kPrompt + 1,
    kPoint = 2 + kMaxLevels,
    kSet = 1 + kMaxLevels + kMaxPoints * kPoint,
    kPayload = kSets + (1 + kMaxMixes) * kSet,
  };
  Word sequence;           // odd while being written
  Word payload[kPayload];  // by Field; doubles as their bits; what is not used is zero
  Word checksum;           // fold(sequence, payload…)
  Word unused[5];
};
static_assert(BoardBuffer::kPayload == 1993 && sizeof(BoardBuffer) == 16000);

struct BoardFile {
  Word magic;
  Word layout;
  Word boot;    // boot_id() of the writer: a deadline of another boot means nothing
  Word active;  // 0 or 1
  Word unused[4];
  BoardBuffer buffer[2];
};
static_assert(sizeof(BoardFile) == 32064 && alignof(BoardFile) == 8);

enum class BoardState : int { kOk = 0, kAbsent = 1, kExpired = 2, kCorrupt = 3, kPack = 4 };

// What tells one writing on a board from all others.
struct Stamp {
  std::uint64_t active = 0, sequence = 0, checksum = 0;
  bool operator==(const Stamp&) const = default;
};

// A verified copy of a buffer. Sequence 0: nothing yet.
struct BoardCopy {
  Stamp stamp;
  std::array<std::uint64_t, BoardBuffer::kPayload> payload{};
};

void board_init(BoardFile& file) noexcept;
bool board_valid(const BoardFile& file) noexcept;  // header only
void board_publish(BoardFile& file, const Policy& policy) noexcept;
void board_clear(BoardFile& file) noexcept;
// kOk, kAbsent (cleared), kCorrupt. `copy` may hold an earlier copy: if that is still in force, it
// stays as it is.
BoardState board_copy(const BoardFile& file, BoardCopy& copy) noexcept;

// A policy as requests need it.
struct Rules {
  Mixes mixes;
  Digest weights{};
  std::uint64_t by_prompt = 0;  // a threshold: of the requests whose prompt may choose
  bool lacking() const noexcept { return weights == Digest{}; }
};
// False where the words are no policy (a file written by something else).
bool board_decode(const BoardCopy& copy, Policy& policy, Rules& rules) noexcept;

// What a request gets, and why.
enum Flag : std::uint32_t {
  kPinned = 1,
  kOff = 2,
  kControl = 4,
  kFallback = 8,
  kHeldBack = 16,
  kPaused = 32,
  kProbe = 64,
  kEvaluation = 128,
  kByPrompt = 256,
  // 512 is no flight's: an outcome's alone, settled without a meter.
  kUnscored = 1024,  // its prompt was to choose, but the weights are not to be had
};

struct Choice {
  std::int32_t level = 0;
  std::uint32_t flags = 0;    // of Flag
  std::uint64_t version = 0;  // 0 = no policy
  std::uint64_t seed = 0;
  double intensity_g_per_kwh = 0.0;  // NaN = unknown
  double pue = 1.0;
  double embodied_g_per_s = 0.0;
  BoardState state = BoardState::kAbsent;
};

class BoardWriter {
 public:
  // Takes over a valid file, else puts a new one. FileError: EBUSY while another writer lives.
  explicit BoardWriter(std::string path);
  void publish(const Policy& policy);  // std::invalid_argument: names the field
  void clear();
  void close() noexcept { mapping_ = Mapping(); }
  const std::string& path() const noexcept { return path_; }

 private:
  BoardFile& file();
  std::string path_;
  Mapping mapping_;
};

// Of any number of threads, one after the other.
class BoardReader {
 public:
  BoardReader(std::string path, std::uint64_t pack_hash, std::uint64_t node_id,
              std::uint64_t boot_epoch, std::uint32_t stub_index);
  // One snapshot for all of first … first+count-1. Never throws; no call to the kernel but the
  // clock's, a stat once a second, and reading the weights once after they changed. askers:
  // (count,), or nullptr if nobody has a name; texts: (count,), or nullptr where no prompt is to
  // choose; out: (count,).
  void choose(std::uint64_t first, std::size_t count, const Asker* askers,
              const std::string_view* texts, Choice* out) noexcept;
  // Whether the policy in force has levels chosen by prompts, and names weights: texts are needed.
  bool by_prompt() noexcept;
  // How likely each level is for a request whose prompt chooses; out: (8,). 0 levels: who asks has
  // none chosen, or the weights are not to be had.
  std::uint32_t shares(std::string_view text, const Asker& asker, std::span<double> out) noexcept;
  // The policy that is there, valid or not; false if there is none.
  bool policy(Policy& out) noexcept;
  BoardState state() noexcept;

 private:
  BoardState refresh() noexcept;
  void remap() noexcept;
  const Scorer* scorer() noexcept;

  std::mutex mutex_;
  std::string path_;
  std::uint64_t pack_hash_, node_id_, boot_epoch_;
  std::uint32_t stub_index_;
  Mapping mapping_;
  Watch watch_;
  BoardState unmapped_ = BoardState::kAbsent;  // why there is no mapping
  BoardCopy copy_;
  Stamp decoded_;       // of the copy that the rest stands for
  bool valid_ = false;  // it is a policy
  Policy policy_;
  Rules rules_;
  ScorerFile scorer_;
  std::uint64_t key_ = 0, control_ = 0, canary_ = 0;
};

}  // namespace sprout
