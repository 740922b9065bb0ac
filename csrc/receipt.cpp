// SPDX-License-Identifier: Apache-2.0
#include "receipt.h"

#include <limits>

namespace sprout {

bool flight_land(Flights& flights, ClockReader* clock, std::uint64_t ticket, std::int64_t now_ns,
                 Receipt& out) noexcept {
  SegmentView* const view = flights.find(ticket);
  FlightRow row;
  if (view == nullptr || !flight_read(*view, high(ticket) & 0xFFFF, row) || row.ticket != ticket)
    return false;
  const std::int64_t start = row.scheduled_ns, end = row.last_token_ns;
  out.level = row.level;
  out.policy_version = row.policy_version;
  out.joules = clock != nullptr && start > 0 && end >= start
                   ? clock->energy(start, end).joules
                   : std::numeric_limits<double>::quiet_NaN();
  out.intensity_g_per_kwh = row.intensity_g_per_kwh;
  out.carbon_g = out.joules / 3.6e6 * row.intensity_g_per_kwh * row.pue +
                 row.embodied_g_per_s * (static_cast<double>(end - start) / 1e9);
  return flight_close(*view, ticket, now_ns, out.joules);
}

}  // namespace sprout
