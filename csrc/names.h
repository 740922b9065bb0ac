// SPDX-License-Identifier: Apache-2.0
//
// Names of tenants and of task classes, as the files hold them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace sprout {

inline constexpr std::size_t kNameBytes = 24;  // with at least one zero at the end

// Zero-padded characters, compared whole. All zero: none.
using Name = std::array<std::uint64_t, kNameBytes / 8>;

// A longer text is cut: whoever compares names has asked `name_fits` before.
inline Name name_of(std::string_view text) noexcept {
  Name name{};
  std::memcpy(name.data(), text.data(), std::min(text.size(), kNameBytes - 1));
  return name;
}

// Else two texts could be one name.
inline bool name_fits(std::string_view text) noexcept {
  return text.size() < kNameBytes && text.find('\0') == text.npos;
}

// The characters of a name; valid as long as it is.
inline std::string_view name_text(const Name& name) noexcept {
  const char* const text = reinterpret_cast<const char*>(name.data());
  return {text, ::strnlen(text, kNameBytes)};
}

}  // namespace sprout
