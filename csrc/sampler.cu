// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "device.cuh"
#include "philox.h"
#include "sampler.h"

namespace sprout {
namespace {

constexpr unsigned kThreads = 256;

// One thread, one Philox block, four levels as one 32-bit store. Draws before `first` and after
// the last, which share a block with wanted ones, go to the buffer too and are not copied back.
__global__ void draw_kernel(Cuts cuts, std::uint64_t key, std::uint64_t first_block,
                            std::uint32_t stream, uchar4* out, std::uint64_t blocks) {
  const std::uint64_t step = std::uint64_t{gridDim.x} * blockDim.x;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < blocks;
       i += step) {
    const PhiloxBlock drawn = philox_block(key, first_block + i, stream);
    unsigned char level[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      unsigned found = cuts.base;
#pragma unroll
      for (unsigned j = 0; j < kMaxLevels; ++j)
        found += j < cuts.count && drawn.word[w] >= cuts.at[j];
      level[w] = static_cast<unsigned char>(found);
    }
    out[i] = make_uchar4(level[0], level[1], level[2], level[3]);
  }
}

}  // namespace

bool cuda_built() noexcept { return true; }

bool cuda_available() noexcept {
  int devices = 0;
  const bool found = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  cudaGetLastError();  // no driver is an answer, not an error to keep
  return found;
}

void draw_batch_cuda(const Thresholds& thresholds, std::uint64_t key, std::uint64_t first,
                     std::uint32_t stream, std::span<std::uint8_t> out) {
  if (out.size() > std::numeric_limits<std::uint64_t>::max() - first)
    throw std::invalid_argument("first_sequence + count exceeds 64 bits");
  need_device();
  if (out.empty()) return;
  const std::uint64_t first_block = first >> 2;
  const std::uint64_t blocks = ((first + (out.size() - 1)) >> 2) - first_block + 1;
  const DeviceArray<uchar4> buffer(blocks);
  const auto grid =
      static_cast<unsigned>(std::min<std::uint64_t>((blocks + kThreads - 1) / kThreads, 65535));
  draw_kernel<<<grid, kThreads>>>(cuts(thresholds), key, first_block, stream, buffer.get(), blocks);
  check(cudaGetLastError(), "draw_kernel");
  check(cudaMemcpy(out.data(), reinterpret_cast<std::uint8_t*>(buffer.get()) + first % 4,
                   out.size(), cudaMemcpyDeviceToHost),
        "cudaMemcpy");
}

}  // namespace sprout
