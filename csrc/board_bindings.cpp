// SPDX-License-Identifier: Apache-2.0
//
// The policy board as Python has it: a table, like bindings.cpp, which calls it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "board.h"
#include "texts.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sprout;

namespace {

// Of each point fraction, grams a preference, grams; of a set grams a joule and the points.
using PointFields = std::tuple<double, double, std::vector<double>>;
using SetFields = std::tuple<std::vector<double>, std::vector<PointFields>>;
// Tenant, task, shares, prices: of the first two, exactly one is not empty.
using MixFields =
    std::tuple<std::string, std::string, std::vector<double>, std::optional<SetFields>>;
// The weights' digest, share, and the prices of those that no mix is for.
using PromptFields = std::tuple<py::bytes, double, SetFields>;

Name name_given(std::string_view text, const char* what) {
  if (!name_fits(text))
    throw std::invalid_argument(std::string(what) + ": at most 23 bytes, none of them zero");
  return name_of(text);
}

Asker asker_of(std::string_view tenant, std::string_view task) {
  return {name_given(tenant, "tenant"), name_given(task, "task")};
}

// Of each request (tenant, task). By hand: pybind11 would take 100 ns for each.
std::vector<Asker> askers_of(const py::sequence& names, std::size_t count) {
  if (names.size() != count) throw std::invalid_argument("names: one pair a request");
  const auto text = [](PyObject* object) {
    char* characters = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(object, &characters, &size) != 0) throw py::error_already_set();
    return std::string_view(characters, static_cast<std::size_t>(size));
  };
  std::vector<Asker> askers;
  askers.reserve(count);
  for (const py::handle pair : names) {
    if (!PyTuple_Check(pair.ptr()) || PyTuple_Size(pair.ptr()) != 2)
      throw py::type_error("names: each a tuple of tenant and task");
    askers.push_back(
        asker_of(text(PyTuple_GetItem(pair.ptr(), 0)), text(PyTuple_GetItem(pair.ptr(), 1))));
  }
  return askers;
}

void put_set(const SetFields& fields, std::size_t levels, PriceSet& set) {
  const auto& [g_per_joule, points] = fields;
  const auto put = [&](const std::vector<double>& from, std::array<double, kMaxLevels>& to) {
    if (from.size() != levels) throw std::invalid_argument("prompt: must have as many levels");
    std::copy(from.begin(), from.end(), to.begin());
  };
  put(g_per_joule, set.g_per_joule);
  if (points.empty() || points.size() > kMaxPoints)
    throw std::invalid_argument("prompt: 1 to 4 points");
  for (const auto& [fraction, g_per_preference, g] : points) {
    PricePoint& point = set.points[set.point_count++];
    point.fraction = fraction;
    point.g_per_preference = g_per_preference;
    put(g, point.g);
  }
}

SetFields set_fields(const PriceSet& set, std::uint32_t levels) {
  const auto of = [levels](const std::array<double, kMaxLevels>& values) {
    return std::vector<double>(values.begin(), values.begin() + levels);
  };
  std::vector<PointFields> points;
  for (const PricePoint& point : std::span(set.points).first(set.point_count))
    points.emplace_back(point.fraction, point.g_per_preference, of(point.g));
  return {of(set.g_per_joule), points};
}

Mix mix_of(const MixFields& fields, std::size_t levels) {
  const auto& [tenant, task, shares, prices] = fields;
  if (tenant.empty() == task.empty())
    throw std::invalid_argument("mixes: each of a tenant or of a task");
  if (shares.size() != levels) throw std::invalid_argument("mixes: each has as many levels");
  const Asker whose = asker_of(tenant, task);
  Mix mix;
  mix.tenant = !tenant.empty();
  mix.name = mix.tenant ? whose.tenant : whose.task;
  std::copy(shares.begin(), shares.end(), mix.shares.begin());
  if (prices) put_set(*prices, levels, mix.prices);
  return mix;
}

MixFields mix_fields(const Mix& mix, std::uint32_t levels) {
  std::string name(name_text(mix.name)), none;
  const auto* const shares = mix.shares.data();
  std::optional<SetFields> prices;
  if (mix.prices.point_count > 0) prices = set_fields(mix.prices, levels);
  return {mix.tenant ? name : none, mix.tenant ? none : name, {shares, shares + levels}, prices};
}

