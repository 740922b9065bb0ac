// SPDX-License-Identifier: Apache-2.0
#include "mixes.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sprout {
namespace {

// What `name_of` makes of 1 to 23 characters from space to tilde.
bool printable(const Name& name) noexcept {
  const std::string_view text = name_text(name);
  return !text.empty() && text.size() < kNameBytes && name == name_of(text) &&
         std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

std::invalid_argument wrong(const Mix& mix, const std::string& what) {
  const std::string kind = mix.tenant ? "tenant" : "task";
  return std::invalid_argument("mixes: " + kind + " '" + std::string(name_text(mix.name)) +
                               "': " + what);
}

}  // namespace

Mixes::Mixes(std::span<const double> shares, const PriceSet& prices, std::span<const Mix> mixes) {
  const auto levels = static_cast<std::uint32_t>(shares.size());
  rows_[0] = {thresholds(shares), Prices(prices, levels)};
  if (mixes.size() > kMaxMixes) throw std::invalid_argument("mixes: at most 32");
  for (const Mix& mix : mixes) {
    if (!printable(mix.name))
      throw std::invalid_argument("mixes: a name must have 1 to 23 printable ASCII characters");
    Index& index = mix.tenant ? tenants_ : tasks_;
    const std::size_t at = place(index, mix.name);
    if (index.names[at] == mix.name) throw wrong(mix, "there are two of it");
    try {
      rows_[count_ + 1] = {thresholds({mix.shares.data(), shares.size()}),
                           Prices(mix.prices, levels)};
    } catch (const std::invalid_argument& error) {
      throw wrong(mix, error.what());
    }
    index.names[at] = mix.name;
    index.row[at] = static_cast<std::uint8_t>(++count_);
  }
}

}  // namespace sprout
