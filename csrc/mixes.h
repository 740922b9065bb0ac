// SPDX-License-Identifier: Apache-2.0
//
// The mixes of a policy: shares of levels for a tenant, for a task class, and for all others; and
// by which prices the prompts of each choose.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "names.h"
#include "prices.h"
#include "sampler.h"

namespace sprout {

inline constexpr std::size_t kMaxMixes = 32;

// The shares of one tenant or of one task class.
struct Mix {
  Name name{};                              // printable ASCII, never none
  bool tenant = false;                      // else a task class
  std::array<double, kMaxLevels> shares{};  // (levels,) of the policy, sums to 1
  PriceSet prices;                          // no points: every level is drawn

  bool operator==(const Mix&) const = default;
};

// Who asks, as far as it decides the mix. Either may be none.
struct Asker {
  Name tenant{}, task{};
};

// A mix as requests need it.
struct Served {
  Thresholds shares;
  Prices prices;
};

// All mixes of a policy, found by name.
class Mixes {
 public:
  Mixes() = default;
  // shares, prices: of all others. std::invalid_argument: what `thresholds` and `Prices` refuse,
  // more than 32 mixes, a name that is none or not printable ASCII, two mixes of one name.
  Mixes(std::span<const double> shares, const PriceSet& prices, std::span<const Mix> mixes);

  const Served& others() const noexcept { return rows_[0]; }
  // The tenant's mix, else the task class's, else that of all others.
  const Served& of(const Asker& asker) const noexcept {
    if (count_ == 0) return rows_[0];
    if (const std::uint8_t row = find(tenants_, asker.tenant)) return rows_[row];
    return rows_[find(tasks_, asker.task)];
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
  // 0: there is none of this name.
  static std::uint8_t find(const Index& index, const Name& name) noexcept {
    return name == Name{} ? 0 : index.row[place(index, name)];
  }

  std::array<Served, 1 + kMaxMixes> rows_;  // the first is that of all others
  std::size_t count_ = 0;                   // of the rest
  Index tenants_, tasks_;
};

}  // namespace sprout
