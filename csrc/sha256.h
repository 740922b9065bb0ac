// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 (FIPS 180-4), for the few files that are named by it. Some 200 MB/s: not for request
// paths.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sprout {

using Digest = std::array<std::uint64_t, 4>;  // its 32 bytes in their order, as they lie in memory

Digest sha256(std::span<const std::byte> data) noexcept;

}  // namespace sprout