PromptPolicy prompt_of(const PromptFields& fields, std::size_t levels) {
  const auto& [weights, share, prices] = fields;
  const auto digest = std::string_view(weights);
  PromptPolicy prompt;
  if (digest.size() != sizeof prompt.weights)
    throw std::invalid_argument("prompt: weights: must be 32 bytes");
  std::memcpy(prompt.weights.data(), digest.data(), digest.size());
  prompt.share = share;
  put_set(prices, levels, prompt);
  return prompt;
}

py::object prompt_fields(const PromptPolicy& prompt, std::uint32_t levels) {
  if (prompt.point_count == 0) return py::none();
  const py::bytes digest(reinterpret_cast<const char*>(prompt.weights.data()),
                         sizeof prompt.weights);
  return py::make_tuple(digest, prompt.share, set_fields(prompt, levels));
}

Policy policy_of(std::uint64_t version, std::uint64_t seed, std::uint64_t pack_hash,
                 const std::vector<double>& shares, double control_share, double canary_share,
                 bool paused, std::int64_t deadline_boottime_ns, double intensity_g_per_kwh,
                 double pue, double embodied_g_per_s, const std::vector<MixFields>& mixes,
                 const std::optional<PromptFields>& prompt) {
  if (shares.size() > kMaxLevels) throw std::invalid_argument("shares: at most 8 levels");
  if (mixes.size() > kMaxMixes) throw std::invalid_argument("mixes: at most 32");
  Policy policy;
  policy.version = version;
  policy.seed = seed;
  policy.pack_hash = pack_hash;
  std::copy(shares.begin(), shares.end(), policy.shares.begin());
  policy.levels = static_cast<std::uint32_t>(shares.size());
  policy.control_share = control_share;
  policy.canary_share = canary_share;
  policy.paused = paused;
  policy.deadline_boottime_ns = deadline_boottime_ns;
  policy.intensity_g_per_kwh = intensity_g_per_kwh;
  policy.pue = pue;
  policy.embodied_g_per_s = embodied_g_per_s;
  for (const MixFields& fields : mixes)
    policy.mixes[policy.mix_count++] = mix_of(fields, shares.size());
  if (prompt) policy.prompt = prompt_of(*prompt, shares.size());
  return policy;
}

py::object policy_fields(BoardReader& reader) {
  Policy p;
  if (!reader.policy(p)) return py::none();
  py::tuple shares(p.levels);
  for (std::uint32_t i = 0; i < p.levels; ++i) shares[i] = p.shares[i];
  std::vector<MixFields> mixes;
  for (std::uint32_t i = 0; i < p.mix_count; ++i) mixes.push_back(mix_fields(p.mixes[i], p.levels));
  return py::dict("version"_a = p.version, "seed"_a = p.seed, "pack_hash"_a = p.pack_hash,
                  "shares"_a = shares, "control_share"_a = p.control_share,
                  "canary_share"_a = p.canary_share, "paused"_a = p.paused,
                  "deadline_boottime_ns"_a = p.deadline_boottime_ns,
                  "intensity_g_per_kwh"_a = p.intensity_g_per_kwh, "pue"_a = p.pue,
                  "embodied_g_per_s"_a = p.embodied_g_per_s, "mixes"_a = mixes,
                  "prompt"_a = prompt_fields(p.prompt, p.levels));
}

}  // namespace

