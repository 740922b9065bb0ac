// SPDX-License-Identifier: Apache-2.0
//
// Tables of prices as Python has them: a table, like bindings.cpp, which calls it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <vector>

#include "price_table.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sprout;

namespace {

using In = py::array_t<double, py::array::c_style | py::array::forcecast>;

std::unique_ptr<PriceTable> made(const In& costs, const std::vector<In>& gains,
                                 const std::optional<In>& weights, unsigned threads, bool cuda) {
  if (costs.ndim() != 2) throw py::value_error("costs: must be (prompts, levels)");
  if (costs.shape(1) > static_cast<py::ssize_t>(kMaxLevels))
    throw py::value_error("levels: 1 to 8");
  Scores scores;
  scores.prompts = static_cast<std::size_t>(costs.shape(0));
  scores.levels = static_cast<std::uint32_t>(costs.shape(1));
  scores.costs = costs.data();
  for (const In& gain : gains) {
    if (gain.ndim() != 2 || gain.shape(0) != costs.shape(0) || gain.shape(1) != costs.shape(1))
      throw py::value_error("gains: each must be of the costs' shape");
    scores.gains.push_back(gain.data());
  }
  if (weights) {
    if (weights->ndim() != 1 || weights->shape(0) != costs.shape(0))
      throw py::value_error("weights: must be (prompts,)");
    scores.weights = weights->data();
  }
  const py::gil_scoped_release unlocked;
  return cuda ? price_table_cuda(scores) : price_table(scores, threads);
}

std::span<const double> vectors_of(const PriceTable& table, const In& prices) {
  if (prices.ndim() != 2 || prices.shape(1) != static_cast<py::ssize_t>(table.rows()))
    throw py::value_error("prices: must be (vectors, rows)");
  return {prices.data(), static_cast<std::size_t>(prices.size())};
}

}  // namespace

void prices_table(py::module_& m) {
  m.attr("most_prices") = kMostPrices;
  m.attr("most_rows_on_cuda") = kMostRowsOnCuda;
  py::class_<PriceTable>(m, "PriceTable")
      .def(py::init(&made), "costs"_a, "gains"_a, "weights"_a, "threads"_a, "cuda"_a)
      .def_property_readonly("prompts", &PriceTable::prompts)
      .def_property_readonly("levels", &PriceTable::levels)
      .def_property_readonly("rows", &PriceTable::rows)
      .def("totals",
           [](PriceTable& self, const In& prices) {
             const auto given = vectors_of(self, prices);
             py::array_t<double> out({prices.shape(0), prices.shape(1) + 1});
             const std::span<double> to(out.mutable_data(), static_cast<std::size_t>(out.size()));
             const py::gil_scoped_release unlocked;
             self.totals(given, to);
             return out;
           })
      .def("choose",
           [](PriceTable& self, const In& prices) {
             const auto given = vectors_of(self, prices);
             py::array_t<std::uint8_t> out(
                 {prices.shape(0), static_cast<py::ssize_t>(self.prompts())});
             const std::span<std::uint8_t> to(out.mutable_data(),
                                              static_cast<std::size_t>(out.size()));
             const py::gil_scoped_release unlocked;
             self.choose(given, to);
             return out;
           })
      .def("device_seconds", [](PriceTable& self) {
        const py::gil_scoped_release unlocked;
        return self.device_seconds();
      });
}
