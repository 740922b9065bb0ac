// SPDX-License-Identifier: Apache-2.0
//
// Arbitrary bytes of arbitrary length into one scorer from several threads. Each text stands at the
// very end of its own memory, so that AddressSanitizer sees a read beyond it; every answer is
// compared with the plainest way to say the same. And files of weights that are damaged anywhere:
// what is taken can be computed with.
#include "scorer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "harness.h"
#include "mapping.h"
#include "model.h"
#include "weights.h"

namespace {

using namespace sprout;
using test::kBits, test::kOrders, test::Model;

// One gram after the other, byte by byte.
std::vector<double> plain_heads(const Model& model, std::string text) {
  if (text.size() > kMostBytes)
    text = text.substr(0, kMostBytes / 2) + text.substr(text.size() - kMostBytes / 2);
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    if (c >= '0' && c <= '9') c = '0';
  }
  text = std::string(1, '\0') + text + std::string(1, '\0');
  const std::size_t heads = model.levels + model.classes;
  std::vector<long> sums(heads, 0);
  long count = 0;
  for (const std::uint32_t order : kOrders) {
    for (std::size_t at = 0; at + order <= text.size(); ++at, ++count) {
      std::uint64_t gram = 0;
      for (std::uint32_t i = 0; i < order; ++i)
        gram |= std::uint64_t{static_cast<unsigned char>(text[at + i])} << 8 * i;
      const std::size_t slot = Grams(kOrders, kBits).slot(gram, order);
      for (std::size_t h = 0; h < heads; ++h) sums[h] += model.table[slot * heads + h];
    }
  }
  std::vector<double> found(heads);
  for (std::size_t h = 0; h < heads; ++h)
    found[h] = double(sums[h]) * 0.01 / std::sqrt(double(std::max(count, 1L))) + 0.1;
  return found;
}

long hammer(const std::vector<Model>& models, std::uint32_t seed, test::Clock::time_point until) {
  std::mt19937 random(seed);
  long done = 0;
  for (; test::Clock::now() < until || done < 50; ++done) {
    const Model& model = models[random() % models.size()];
    const std::size_t sizes[] = {
        0, 1, random() % 8, random() % 600, kMostBytes - 1 + random() % 3, random() % 20000};
    const std::size_t size = sizes[random() % std::size(sizes)];
    const auto memory = std::make_unique<char[]>(size);
    for (std::size_t i = 0; i < size; ++i) memory[i] = static_cast<char>(random());
    const std::string_view text(memory.get(), size);
    std::vector<double> heads(model.levels + model.classes), out(2 * model.levels);
    model.scorer->heads(text, heads);
    EXPECT(heads == plain_heads(model, std::string(text)));
    model.scorer->score(text, out);
    double sum = 0;
    for (std::uint32_t i = 0; i < model.levels; ++i) {
      EXPECT(out[i] >= 0 && out[i] <= 1 && std::isfinite(out[model.levels + i]));
      EXPECT(out[model.levels + i] > 0);
      sum += out[i];
    }
    EXPECT(std::abs(sum - 1) < 1e-12);
  }
  return done;
}

// Each on memory of exactly its size.
long damage(const Model& model, std::uint32_t seed, test::Clock::time_point until) {
  std::mt19937 random(seed);
  const std::vector<std::byte> whole = file_of(model);
  std::vector<double> out(2 * model.levels), same(2 * model.levels);
  scorer_of(whole).score("What is 2 + 2?", same);
  model.scorer->score("What is 2 + 2?", out);
  EXPECT(out == same);
  long taken = 0;
  for (long done = 0; test::Clock::now() < until || done < 50; ++done) {
    std::vector<std::byte> file(whole.begin(), whole.end() - (random() % 2) * (random() % 100));
    for (std::uint32_t i = random() % 4; i > 0; --i) {
      const std::size_t within = random() % 2 ? sizeof(WeightsHeader) : file.size();
      file[random() % within] = static_cast<std::byte>(random() % 2 ? random() : random() % 8);
    }
    try {
      const Scorer scorer = scorer_of(file);
      std::vector<double> scores(scorer.outputs());
      scorer.score("What is 2 + 2?", scores);
      ++taken;
    } catch (const CorruptFile&) {
    }
  }
  return taken;
}

}  // namespace

// PROGRAM threads SECONDS
int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s threads SECONDS\n", argv[0]);
    return 2;
  }
  std::vector<Model> models;
  for (const auto& [levels, classes] : {std::pair(3U, 6U), {1U, 1U}, {8U, 24U}, {8U, 40U}})
    models.emplace_back(levels, classes);
  const auto until = test::Clock::now() + std::chrono::seconds(std::atol(argv[2]));
  std::atomic<long> done = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t seed = 0; seed < 3; ++seed)
    threads.emplace_back([&, seed] { done += hammer(models, seed, until); });
  threads.emplace_back([&] { done += damage(models[0], 7, until); });
  for (std::thread& thread : threads) thread.join();
  std::printf("%s: %ld texts, no fault\n", argv[0], done.load());
}
