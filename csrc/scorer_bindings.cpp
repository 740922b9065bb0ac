// SPDX-License-Identifier: Apache-2.0
//
// The scorer as Python has it: a table, like bindings.cpp, which calls it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>
#include <vector>

#include "scorer.h"
#include "sha256.h"
#include "texts.h"
#include "weights.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sprout;

namespace {

template <typename T>
using In = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Out = py::array_t<double, py::array::c_style>;  // never a copy

template <typename T>
std::span<const T> view(const In<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

std::span<const std::byte> bytes_of(const py::bytes& data) {
  return std::as_bytes(std::span(std::string_view(data)));
}

py::tuple slots_many(const py::list& texts, const std::vector<std::uint32_t>& orders,
                     std::uint32_t bits) {
  const Grams grams(orders, bits);
  const py::tuple held(texts);
  const auto found = views(held);
  In<std::int64_t> starts(static_cast<py::ssize_t>(found.size() + 1));
  std::int64_t* const start = starts.mutable_data();
  start[0] = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    start[i + 1] = start[i] + static_cast<std::int64_t>(Folded(found[i]).count(grams));
  In<std::uint32_t> slots(static_cast<py::ssize_t>(start[found.size()]));
  std::uint32_t* at = slots.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    for (const std::string_view text : found)
      Folded(text).each(grams, [&](std::uint32_t slot) { *at++ = slot; });
  }
  return py::make_tuple(slots, starts);
}

void score_batch(const Scorer& scorer, std::span<const std::string_view> texts, Stage stage,
                 std::span<double> out) {
  const std::size_t width = stage == Stage::kHeads ? scorer.heads() : scorer.outputs();
  double* at = out.data();
  for (const std::string_view text : texts) {
    if (stage == Stage::kHeads) {
      scorer.heads(text, {at, width});
    } else {
      scorer.score(text, {at, width});
    }
    at += width;
  }
}

py::array_t<double> many(const Scorer& scorer, const py::list& texts, Stage stage, bool cuda) {
  const py::tuple held(texts);
  const auto found = views(held);
  const std::size_t width = stage == Stage::kHeads ? scorer.heads() : scorer.outputs();
  Out out({static_cast<py::ssize_t>(found.size()), static_cast<py::ssize_t>(width)});
  const std::span<double> to(out.mutable_data(), found.size() * width);
  const py::gil_scoped_release unlocked;
  (cuda ? score_batch_cuda : score_batch)(scorer, found, stage, to);
  return out;
}

}  // namespace

void scorer_table(py::module_& m) {
  m.attr("most_bytes") = kMostBytes;
  m.attr("most_weights") = kMostWeights;
  m.def(
      "sha256",
      [](const py::bytes& data) {
        const Digest digest = sha256(bytes_of(data));
        return py::bytes(reinterpret_cast<const char*>(digest.data()), sizeof digest);
      },
      "data"_a);
  m.def("gram_slots", &slots_many, "texts"_a, "orders"_a, "bits"_a);
  py::class_<Scorer>(m, "Scorer")
      .def(py::init([](const std::vector<std::uint32_t>& orders, std::uint32_t bits,
                       std::uint32_t levels, std::uint32_t classes, const In<std::int8_t>& table,
                       const In<double>& scales, const In<double>& biases,
                       const In<double>& second) {
             return Scorer(Grams(orders, bits), {levels, classes, view(table), view(scales),
                                                 view(biases), view(second)});
           }),
           "orders"_a, "bits"_a, "levels"_a, "classes"_a, "table"_a, "scales"_a, "biases"_a,
           "second"_a)
      .def(py::init([](const py::bytes& weights) { return scorer_of(bytes_of(weights)); }),
           "weights"_a)
      .def_property_readonly("levels", &Scorer::levels)
      .def_property_readonly("classes", &Scorer::classes)
      .def(
          "score",
          [](const Scorer& self, const py::bytes& text, Out& out) {
            if (out.ndim() != 1 || out.size() != self.outputs())
              throw py::value_error("out: must be (2 levels,)");
            self.score(std::string_view(text), {out.mutable_data(), self.outputs()});
          },
          "text"_a, py::arg("out").noconvert())
      .def(
          "score_many",
          [](const Scorer& self, const py::list& texts, bool cuda) {
            return many(self, texts, Stage::kScores, cuda);
          },
          "texts"_a, "cuda"_a = false)
      .def(
          "heads_many",
          [](const Scorer& self, const py::list& texts, bool cuda) {
            return many(self, texts, Stage::kHeads, cuda);
          },
          "texts"_a, "cuda"_a = false);
}