void board_table(py::module_& m) {
  py::class_<Choice>(m, "Choice")
      .def_readonly("level", &Choice::level)
      .def_readonly("flags", &Choice::flags)
      .def_readonly("version", &Choice::version)
      .def_readonly("seed", &Choice::seed)
      .def_readonly("intensity_g_per_kwh", &Choice::intensity_g_per_kwh)
      .def_readonly("pue", &Choice::pue)
      .def_readonly("embodied_g_per_s", &Choice::embodied_g_per_s)
      .def_property_readonly("state", [](const Choice& self) { return int(self.state); })
      .def_property_readonly("unscored",
                             [](const Choice& self) { return (self.flags & kUnscored) != 0; });
  py::class_<BoardWriter>(m, "BoardWriter")
      .def(py::init<std::string>(), "path"_a)
      .def(
          "publish",
          [](BoardWriter& self, std::uint64_t version, std::uint64_t seed, std::uint64_t pack_hash,
             const std::vector<double>& shares, double control_share, double canary_share,
             bool paused, std::int64_t deadline_boottime_ns, double intensity_g_per_kwh, double pue,
             double embodied_g_per_s, const std::vector<MixFields>& mixes,
             const std::optional<PromptFields>& prompt) {
            self.publish(policy_of(version, seed, pack_hash, shares, control_share, canary_share,
                                   paused, deadline_boottime_ns, intensity_g_per_kwh, pue,
                                   embodied_g_per_s, mixes, prompt));
          },
          py::kw_only(), "version"_a, "seed"_a, "pack_hash"_a, "shares"_a, "control_share"_a,
          "canary_share"_a, "paused"_a, "deadline_boottime_ns"_a, "intensity_g_per_kwh"_a, "pue"_a,
          "embodied_g_per_s"_a, "mixes"_a, "prompt"_a)
      .def("clear", &BoardWriter::clear)
      .def("close", &BoardWriter::close);
  py::class_<BoardReader>(m, "BoardReader")
      .def(py::init<std::string, std::uint64_t, std::uint64_t, std::uint64_t, std::uint32_t>(),
           "path"_a, "pack_hash"_a, "node_id"_a, "boot_epoch"_a, "stub_index"_a)
      .def(
          "choose",
          [](BoardReader& self, std::uint64_t sequence) {
            Choice choice;
            self.choose(sequence, 1, nullptr, nullptr, &choice);
            return choice;
          },
          "sequence"_a)
      .def(
          "choose",
          [](BoardReader& self, std::uint64_t sequence, const py::bytes& tenant,
             const py::bytes& task) {
            const Asker asker = asker_of(tenant, task);
            Choice choice;
            self.choose(sequence, 1, &asker, nullptr, &choice);
            return choice;
          },
          "sequence"_a, "tenant"_a, "task"_a = py::bytes())
      .def(
          "choose",
          [](BoardReader& self, std::uint64_t sequence, const py::bytes& tenant,
             const py::bytes& task, const py::bytes& text) {
            const Asker asker = asker_of(tenant, task);
            const std::string_view prompt(text);
            Choice choice;
            const py::gil_scoped_release unlocked;
            self.choose(sequence, 1, &asker, &prompt, &choice);
            return choice;
          },
          "sequence"_a, "tenant"_a, "task"_a, "text"_a)
      .def(
          "choose_many",
          [](BoardReader& self, std::uint64_t first, std::size_t count) {
            std::vector<Choice> choices(count);
            self.choose(first, count, nullptr, nullptr, choices.data());
            return choices;
          },
          "first_sequence"_a, "count"_a)
      .def(
          "choose_many",
          [](BoardReader& self, std::uint64_t first, std::size_t count, const py::sequence& names) {
            const std::vector<Asker> askers = askers_of(names, count);
            std::vector<Choice> choices(count);
            self.choose(first, count, askers.data(), nullptr, choices.data());
            return choices;
          },
          "first_sequence"_a, "count"_a, "names"_a)
      .def(
          "choose_many",
          [](BoardReader& self, std::uint64_t first, std::size_t count,
             const std::optional<py::sequence>& names, const py::sequence& texts) {
            const std::vector<Asker> askers =
                names ? askers_of(*names, count) : std::vector<Asker>();
            const py::tuple held(texts);
            const std::vector<std::string_view> prompts = views(held);
            if (prompts.size() != count) throw std::invalid_argument("texts: one a request");
            std::vector<Choice> choices(count);
            const py::gil_scoped_release unlocked;
            self.choose(first, count, names ? askers.data() : nullptr, prompts.data(),
                        choices.data());
            return choices;
          },
          "first_sequence"_a, "count"_a, "names"_a, "texts"_a)
      .def("by_prompt", &BoardReader::by_prompt)
      .def(
          "_shares",
          [](BoardReader& self, const py::bytes& text, const py::bytes& tenant,
             const py::bytes& task) -> py::object {
            std::array<double, kMaxLevels> found;
            const std::uint32_t levels =
                self.shares(std::string_view(text), asker_of(tenant, task), found);
            if (levels == 0) return py::none();
            return py::cast(std::vector<double>(found.begin(), found.begin() + levels));
          },
          "text"_a, "tenant"_a, "task"_a)
      .def("_policy", &policy_fields)
      .def("_state", [](BoardReader& self) { return int(self.state()); });
}
