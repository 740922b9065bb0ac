// SPDX-License-Identifier: Apache-2.0
//
// The mixes of a policy: shares of levels for a tenant, for a task class, and for all others.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "names.h"
#include "sampler.h"

namespace sprout {

inline constexpr std::size_t kMaxMixes = 32;

// The shares of one tenant or of one task class.
struct Mix {
  Name name{};                              // printable ASCII, never none
  bool tenant = false;                      // else a task class
  std::array<double, kMaxLevels> shares{};  // (levels,) of the policy, sums to 1

  bool operator==(const Mix&) const = default;
};

// Who asks, as far as it decides the mix. Either may be none.
struct Asker {
  Name tenant{}, task{};
};

// All mixes of a policy as thresholds, found by name.
class Mixes {
 public:
  Mixes() = default;
  // shares: of all others. std::invalid_argument: what `thresholds` refuses, more than 32 mixes, a
  // name that is none or not printable ASCII, two mixes of one name.
  Mixes(std::span<const double> shares, std::span<const Mix> mixes);

  const Thresholds& others() const noexcept { return others_; }
  // The tenant's mix, else the task class's, else nullptr: that of all others.
  const Thresholds* own(const Asker& asker) const noexcept {
    if (count_ == 0) return nullptr;
    if (const Thresholds* found = find(tenants_, asker.tenant)) return found;
    return find(tasks_, asker.task);
  }

 private:
  // Open addressing, at most half full: a search ends at the name or at a free place. Clients may
  // ask for any name, but what is in the table is the operator's.
  static constexpr std::size_t kPlaces = 2 * kMaxMixes;
  struct Index {
    std::array<Name, kPlaces> names{};  // none: free
    std::array<std::uint8_t, kPlaces> row{};
  };

  static std::size_t place(const Index& index, const Name& name) noexcept {
    static_assert(kPlaces == 64);
    std::size_t at = (name[0] * 0x9E3779B97F4A7C15 ^ name[1] * 0xBF58476D1CE4E5B9 ^
                      name[2] * 0x94D049BB133111EB) >>
                     58;
    while (index.names[at] != name && index.names[at] != Name{}) at = (at + 1) % kPlaces;
    return at;
  }
  const Thresholds* find(const Index& index, const Name& name) const noexcept {
    if (name == Name{}) return nullptr;
    const std::size_t at = place(index, name);
    return index.names[at] == name ? &rows_[index.row[at]] : nullptr;
  }

  Thresholds others_;
  std::array<Thresholds, kMaxMixes> rows_;
  std::size_t count_ = 0;
  Index tenants_, tasks_;
};

}  // namespace sprout
