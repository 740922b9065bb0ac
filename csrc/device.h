// SPDX-License-Identifier: Apache-2.0
//
// What code for both processors shares.
#pragma once

#ifdef __CUDACC__
#define SPROUT_HD __host__ __device__ __forceinline__
#else
#define SPROUT_HD inline __attribute__((always_inline))
#endif
