// SPDX-License-Identifier: Apache-2.0
//
// One reader of the board for several threads, while policies come and go, and with them weights
// that are there or not. Every level is compared with the plainest way to say the same; and nothing
// is allocated once the weights are read.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <new>
#include <string>

#include "board.h"
#include "harness.h"
#include "model.h"

namespace {

std::atomic<long> allocated = 0;  // times

}  // namespace

// Not inlined: the compiler would see half of a pair, and warn.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocated;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace sprout;
using test::Model;

constexpr std::size_t kModels = 2, kTexts = 8;

struct World {
  std::string folder;
  std::vector<Model> models;
  std::vector<Digest> digests;
  std::vector<std::string> texts;
  std::vector<std::string_view> views;
  std::vector<Asker> askers;
};

// Whose requests the texts are, in turn: of nobody, of a class with prices, of one without.
const std::array<Asker, 3> kAskers{Asker{}, Asker{{}, name_of("priced")},
                                   Asker{{}, name_of("mix")}};
constexpr std::int32_t kDrawn = 2;  // the level that all of the third get

// Version n: the weights of n % 3, of which the third are not there.
Policy policy_of(const World& world, std::uint64_t n) {
  Policy policy;
  policy.version = n;
  policy.levels = 3;
  policy.shares = {0.0, 1.0, 0.0};
  policy.paused = n % 7 == 0;
  policy.deadline_boottime_ns = boottime_ns() + std::int64_t{3600} * 1'000'000'000;
  policy.prompt.weights = n % 3 < kModels ? world.digests[n % 3] : Digest{1, 2, 3, 4};
  policy.prompt.share = 1.0;
  policy.prompt.g_per_joule = {1.0, 0.9, 0.8};
  policy.prompt.point_count = 1;
  policy.prompt.points[0] = {1.0, 2.0, {0.0, 0.1, 0.2}};
  policy.mix_count = 2;
  for (std::size_t i = 0; i < policy.mix_count; ++i) policy.mixes[i].name = kAskers[i + 1].task;
  policy.mixes[0].shares = policy.shares;
  policy.mixes[0].prices = policy.prompt;
  policy.mixes[0].prices.points[0] = {1.0, 1.0, {0.3, 0.0, 0.1}};
  policy.mixes[1].shares[kDrawn] = 1.0;
  return policy;
}

std::int32_t level_of(const Model& model, const PriceSet& prices, std::string_view text) {
  std::array<double, 6> scores;
  model.scorer->score(text, scores);
  std::array<double, 3> costs;
  const PricePoint& point = prices.points[0];
  for (std::size_t l = 0; l < costs.size(); ++l)
    costs[l] =
        point.g[l] + prices.g_per_joule[l] * scores[3 + l] - point.g_per_preference * scores[l];
  return static_cast<std::int32_t>(std::min_element(costs.begin(), costs.end()) - costs.begin());
}

void check(const World& world, const std::array<Choice, kTexts>& choices) {
  const Policy policy = policy_of(world, choices[0].version);
  for (std::size_t i = 0; i < kTexts; ++i) {
    const Choice& choice = choices[i];
    EXPECT(choice.state == BoardState::kOk && choice.version == policy.version);
    if (policy.paused) {
      EXPECT(choice.level == 0 && choice.flags == kPaused);
    } else if (i % kAskers.size() == 2) {
      EXPECT(choice.level == kDrawn && choice.flags == 0);
    } else if (policy.version % 3 < kModels) {
      const Model& model = world.models[policy.version % 3];
      const PriceSet& prices =
          i % kAskers.size() == 0 ? PriceSet(policy.prompt) : policy.mixes[0].prices;
      EXPECT(choice.level == level_of(model, prices, world.texts[i]));
      EXPECT(choice.flags == kByPrompt);
    } else {
      EXPECT(choice.level == 1 && choice.flags == kUnscored);
    }
  }
}

World make() {
  World world;
  char folder[] = "/tmp/sprout-prompt-XXXXXX";
  EXPECT(::mkdtemp(folder) != nullptr);
  world.folder = folder;
  for (std::uint32_t classes = 1; classes <= kModels; ++classes) {
    world.models.emplace_back(3, classes);
    const std::vector<std::byte> file = test::file_of(world.models.back());
    world.digests.push_back(sha256(file));
    std::ofstream out(world.folder + "/" + weights_name(world.digests.back()), std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.data()),
              static_cast<std::streamsize>(file.size()));
  }
  std::mt19937 random(1);
  for (std::size_t i = 0; i < kTexts; ++i) {
    std::string text(i * i * 100, '\0');
    for (char& c : text) c = static_cast<char>(random());
    world.texts.push_back(text);
  }
  world.views.assign(world.texts.begin(), world.texts.end());
  for (std::size_t i = 0; i < kTexts; ++i) world.askers.push_back(kAskers[i % kAskers.size()]);
  return world;
}

long hammer(const World& world, BoardReader& reader, test::Clock::time_point until) {
  std::array<Choice, kTexts> choices;
  std::array<double, kMaxLevels> shares;
  Policy policy;
  long done = 0;
  for (; test::Clock::now() < until; ++done) {
    reader.choose(static_cast<std::uint64_t>(done), kTexts, world.askers.data(), world.views.data(),
                  choices.data());
    check(world, choices);
    EXPECT(reader.policy(policy) && policy.prompt == policy_of(world, policy.version).prompt);
    reader.shares(world.views[1], kAskers[1], shares);
    reader.by_prompt();
  }
  return done;
}

}  // namespace

// PROGRAM threads SECONDS
int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s threads SECONDS\n", argv[0]);
    return 2;
  }
  const World world = make();
  const std::string path = world.folder + "/policy.board";
  BoardWriter writer(path);
  BoardReader reader(path, 0, 1, 2, 3);
  std::uint64_t version = 1;
  writer.publish(policy_of(world, version));

  std::array<Choice, kTexts> choices;
  reader.choose(0, kTexts, world.askers.data(), world.views.data(),
                choices.data());  // reads the weights
  const long before = allocated;
  for (std::uint64_t i = 0; i < 1000; ++i)
    reader.choose(i, kTexts, world.askers.data(), world.views.data(), choices.data());
  EXPECT(allocated == before);
  check(world, choices);

  const auto until = test::Clock::now() + std::chrono::seconds(std::atol(argv[2]));
  std::atomic<long> done = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { done += hammer(world, reader, until); });
  while (test::Clock::now() < until) {
    writer.publish(policy_of(world, ++version));
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  for (std::thread& thread : threads) thread.join();
  for (const Digest& digest : world.digests)
    ::unlink((world.folder + "/" + weights_name(digest)).c_str());
  ::unlink(path.c_str());
  ::rmdir(world.folder.c_str());
  std::printf("%s: %ld batches under %lu policies, no fault\n", argv[0], done.load(),
              static_cast<unsigned long>(version));
}
