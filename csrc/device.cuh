// SPDX-License-Identifier: Apache-2.0
//
// What every CUDA file needs: checked calls, and memory that goes when its owner goes.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include "sampler.h"

namespace sprout {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // said once: the next call begins clean
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

inline void need_device() {
  if (!cuda_available()) throw std::runtime_error("no CUDA device");
}

template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) {
    check(cudaMalloc(&data_, std::max<std::size_t>(count, 1) * sizeof(T)), "cudaMalloc");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(DeviceArray&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  T* get() const noexcept { return data_; }

 private:
  T* data_ = nullptr;
};

template <typename T>
class PinnedArray {
 public:
  explicit PinnedArray(std::size_t count) {
    check(cudaMallocHost(&data_, std::max<std::size_t>(count, 1) * sizeof(T)), "cudaMallocHost");
  }
  ~PinnedArray() { cudaFreeHost(data_); }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;
  T* get() const noexcept { return data_; }

 private:
  T* data_ = nullptr;
};

class Stopwatch {  // of the device's own clock
 public:
  Stopwatch() {
    check(cudaEventCreate(&begin_), "cudaEventCreate");
    if (const cudaError_t status = cudaEventCreate(&end_); status != cudaSuccess) {
      cudaEventDestroy(begin_);
      check(status, "cudaEventCreate");
    }
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void start(cudaStream_t stream) { check(cudaEventRecord(begin_, stream), "cudaEventRecord"); }
  void stop(cudaStream_t stream) { check(cudaEventRecord(end_, stream), "cudaEventRecord"); }
  // Waits for the end.
  double seconds() {
    float ms = 0;
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(ms);
  }

 private:
  cudaEvent_t begin_{}, end_{};
};

}  // namespace sprout
