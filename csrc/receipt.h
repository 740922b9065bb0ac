// SPDX-License-Identifier: Apache-2.0
//
// The end of a flight, in one call: what it was, what it cost so far, and closed.
#pragma once

#include <cstdint>

#include "clock.h"
#include "ledger.h"

namespace sprout {

// What a client is told of its request. NaN = not known.
struct Receipt {
  std::uint32_t level = 0;
  std::uint64_t policy_version = 0;
  double joules = 0.0;    // from first schedule to last token, by the energy clock
  double carbon_g = 0.0;  // joules / 3.6e6 * intensity * pue + embodied * seconds
  double intensity_g_per_kwh = 0.0;
};

// Closes the flight of `ticket` with the joules that its receipt says. False: no such flight.
bool flight_land(Flights& flights, ClockReader* clock, std::uint64_t ticket, std::int64_t now_ns,
                 Receipt& out) noexcept;

}  // namespace sprout
