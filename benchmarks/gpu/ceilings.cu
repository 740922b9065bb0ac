// SPDX-License-Identifier: Apache-2.0
//
// What this GPU can do at most, for bench_price_table.py: a library of plain C functions. Each gives the
// seconds of the fastest of `rounds` runs by the device's own clock, below 0 for an error.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

namespace {

constexpr unsigned kThreads = 256, kChains = 8, kSteps = 4096;

__global__ void read_kernel(const double2* from, std::size_t count, double* out) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  double sum = 0.0;
#pragma unroll 4
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const double2 two = from[i];
    sum += two.x + two.y;
  }
  if (sum == 0.123) *out = sum;  // so that nothing is left out
}

__global__ void multiply_kernel(double by, double* out) {
  double chain[kChains];
  for (unsigned c = 0; c < kChains; ++c) chain[c] = threadIdx.x + c;
  for (unsigned i = 0; i < kSteps; ++i) {
#pragma unroll
    for (unsigned c = 0; c < kChains; ++c) chain[c] = fma(chain[c], by, 1.0);
  }
  double sum = 0.0;
  for (const double each : chain) sum += each;
  if (sum == 0.123) *out = sum;
}

template <typename Work>
double fastest(int rounds, const Work& work) {
  cudaEvent_t begin, end;
  if (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess) return -1;
  float best = -1;
  for (int round = -1; round < rounds; ++round) {  // one before them warms up
    float ms = 0;
    cudaEventRecord(begin);
    work();
    cudaEventRecord(end);
    if (cudaEventSynchronize(end) != cudaSuccess || cudaGetLastError() != cudaSuccess) return -1;
    cudaEventElapsedTime(&ms, begin, end);
    if (round >= 0) best = best < 0 ? ms : std::min(best, ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return 1e-3 * best;
}

struct Buffer {
  explicit Buffer(std::size_t bytes) { good = cudaMalloc(&data, bytes) == cudaSuccess; }
  ~Buffer() { cudaFree(data); }
  void* data = nullptr;
  bool good;
};

unsigned processors() {
  int found = 1;
  cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, 0);
  return static_cast<unsigned>(found);
}

}  // namespace

extern "C" {

// A copy on the device: `bytes` are read and as many written.
double copy_seconds(std::size_t bytes, int rounds) {
  const Buffer from(bytes), to(bytes);
  if (!from.good || !to.good || cudaMemset(from.data, 1, bytes) != cudaSuccess) return -1;
  return fastest(rounds,
                 [&] { cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice); });
}

double read_seconds(std::size_t bytes, int rounds) {
  const Buffer from(bytes), out(sizeof(double));
  if (!from.good || !out.good || cudaMemset(from.data, 1, bytes) != cudaSuccess) return -1;
  return fastest(rounds, [&] {
    read_kernel<<<processors() * 8, kThreads>>>(static_cast<const double2*>(from.data),
                                                bytes / sizeof(double2),
                                                static_cast<double*>(out.data));
  });
}

// Double-precision operations, each a fused multiply and add counted once: out (1,) how many.
double multiply_seconds(int rounds, double* count) {
  const Buffer out(sizeof(double));
  if (!out.good) return -1;
  const unsigned blocks = processors() * 32;
  *count = static_cast<double>(blocks) * kThreads * kChains * kSteps;
  return fastest(rounds, [&] {
    multiply_kernel<<<blocks, kThreads>>>(0.999, static_cast<double*>(out.data));
  });
}

// From page-locked memory of the host to the device.
double upload_seconds(std::size_t bytes, int rounds) {
  const Buffer to(bytes);
  void* from = nullptr;
  if (!to.good || cudaMallocHost(&from, bytes) != cudaSuccess) return -1;
  const double found =
      fastest(rounds, [&] { cudaMemcpyAsync(to.data, from, bytes, cudaMemcpyHostToDevice); });
  cudaFreeHost(from);
  return found;
}

int device_name(char* name, int size) {
  cudaDeviceProp found{};
  if (cudaGetDeviceProperties(&found, 0) != cudaSuccess) return -1;
  std::copy_n(found.name, std::min(size, 256), name);
  return 0;
}

}  // extern "C"
