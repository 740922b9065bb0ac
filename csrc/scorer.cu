// SPDX-License-Identifier: Apache-2.0
//
// A warp takes a text: its lanes take the grams, then the heads, then the outputs. Texts come in
// pieces through two slots, so that one is filled while the other is worked on.
#include <array>
#include <cmath>
#include <cstring>

#include "device.cuh"
#include "scorer.h"

namespace sprout {
namespace {

constexpr unsigned kLanes = 32, kWarps = 8;
constexpr unsigned kAll = 0xFFFFFFFF;
constexpr std::size_t kFoldedBytes = 4112;  // kMostBytes, both ends, and the last word's overhang
static_assert(kFoldedBytes >= kMostBytes + 2 + 12 && kFoldedBytes % 4 == 0);
// Of one slot. A piece of texts is as long as either allows.
constexpr std::size_t kPieceBytes = std::size_t{16} << 20, kPieceTexts = std::size_t{1} << 16;

struct Model {
  std::uint32_t orders[kMostOrder];  // (count,)
  std::uint32_t count, bits, levels, classes;
  const uint4* table;  // (slots, blocks)
  const double *scales, *biases, *second;
};

template <typename T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (unsigned step = kLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

__device__ double warp_most(double value) {
#pragma unroll
  for (unsigned step = kLanes / 2; step > 0; step /= 2)
    value = fmax(value, __shfl_xor_sync(kAll, value, step));
  return value;
}

// Eight bytes from wherever they begin: of those that a gram is shorter by, nobody asks.
__device__ std::uint64_t word_at(const std::uint8_t* bytes, unsigned at) {
  const auto* const words = reinterpret_cast<const std::uint32_t*>(bytes) + at / 4;
  const unsigned shift = 8 * (at % 4);
  const std::uint32_t low = __funnelshift_r(words[0], words[1], shift);
  const std::uint32_t high = __funnelshift_r(words[1], words[2], shift);
  return std::uint64_t{high} << 32 | low;
}

__device__ void add_four(std::uint32_t row, std::int32_t* sums) {
  const int four = static_cast<int>(row);
  sums[0] = __dp4a(four, 0x00000001, sums[0]);
  sums[1] = __dp4a(four, 0x00000100, sums[1]);
  sums[2] = __dp4a(four, 0x00010000, sums[2]);
  sums[3] = __dp4a(four, 0x01000000, sums[3]);
}

// Whole numbers are summed, and what follows is rounded as on the CPU: the same heads.
template <unsigned kBlocks>
__device__ void first_stage(const Model& model, const std::uint8_t* folded, unsigned size,
                            unsigned lane, double* heads) {
  std::int32_t sums[kHeadBlock * kBlocks] = {};
  for (unsigned at = lane; at < size; at += kLanes) {
    const std::uint64_t word = word_at(folded, at);
    for (unsigned o = 0; o < model.count; ++o) {
      if (at + model.orders[o] > size) break;
      const std::size_t slot = gram_slot(word, model.orders[o], model.bits);
#pragma unroll
      for (unsigned b = 0; b < kBlocks; ++b) {
        const uint4 row = __ldg(model.table + slot * kBlocks + b);
        add_four(row.x, sums + kHeadBlock * b);
        add_four(row.y, sums + kHeadBlock * b + 4);
        add_four(row.z, sums + kHeadBlock * b + 8);
        add_four(row.w, sums + kHeadBlock * b + 12);
      }
    }
  }
  unsigned grams = 0;
  for (unsigned o = 0; o < model.count; ++o)
    if (model.orders[o] <= size) grams += size - model.orders[o] + 1;
  const double root = __dsqrt_rn(static_cast<double>(max(grams, 1U)));
  const unsigned count = model.levels + model.classes;
#pragma unroll
  for (unsigned h = 0; h < kHeadBlock * kBlocks; ++h) {
    const std::int32_t sum = warp_sum(sums[h]);
    if (lane == h % kLanes && h < count) {
      const double scaled = __dmul_rn(static_cast<double>(sum), model.scales[h]);
      heads[h] = __dadd_rn(__ddiv_rn(scaled, root), model.biases[h]);
    }
  }
  __syncwarp();
}

// Lanes take the classes; then lane o has output o.
__device__ void second_stage(const Model& model, const double* heads, double length, unsigned lane,
                             double* out) {  // out: (2 levels,)
  const unsigned levels = model.levels, width = levels + 2;
  double share[2] = {0.0, 0.0};  // of this lane's classes, the first of all being "any"
  for (unsigned i = 0; i < 2; ++i) {
    const unsigned c = lane + kLanes * i;
    if (c >= 1 && c <= model.classes) share[i] = fmax(heads[levels + c - 1], 0.0) + kLeastClass;
  }
  const double all = warp_sum(share[0] + share[1]);
  double mine = 0.0;
  for (unsigned o = 0; o < 2 * levels; ++o) {
    double part = 0.0;
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned c = lane + kLanes * i;
      if (c > model.classes) continue;
      const double* const weight =
          model.second + (std::size_t{o} * (model.classes + 1) + c) * width;
      double inner = weight[0] + weight[1] * length;
      for (unsigned l = 0; l < levels; ++l) inner += weight[2 + l] * heads[l];
      part += (c == 0 ? 1.0 : share[i] / all) * inner;
    }
    const double total = warp_sum(part);
    if (lane == o) mine = total;
  }
  const bool preference = lane < levels;
  const double most = warp_most(preference ? mine : -HUGE_VAL);
  const double risen = preference ? exp(mine - most) : 0.0;
  const double whole = warp_sum(risen);
  if (preference) {
    out[lane] = risen / whole;
  } else if (lane < 2 * levels) {
    out[lane] = exp(fmin(fmax(mine, -kMostExponent), kMostExponent));
  }
}

template <unsigned kBlocks>
__global__ __launch_bounds__(kLanes* kWarps) void score_kernel(const __grid_constant__ Model model,
                                                               const std::uint8_t* bytes,
                                                               const std::uint32_t* starts,
                                                               std::uint32_t texts, Stage stage,
                                                               double* out) {
  __shared__ alignas(16) std::uint8_t folded_of[kWarps][kFoldedBytes];
  __shared__ double heads_of[kWarps][kMostHeads];
  const unsigned lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  std::uint8_t* const folded = folded_of[warp];
  double* const heads = heads_of[warp];
  const std::uint32_t step = gridDim.x * kWarps;
  for (std::uint32_t text = blockIdx.x * kWarps + warp; text < texts; text += step) {
    const std::uint32_t start = starts[text], inside = starts[text + 1] - start;
    for (unsigned i = lane; i < inside; i += kLanes) folded[1 + i] = fold_byte(bytes[start + i]);
    if (lane == 0) folded[0] = folded[1 + inside] = 0;
    __syncwarp();
    first_stage<kBlocks>(model, folded, inside + 2, lane, heads);
    if (stage == Stage::kHeads) {
      const unsigned count = model.levels + model.classes;
      for (unsigned h = lane; h < count; h += kLanes) out[std::size_t{text} * count + h] = heads[h];
    } else {
      const double length = log(static_cast<double>(inside + 2) / kUsualBytes);
      second_stage(model, heads, length, lane, out + std::size_t{text} * 2 * model.levels);
    }
    __syncwarp();  // before the next text takes its place
  }
}

template <typename T>
DeviceArray<T> uploaded(std::span<const T> values) {
  DeviceArray<T> made(values.size());
  check(cudaMemcpy(made.get(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  return made;
}

struct Queue {
  Queue() { check(cudaStreamCreate(&it), "cudaStreamCreate"); }
  ~Queue() { cudaStreamDestroy(it); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  cudaStream_t it{};
};

// How many of a text's bytes count.
std::size_t read_of(std::string_view text) { return std::min(text.size(), kMostBytes); }

struct Piece {
  std::size_t first = 0, texts = 0;
};

// The next texts that fit a slot. Each alone does.
Piece piece_from(std::span<const std::string_view> texts, std::size_t first) {
  std::size_t bytes = 0, last = first;
  while (last < texts.size() && last - first < kPieceTexts) {
    bytes += read_of(texts[last]);
    if (bytes > kPieceBytes) break;
    ++last;
  }
  return {first, last - first};
}

struct Slot {
  Slot(std::size_t bytes, std::size_t texts, std::size_t width)
      : text(bytes),
        starts(texts + 1),
        text_there(bytes),
        starts_there(texts + 1),
        out_there(texts * width) {}

  // What each text is read of, one behind the other. The number of bytes.
  std::size_t fill(std::span<const std::string_view> given) {
    std::size_t at = 0, number = 0;
    for (const std::string_view each : given) {
      starts.get()[number++] = static_cast<std::uint32_t>(at);
      if (each.size() <= kMostBytes) {
        std::memcpy(text.get() + at, each.data(), each.size());
      } else {
        std::memcpy(text.get() + at, each.data(), kMostBytes / 2);
        std::memcpy(text.get() + at + kMostBytes / 2, each.data() + each.size() - kMostBytes / 2,
                    kMostBytes / 2);
      }
      at += read_of(each);
    }
    starts.get()[number] = static_cast<std::uint32_t>(at);
    return at;
  }

  Queue stream;
  PinnedArray<std::uint8_t> text;
  PinnedArray<std::uint32_t> starts;
  DeviceArray<std::uint8_t> text_there;
  DeviceArray<std::uint32_t> starts_there;
  DeviceArray<double> out_there;
  Piece piece;
};

using Kernel = void (*)(const Model, const std::uint8_t*, const std::uint32_t*, std::uint32_t,
                        Stage, double*);

Kernel kernel_of(std::uint32_t heads) {
  const std::uint32_t blocks = (heads + kHeadBlock - 1) / kHeadBlock;
  return blocks == 1 ? score_kernel<1> : blocks == 2 ? score_kernel<2> : score_kernel<3>;
}

}  // namespace

void score_batch_cuda(const Scorer& scorer, std::span<const std::string_view> texts, Stage stage,
                      std::span<double> out) {
  need_device();
  if (texts.empty()) return;
  const auto table = uploaded(scorer.table());
  const auto scales = uploaded(scorer.scales()), biases = uploaded(scorer.biases());
  const auto second = uploaded(scorer.second());
  Model model{};
  for (const std::uint32_t order : scorer.grams().orders()) model.orders[model.count++] = order;
  model.bits = scorer.grams().bits();
  model.levels = scorer.levels();
  model.classes = scorer.classes();
  model.table = reinterpret_cast<const uint4*>(table.get());
  model.scales = scales.get();
  model.biases = biases.get();
  model.second = second.get();

  std::size_t most_bytes = 0, most_texts = 0;
  for (Piece next = piece_from(texts, 0); next.texts > 0;
       next = piece_from(texts, next.first + next.texts)) {
    std::size_t bytes = 0;
    for (const std::string_view each : texts.subspan(next.first, next.texts))
      bytes += read_of(each);
    most_bytes = std::max(most_bytes, bytes);
    most_texts = std::max(most_texts, next.texts);
  }
  const std::size_t width = stage == Stage::kHeads ? scorer.heads() : scorer.outputs();
  std::array<Slot, 2> slots{Slot(most_bytes, most_texts, width),
                            Slot(most_bytes, most_texts, width)};
  const Kernel kernel = kernel_of(scorer.heads());
  int device = 0, processors = 0, resident = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, kLanes * kWarps, 0),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const auto most_grid = static_cast<unsigned>(processors * std::max(resident, 1));

  const auto collect = [&](Slot& slot) {
    if (slot.piece.texts == 0) return;
    check(cudaMemcpyAsync(out.data() + slot.piece.first * width, slot.out_there.get(),
                          slot.piece.texts * width * sizeof(double), cudaMemcpyDeviceToHost,
                          slot.stream.it),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(slot.stream.it), "score_kernel");
    slot.piece = {};
  };
  std::size_t turn = 0;
  for (Piece next = piece_from(texts, 0); next.texts > 0;
       next = piece_from(texts, next.first + next.texts), ++turn) {
    Slot& slot = slots[turn % slots.size()];
    collect(slot);
    const std::size_t bytes = slot.fill(texts.subspan(next.first, next.texts));
    check(cudaMemcpyAsync(slot.text_there.get(), slot.text.get(), bytes, cudaMemcpyHostToDevice,
                          slot.stream.it),
          "cudaMemcpyAsync");
    check(cudaMemcpyAsync(slot.starts_there.get(), slot.starts.get(),
                          (next.texts + 1) * sizeof(std::uint32_t), cudaMemcpyHostToDevice,
                          slot.stream.it),
          "cudaMemcpyAsync");
    const auto count = static_cast<std::uint32_t>(next.texts);
    const unsigned grid = std::min((count + kWarps - 1) / kWarps, most_grid);
    kernel<<<grid, kLanes * kWarps, 0, slot.stream.it>>>(
        model, slot.text_there.get(), slot.starts_there.get(), count, stage, slot.out_there.get());
    check(cudaGetLastError(), "score_kernel");
    slot.piece = next;
  }
  for (Slot& slot : slots) collect(slot);
}

}  // namespace sprout
